"""``nsyskit analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
    trace_argument,
)  # fmt: skip
from nsyskit.errors import UsageError

if TYPE_CHECKING:
    from nsyskit.analysis.limits import ModelLoad
    from nsyskit.trace import Trace

# spelled out: importing the analyses here would make every --help wait for polars; a test holds them equal
CHOICES = (
    "sums", "osrt", "hotspots", "sync", "launch", "copies", "devices", "threads", "gaps", "steps", "phases", "program",
    "limits", "startup", "layers", "several_gpus", "depth", "roles", "verdict", "advice",
    "api_sum", "osrt_sum", "kernel_sum", "category_sum", "family_sum", "quant_sum", "kern_exec_sum",
    "mem_time_sum", "mem_size_sum", "nvtx_sum",
)  # fmt: skip


@examples("""
nsyskit analyze trace.nsys-rep
nsyskit analyze trace.sqlite -a sync -a devices --window +1s:+2s
nsyskit analyze trace.sqlite --format json -o trace.json
nsyskit analyze trace.sqlite -a roles -a depth --model model.gguf
nsyskit analyze trace.sqlite --html report.html
""")
@click.command()
@trace_argument
@click.option("-a", "--analysis", "only", multiple=True, type=click.Choice(CHOICES), help="Only this (repeatable).")
@click.option(
    "--window", default=None, metavar="all|gpu|steady|START:END",
    help="What to look at. Times take ns, us, ms or s; + counts from the first GPU operation.",
)  # fmt: skip
@click.option(
    "--format", "fmt", type=click.Choice(["text", "json", "csv", "markdown"]), default="text", show_default=True
)
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Rows a table of the text.")
@click.option("--kernel-rules", type=click.Path(path_type=Path), help="Kernel rules of your own, tried first.")
@click.option(
    "--log", "logs", multiple=True, type=click.Path(path_type=Path),
    help="What the program printed, when the trace did not keep it (repeatable).",
)  # fmt: skip
@click.option("--model", type=click.Path(path_type=Path), help="The model's GGUF file: for limits, roles.")
@click.option("--model-bytes", type=click.IntRange(min=1), help="Or the bytes of weights that a token reads.")
@click.option("--step", type=click.IntRange(min=0), metavar="N", help="Also one step in detail.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write there instead of to stdout.")
@click.option("--html", type=click.Path(path_type=Path), help="Also write the report as one HTML file.")
@force_option
@nsys_option
@no_cache_option
@quiet_option
def command(
    *, trace: Path, only: tuple[str, ...], window: str | None, fmt: str, top: int, output: Path | None,
    kernel_rules: Path | None, logs: tuple[Path, ...], model: Path | None, model_bytes: int | None,
    step: int | None, html: Path | None, force: bool, nsys: Path | None, quiet: bool,
) -> None:  # fmt: skip
    """Tell where the time of TRACE went.

    TRACE is a .nsys-rep, an SQLite export, a directory of `nsys export --type parquetdir`, or a run folder.
    """
    for target in (output, html):
        if target is not None:
            check_output(target, force=force, source=trace)
    from nsyskit.analysis.analyze import OVERVIEW, analyze
    from nsyskit.analysis.windows import parse_window
    from nsyskit.ggml.catalogue import KernelRules
    from nsyskit.ingest import OpenOptions, open_shares

    opened = open_with_progress(trace, nsys=nsys, quiet=quiet)
    chosen = parse_window(window, opened) if window else None
    rules = KernelRules.load(kernel_rules) if kernel_rules else None
    texts = program_texts(opened, trace, logs)
    load = model_load(opened, model, model_bytes, texts)
    shares = open_shares(trace, options=OpenOptions(nsys=nsys))
    if "limits" in only and load is None:
        raise UsageError("limits need the size of the model", hint="give --model FILE.gguf or --model-bytes N")
    if "roles" in only and model is None:
        raise UsageError("roles need the tensors of the model", hint="give --model FILE.gguf")
    if step is not None and html is None:
        only = only or ("steps",)
    overview = (*OVERVIEW, *(["limits"] if load else [])) if fmt == "text" and html is None else ()
    report = analyze(
        opened, only=only or overview, window=chosen, rules=rules, logs=texts, load=load,
        step=step, shares=shares,
    )  # fmt: skip
    if fmt == "json":
        from nsyskit.report.json import render_json

        text = render_json(report)
    elif fmt == "markdown":
        from nsyskit.report.markdown import render_markdown

        text = render_markdown(report, top=top)
    elif fmt == "csv":
        from nsyskit.report.csv import render_csv

        text = render_csv(report)
    else:
        from nsyskit.report.text import render_text

        text = render_text(
            report, top=top, width=None if output is None else 100, color=None if output is None else False
        )
    emit(text, output=output, force=force)
    if html is not None:
        from nsyskit.cli.report import write_html

        write_html(opened, report, html, source=trace, force=force)


def program_texts(opened: Trace, path: Path, logs: tuple[Path, ...]) -> tuple[str, ...]:
    """What the program printed: the logs named, else a run folder's own when the trace kept nothing."""
    from nsyskit.analysis.program import kept_texts
    from nsyskit.runfolder import is_run_folder, load_run

    if logs:
        return ("\n".join(_text(log) for log in logs),)
    if not is_run_folder(path) or kept_texts(opened):
        return ()
    run = load_run(path)
    found = [part for part in (run.program_out, run.program_err, run.results) if part.is_file()]
    return ("\n".join(_text(part) for part in found),) if found else ()


def model_load(
    opened: Trace, model: Path | None, model_bytes: int | None, texts: tuple[str, ...] = ()
) -> ModelLoad | None:
    """What the model demands of the GPU: by the options, else by the program's output; None when nothing says."""
    from nsyskit.analysis.limits import ModelLoad, load_of
    from nsyskit.analysis.printed_model import printed_load
    from nsyskit.analysis.program import kept_texts
    from nsyskit.ggml.gguf_file import read_model

    if model is not None and model_bytes is not None:
        raise UsageError("--model and --model-bytes say the same", hint="give one of them")
    if model is not None:
        return load_of(read_model(model), opened.meta.capture.command)
    if model_bytes is not None:
        return ModelLoad(model_bytes, {})
    return printed_load(texts or [text for _, text in kept_texts(opened)])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="name the file the program wrote to") from error
