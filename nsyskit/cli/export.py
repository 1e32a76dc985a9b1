"""``nsyskit export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nsyskit.cli.options import (
    check_output,
    examples,
    force_option,
    no_cache_option,
    nsys_option,
    open_with_progress,
    progress_line,
    quiet_option,
    whole_file,
)

if TYPE_CHECKING:
    from nsyskit.trace import Trace, Window

SUFFIXES = {"sqlite": ".sqlite", "perfetto": ".pftrace", "parquet": "-parquet"}


@examples("""
nsyskit export trace.nsys-rep
nsyskit export trace.nsys-rep -o kept.sqlite --nsys /opt/nsys/bin/nsys
nsyskit export trace.sqlite --to perfetto -o out.pftrace --window +1s:+2s
nsyskit export trace.sqlite --to parquet -o tables
""")
@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--to", type=click.Choice(list(SUFFIXES)), default="sqlite", show_default=True,
    help="nsys's SQLite export of a rep file; protobuf for ui.perfetto.dev; nsyskit's canonical tables.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: the trace's name with its ending.")
@click.option("--window", default=None, metavar="all|gpu|steady|START:END", help="Only this part (not for sqlite).")
@force_option
@nsys_option
@no_cache_option
@quiet_option
def command(
    *, trace: Path, to: str, output: Path | None, window: str | None, force: bool, nsys: Path | None, quiet: bool
) -> None:
    """Write TRACE in another format.

    `analyze` does not need the SQLite export of a rep file: it exports by itself, into the user's cache.
    """
    from nsyskit.errors import UsageError

    target = output or trace.with_name(trace.stem + SUFFIXES[to])
    if to == "parquet":
        _check_folder(target, force=force)
    else:
        check_output(target, force=force, source=trace)
    if to == "sqlite":
        from nsyskit.ingest import export_sqlite

        if window:
            raise UsageError("--window does not go with --to sqlite", hint="nsys exports a whole trace")
        with progress_line(quiet=quiet) as progress:
            export_sqlite(trace, target, nsys=nsys, progress=progress)
    else:
        from nsyskit.analysis.windows import parse_window

        opened = open_with_progress(trace, nsys=nsys, quiet=quiet)
        chosen = parse_window(window, opened) if window else None
        (_perfetto if to == "perfetto" else _parquet)(opened, target, chosen, force=force)
    click.echo(str(target))


def _perfetto(trace: Trace, target: Path, window: Window | None, *, force: bool) -> None:
    from nsyskit.report.perfetto import write_perfetto

    with whole_file(target, force=force) as file:
        write_perfetto(trace, file, window=window)


def _parquet(trace: Trace, target: Path, window: Window | None, *, force: bool) -> None:
    from nsyskit.report.parquet import write_parquet

    _check_folder(target, force=force)
    write_parquet(trace, target, window=window)


def _check_folder(folder: Path, *, force: bool) -> None:
    from nsyskit.errors import OutputError

    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file", hint="name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise OutputError(f"{folder} is not empty", hint="choose another name or add --force")
