"""The report in a terminal: trust, verdict and ledger bars first, then one table a section.

Fits 80 columns; wider terminals get more columns and longer names. Colour only where somebody looks, and never with
``NO_COLOR``.
"""

from __future__ import annotations

import os
import shutil
import sys
from io import StringIO
from typing import Final

from rich.console import Console, RenderableType
from rich.text import Text

from nsyskit.analysis.analyze import Report
from nsyskit.report.text import calls, gpus, kernels, program  # noqa: F401 - they register their blocks
from nsyskit.report.text.layout import Layout, block_of
from nsyskit.report.text.overview import bounds, header, trust
from nsyskit.report.text.steps import step_table
from nsyskit.report.words import absent
from nsyskit.units import printable

__all__ = ["Layout", "block_of", "render_text"]

_ORDER: Final = (
    "step", "steps", "advice", "limits", "program", "startup", "devices", "several_gpus", "host_functions", "threads",
    "sync", "launch", "gaps", "category_sum", "family_sum", "quant_sum", "kernel_sum", "api_sum", "mem_time_sum",
    "mem_size_sum", "copies", "depth", "roles", "layers", "osrt_by_thread", "osrt_sum", "nvtx_sum", "kern_exec_sum",
)  # fmt: skip


def render_text(report: Report, *, top: int = 10, width: int | None = None, color: bool | None = None) -> str:
    """The whole report as text.

    Args:
        report: what to show.
        top: rows a table.
        width: columns; None takes the terminal's, 100 where there is none.
        color: None decides by whether stdout is a terminal and ``NO_COLOR`` is unset.
    """
    out = StringIO()
    if color is None:
        color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    columns = width or shutil.get_terminal_size((100, 24)).columns
    console = Console(
        file=out,
        width=max(columns, 60),
        force_terminal=color,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
    )
    for block in _blocks(report, Layout(top, console.width)):
        console.print(block)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).rstrip() + "\n"


def _blocks(report: Report, layout: Layout) -> list[RenderableType]:
    blocks: list[RenderableType] = [header(report), trust(report)]
    if report.verdict is not None:
        blocks += [Text(printable(report.verdict.sentence), style="bold"), bounds(report), Text("")]
    for name in _ORDER:
        result = report.sections.get(name)
        if result is None:
            continue
        block = block_of(result, layout)
        if block is not None:
            blocks += [block, Text("")]
        if name == "steps" and set(report.sections) <= {"steps", "step"}:
            blocks += [step_table(result, layout), Text("")]
    if missing := absent(report):
        blocks.append(Text(f"not collected, so not shown: {', '.join(missing)}", style="dim"))
    return blocks
