"""``nsyskit info``."""

from __future__ import annotations

from pathlib import Path

import click

from nsyskit.cli.options import examples, nsys_option, open_with_progress, quiet_option, trace_argument


@examples("""
nsyskit info trace.nsys-rep
nsyskit info trace.sqlite --format json
""")
@click.command()
@trace_argument
@click.option("--format", "fmt", type=click.Choice(["text", "json"]), default="text", show_default=True)
@nsys_option
@quiet_option
def command(*, trace: Path, fmt: str, nsys: Path | None, quiet: bool) -> None:
    """Say what TRACE holds: versions, what was collected, GPUs, programs, rows.

    Neither the target's environment nor host, user and folder names are shown.
    """
    from nsyskit.report.info import render_info, render_info_json

    meta = open_with_progress(trace, nsys=nsys, quiet=quiet).meta
    click.echo(render_info_json(meta) if fmt == "json" else render_info(meta), nl=False)
