"""``nsyskit timeline``."""

from __future__ import annotations

from pathlib import Path

import click

from nsyskit.cli.options import (
    check_output,
    examples,
    force_option,
    no_cache_option,
    nsys_option,
    open_with_progress,
    quiet_option,
    trace_argument,
    write_output,
)


@examples("""
nsyskit timeline trace.nsys-rep --from +1.25s --to +1.26s -o t.html
""")
@click.command()
@trace_argument
@click.option("--from", "start", required=True, metavar="TIME", help="Begin; + counts from the first GPU operation.")
@click.option("--to", "end", required=True, metavar="TIME", help="End.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The HTML file.")
@force_option
@nsys_option
@no_cache_option
@quiet_option
def command(*, trace: Path, start: str, end: str, output: Path, force: bool, nsys: Path | None, quiet: bool) -> None:
    """Draw a window of TRACE event by event; above 50,000 events neighbours are put together, and the page says so."""
    check_output(output, force=force, source=trace)
    from nsyskit.analysis.timeline import events
    from nsyskit.analysis.windows import parse_window
    from nsyskit.report.html import render_timeline

    opened = open_with_progress(trace, nsys=nsys, quiet=quiet)
    window = parse_window(f"{start}:{end}", opened)
    write_output(
        output, render_timeline(opened.meta.name, events(opened, window, title=f"{start} to {end}")), force=force
    )
    click.echo(str(output))
