"""``nsyskit ranks``."""

from __future__ import annotations

from pathlib import Path

import click

from nsyskit.cli.options import (
    check_output,
    emit,
    examples,
    force_option,
    no_cache_option,
    nsys_option,
    open_with_progress,
    quiet_option,
)  # fmt: skip


@examples("""
nsyskit ranks rank0.nsys-rep rank1.nsys-rep
nsyskit ranks client.sqlite rpc-server.sqlite --window gpu --format json
""")
@click.command()
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TRACE TRACE...")
@click.option(
    "--window", default=None, metavar="all|gpu|steady|START:END",
    help="What to look at: what all reports cover of it; times are in the first one's clock.",
)  # fmt: skip
@click.option("--format", "fmt", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write there instead of to stdout.")
@force_option
@nsys_option
@no_cache_option
@quiet_option
def command(
    *, traces: tuple[Path, ...], window: str | None, fmt: str, output: Path | None, force: bool, nsys: Path | None,
    quiet: bool,
) -> None:  # fmt: skip
    """Put several reports of one run on one clock: who works, and who idles while others work.

    One report a rank, or one of llama.cpp and one of each rpc-server. They are aligned by the UTC time at which
    nsys began each.
    """
    if output is not None:
        check_output(output, force=force)
    import shutil

    from nsyskit.analysis.ranks import rank_names, ranks
    from nsyskit.report.ranks import render_json, render_text
    from nsyskit.units import file_name

    opened = [open_with_progress(path, nsys=nsys, quiet=quiet) for path in traces]
    result = ranks(opened, names=rank_names([Path(file_name(str(path))) for path in traces]), window=window)
    width = 100 if output else shutil.get_terminal_size((100, 24)).columns
    emit(render_json(result) if fmt == "json" else render_text(result, width=width), output=output, force=force)
