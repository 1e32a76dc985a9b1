"""``nsyskit export``."""

from __future__ import annotations

from pathlib import Path

import click

from nsyskit.cli.options import check_output, examples, force_option, nsys_option, progress_line, quiet_option


@examples("""
nsyskit export trace.nsys-rep
nsyskit export trace.nsys-rep -o kept.sqlite --nsys /opt/nsys/bin/nsys
""")
@click.command()
@click.argument("report", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: the report's name with .sqlite.")
@force_option
@nsys_option
@quiet_option
def command(*, report: Path, output: Path | None, force: bool, nsys: Path | None, quiet: bool) -> None:
    """Write the SQLite export of REPORT (.nsys-rep or .qdrep), for you to keep.

    `analyze` does not need it: it exports by itself, into the user's cache.
    """
    target = output or report.with_suffix(".sqlite")
    check_output(target, force=force, source=report)
    from nsyskit.ingest import export_sqlite

    with progress_line(quiet=quiet) as progress:
        export_sqlite(report, target, nsys=nsys, progress=progress)
    click.echo(str(target))
