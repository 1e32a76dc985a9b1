"""``nsyskit info``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from nsyskit.cli.options import (
    examples,
    no_cache_option,
    nsys_option,
    open_with_progress,
    progress_line,
    quiet_option,
    trace_argument,
)


@examples("""
nsyskit info trace.nsys-rep
nsyskit info trace.sqlite --format json
nsyskit info trace.sqlite --secrets
""")
@click.command()
@trace_argument
@click.option("--format", "fmt", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--secrets", is_flag=True, help="Count the classes of secrets that `redact` would take out, instead.")
@nsys_option
@no_cache_option
@quiet_option
def command(*, trace: Path, fmt: str, secrets: bool, nsys: Path | None, quiet: bool) -> None:
    """Say what TRACE holds: versions, what was collected, GPUs, programs, rows.

    Neither the target's environment nor host, user and folder names are shown.
    """
    if secrets:
        click.echo(_secrets(trace, fmt=fmt, nsys=nsys, quiet=quiet))
        return
    from nsyskit.report.info import render_info, render_info_json

    meta = open_with_progress(trace, nsys=nsys, quiet=quiet).meta
    click.echo(render_info_json(meta) if fmt == "json" else render_info(meta), nl=False)


def _secrets(trace: Path, *, fmt: str, nsys: Path | None, quiet: bool) -> str:
    """Classes and counts, never the finds. A rep file is exported to look into it; nothing of that is kept."""
    from nsyskit.cli.redact import removed_text
    from nsyskit.redact import find_secrets

    if trace.suffix in {".nsys-rep", ".qdrep"}:
        from nsyskit.ingest import export_sqlite

        with tempfile.TemporaryDirectory() as folder, progress_line(quiet=quiet) as progress:
            exported = Path(folder) / "trace.sqlite"
            export_sqlite(trace, exported, nsys=nsys, progress=progress)
            counts = find_secrets(exported)
    else:
        counts = find_secrets(trace)
    if fmt == "json":
        return json.dumps({"schema": "nsyskit.secrets/1", "secrets": counts}, indent=1)
    return removed_text(counts, verb="found")
