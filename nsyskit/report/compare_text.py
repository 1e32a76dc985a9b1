"""A comparison in a terminal: verdict, setup, then what explains each phase, then its lines."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from io import StringIO
from typing import Final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from nsyskit.compare.gate import GateResult
from nsyskit.compare.result import Comparison, PhaseComparison
from nsyskit.report.compare_rows import gate_text, line_rows, micros, part_rows, sides
from nsyskit.report.palette import PART_COLORS
from nsyskit.units import human_ns, printable

_LEVEL_STYLE: Final = {"refused": "bold red", "marked": "yellow", "note": "dim"}
_BAR: Final = 24


def render_text(
    comparison: Comparison,
    gates: Sequence[GateResult] = (),
    *,
    every: bool = False,
    width: int | None = None,
    color: bool | None = None,
) -> str:
    """The comparison as text; ``every`` shows all lines, ``color`` None asks the terminal."""
    out = StringIO()
    if color is None:
        color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    columns = max(width or shutil.get_terminal_size((100, 24)).columns, 72)
    console = Console(
        file=out,
        width=columns,
        force_terminal=color,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
    )
    for block in _blocks(comparison, gates, every=every):
        console.print(block)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).rstrip() + "\n"


def _blocks(comparison: Comparison, gates: Sequence[GateResult], *, every: bool) -> list[RenderableType]:
    names = f"{', '.join(comparison.base)} → {', '.join(comparison.candidate)}"
    blocks: list[RenderableType] = [Text(printable(names), style="bold"), Text(sides(comparison), style="dim")]
    blocks += [
        Text(f"{reason.level}: {printable(reason.message)}", style=_LEVEL_STYLE[reason.level])
        for reason in comparison.reasons
    ]
    blocks += [_setup(comparison), Text(printable(_verdict(comparison)), style="bold")]
    for result in gates:
        style = {"violated": "bold red", "undecided": "yellow", "within noise": "yellow"}.get(result.outcome, "green")
        blocks.append(Text(f"gate {printable(gate_text(result))}", style=style))
    for found in comparison.phases:
        blocks += [Text(""), *_phase(found, every=every)]
    return blocks


def _verdict(comparison: Comparison) -> str:
    if comparison.comparable == "no":
        return comparison.sentence
    return f"{comparison.verdict}: {comparison.sentence}"


def _setup(comparison: Comparison) -> RenderableType:
    if not comparison.setup and not comparison.shared_setup:
        return Text("setup: nothing is known of it", style="dim")
    alike = ", ".join(f"{name} {value}" for name, value in comparison.shared_setup)
    if not comparison.setup:
        return Text(printable(f"setup: no difference known ({alike})"), style="dim")
    grid = Table(box=None, pad_edge=False, title="Setup", title_justify="left", title_style="bold")
    for head in ("", "baseline", "candidate"):
        grid.add_column(head, overflow="fold")
    for item in comparison.setup:
        grid.add_row(printable(item.name), printable(item.base or "–"), printable(item.candidate or "–"))
    return grid


def _phase(found: PhaseComparison, *, every: bool) -> list[RenderableType]:
    head = (
        f"{found.phase}: {found.base_steps} and {found.candidate_steps} steps, "
        f"{found.base_tokens:,} and {found.candidate_tokens:,} tokens"
    )
    blocks: list[RenderableType] = [Text(head, style="bold"), _waterfall(found)]
    if found.total.verdict != "too few steps" or every:
        blocks.append(_lines(found, every=every))
    for word, kernels in (("new", found.new_kernels), ("vanished", found.vanished_kernels)):
        blocks += [
            Text(printable(f"{word} kernel: {name}, {human_ns(ns)} per token"), style="dim") for name, ns in kernels[:5]
        ]
        if len(kernels) > 5:
            blocks.append(Text(f"… and {len(kernels) - 5} more {word} kernels", style="dim"))
    return blocks


def _waterfall(found: PhaseComparison) -> RenderableType:
    rows, total = part_rows(found)
    title = f"What the difference is made of, µs per token (sum {micros(total)})"
    grid = Table(box=None, pad_edge=False, title=title, title_justify="left", show_header=False, padding=(0, 1))
    most = max((abs(row.ns) for row in rows), default=1) or 1
    for row in rows:
        bar = "█" * max(1, round(abs(row.ns) / most * _BAR)) if row.ns else ""
        style = PART_COLORS.get({"kernels": "kernel"}.get(row.name, row.name), "#8a8a8a")
        grid.add_row(Text(row.words), Text(micros(row.ns), justify="right"), Text(bar, style=style))
    return grid


def _lines(found: PhaseComparison, *, every: bool) -> RenderableType:
    grid = Table(box=None, pad_edge=False)
    for head in ("per token", "baseline", "candidate", "diff", "95 % interval", "verdict"):
        wide = head in {"per token", "verdict"}
        grid.add_column(head, justify="left" if wide else "right", no_wrap=not wide, overflow="ellipsis")
    for row in line_rows(found, every=every):
        name = row.name if len(row.name) <= 44 else f"{row.name[:43]}…"
        style = "bold" if row.changed else ""
        cells = (name, row.base, row.candidate, row.diff, row.interval, row.verdict)
        grid.add_row(*(Text(printable(cell), style=style) for cell in cells))
    return grid
