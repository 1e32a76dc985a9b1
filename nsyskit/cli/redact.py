"""``nsyskit redact``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nsyskit.cli.options import check_output, examples, force_option, trace_argument

if TYPE_CHECKING:
    from collections.abc import Mapping

# spelled out, as in `analyze`: --help waits for nothing; a test holds them equal
CHOICES = ("environment", "argument", "credential", "host", "user", "home", "address", "output", "other")


@examples("""
nsyskit redact trace.sqlite -o clean.sqlite
nsyskit redact trace.sqlite -o clean.sqlite --keep output --keep argument
nsyskit info trace.sqlite --secrets
""")
@click.command()
@trace_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The clean SQLite file.")
@click.option("--keep", multiple=True, type=click.Choice(CHOICES), help="Leave this class in (repeatable).")
@force_option
def command(*, trace: Path, output: Path, keep: tuple[str, ...], force: bool) -> None:
    """Write a copy of the SQLite export TRACE that can be shown to others.

    Taken out: environments, names of host and user, home folders, addresses, secrets and free words of the command
    line, what the program printed, and strings that no event refers to. Events stay as they are, with the names of
    kernels, API calls, symbols, threads and NVTX ranges; what `analyze` reads from the program's own output goes with
    it, unless `--keep output`. A .nsys-rep cannot be cleaned: export it first.
    """
    check_output(output, force=force, source=trace)
    from nsyskit.redact import redact

    done = redact(trace, output, keep=keep)
    click.echo(removed_text(done.removed))
    if done.kept:
        click.echo(f"kept by request: {', '.join(done.kept)}")
    for file in done.rep_files:
        click.echo(f"{file} still holds everything: do not share it, or delete it", err=True)
    click.echo(str(output))


def removed_text(counts: Mapping[str, int], *, verb: str = "removed") -> str:
    """One line a class, never the finds themselves."""
    from nsyskit.redact import CLASSES

    if not counts:
        return f"nothing {verb}: no class of secrets was found"
    width = max(len(f"{count:,}") for count in counts.values())
    lines = [f"  {count:>{width},}  {name:11}  {CLASSES[name]}" for name, count in counts.items()]
    return "\n".join([f"{verb}:", *lines])
