"""``nsyskit report``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nsyskit.cli.analyze import model_load, program_texts
from nsyskit.cli.options import (
    check_output,
    emit,
    examples,
    force_option,
    no_cache_option,
    nsys_option,
    open_with_progress,
    quiet_option,
    trace_argument,
    whole_file,
    write_output,
)
from nsyskit.errors import UsageError

if TYPE_CHECKING:
    from nsyskit.analysis.analyze import Report
    from nsyskit.trace import Trace


@examples("""
nsyskit report trace.nsys-rep -o report.html
nsyskit report trace.sqlite -o report.html --around +1.25s --around +3s
nsyskit report trace.sqlite -o report.html --window +1s:+2s --plotly directory
nsyskit report trace.sqlite --format markdown
""")
@click.command()
@trace_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file; Markdown goes to stdout without.")
@click.option("--format", "fmt", type=click.Choice(["html", "markdown"]), default="html", show_default=True)
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
@click.option(
    "--log", "logs", multiple=True, type=click.Path(path_type=Path),
    help="What the program printed, when the trace did not keep it (repeatable).",
)  # fmt: skip
@click.option("--model", type=click.Path(path_type=Path), help="The model's GGUF file, to tell the hardware's limits.")
@click.option("--model-bytes", type=click.IntRange(min=1), help="Or the bytes of weights that a token reads.")
@click.option("--step", type=click.IntRange(min=0), metavar="N", help="Also one step in detail.")
@click.option("--kernel-rules", type=click.Path(path_type=Path), help="Kernel rules of your own, tried first.")
@force_option
@nsys_option
@no_cache_option
@quiet_option
def command(
    *, trace: Path, output: Path | None, fmt: str, plotly: str, window: str | None, around: tuple[str, ...],
    kernel_rules: Path | None, logs: tuple[Path, ...], model: Path | None, model_bytes: int | None, step: int | None,
    force: bool, nsys: Path | None, quiet: bool,
) -> None:  # fmt: skip
    """Write what bounds TRACE, and where its time went, as one HTML file that opens offline."""
    if output is not None:
        check_output(output, force=force, source=trace)
    elif fmt == "html":
        raise UsageError("an HTML report needs a file", hint="add -o report.html")
    from nsyskit.analysis.analyze import analyze
    from nsyskit.analysis.timeline import instant
    from nsyskit.analysis.windows import parse_window
    from nsyskit.ggml.catalogue import KernelRules
    from nsyskit.ingest import OpenOptions, open_shares

    opened = open_with_progress(trace, nsys=nsys, quiet=quiet)
    chosen = parse_window(window, opened) if window else None
    times = [instant(opened, text) for text in around]
    texts = program_texts(opened, trace, logs)
    result = analyze(
        opened,
        window=chosen,
        rules=KernelRules.load(kernel_rules) if kernel_rules else None,
        logs=texts,
        load=model_load(opened, model, model_bytes, texts),
        step=step,
        shares=open_shares(trace, options=OpenOptions(nsys=nsys)),
    )
    if output is None or fmt == "markdown":
        from nsyskit.report.markdown import render_markdown

        emit(render_markdown(result), output=output, force=force)
        return
    write_html(opened, result, output, source=trace, around=times, inline=plotly == "inline", force=force)
    click.echo(str(output))


def with_beside(trace: Trace, result: Report, source: Path) -> Report:
    """The report with a run folder's requests and GPU samples, and with the GPUs' memory, for the page only."""
    from dataclasses import replace

    from nsyskit.analysis.gpu_memory import gpu_memory
    from nsyskit.analysis.served import gpu_samples, served
    from nsyskit.errors import MissingTableError
    from nsyskit.ingest.beside import read_beside

    beside = read_beside(source)
    found: dict[str, object] = {"requests": served(beside), "gpu_samples": gpu_samples(beside)}
    with suppress(MissingTableError):
        found["gpu_memory"] = gpu_memory(trace)
    return replace(result, sections={**result.sections, **{name: one for name, one in found.items() if one}})


def write_html(
    trace: Trace, result: Report, output: Path, *, source: Path | None = None, around: Sequence[int] = (),
    inline: bool = True, force: bool = False,
) -> None:  # fmt: skip
    """The report of a trace as an HTML file, with its timelines, and with what lies beside it in a run folder."""
    from nsyskit.analysis.timeline import timelines
    from nsyskit.errors import MissingTableError
    from nsyskit.report.html import PLOTLY_FILE, library_file, render_html

    if source is not None:
        result = with_beside(trace, result, source)
    try:
        drawn = timelines(trace, window=result.window, around=around)
    except MissingTableError:
        drawn = None  # a trace without anything that has a time still has facts
    write_output(output, render_html(result, timelines=drawn, plotly="inline" if inline else "directory"), force=force)
    if not inline:
        with whole_file(output.parent / PLOTLY_FILE, force=True) as file:
            file.write(library_file())
