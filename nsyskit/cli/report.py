"""``nsyskit report``."""

from __future__ import annotations

from pathlib import Path

import click

from nsyskit.cli.options import (
    check_output,
    examples,
    force_option,
    nsys_option,
    open_with_progress,
    quiet_option,
    trace_argument,
    write_output,
)


@examples("""
nsyskit report trace.nsys-rep -o report.html
nsyskit report trace.sqlite -o report.html --around +1.25s --around +3s
nsyskit report trace.sqlite -o report.html --window +1s:+2s --plotly directory
""")
@click.command()
@trace_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The HTML file.")
@click.option(
    "--plotly",
    type=click.Choice(["inline", "directory"]),
    default="inline",
    show_default=True,
    help="Where plotly.js lies: within the file, or as plotly.min.js beside it.",
)
@click.option(
    "--window",
    default=None,
    metavar="all|gpu|steady|START:END",
    help="What to look at. Times take ns, us, ms or s; + counts from the first GPU operation.",
)
@click.option("--around", multiple=True, metavar="TIME", help="Draw 10 ms around this time in detail (repeatable).")
@click.option("--kernel-rules", type=click.Path(path_type=Path), help="Kernel rules of your own, tried first.")
@force_option
@nsys_option
@quiet_option
def command(
    *, trace: Path, output: Path, plotly: str, window: str | None, around: tuple[str, ...],
    kernel_rules: Path | None, force: bool, nsys: Path | None, quiet: bool,
) -> None:  # fmt: skip
    """Write what bounds TRACE, and where its time went, as one HTML file that opens offline."""
    library = output.parent / "plotly.min.js"
    check_output(output, force=force, source=trace)
    from nsyskit.analysis.analyze import analyze
    from nsyskit.analysis.timeline import instant, timelines
    from nsyskit.analysis.windows import parse_window
    from nsyskit.errors import MissingTableError
    from nsyskit.ggml.catalogue import KernelRules
    from nsyskit.report.html import library_file, render_html

    opened = open_with_progress(trace, nsys=nsys, quiet=quiet)
    chosen = parse_window(window, opened) if window else None
    times = [instant(opened, text) for text in around]
    result = analyze(opened, window=chosen, rules=KernelRules.load(kernel_rules) if kernel_rules else None)
    try:
        drawn = timelines(opened, window=result.window, around=times)
    except MissingTableError:
        drawn = None  # a trace without anything that has a time still has facts
    page = render_html(result, timelines=drawn, plotly="directory" if plotly == "directory" else "inline")
    write_output(output, page, force=force)
    if plotly == "directory":
        write_output(library, library_file().decode(), force=True)
    click.echo(str(output))
