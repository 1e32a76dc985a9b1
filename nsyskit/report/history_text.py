"""Runs of the history in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Final

from rich.console import Console, RenderableType
from rich.table import Table

from nsyskit.history.history import StoredRun, TrendPoint
from nsyskit.units import human_bytes, human_ns, printable, rounded

_WIDTH: Final = 110
_BAR: Final = 30


def render_runs(runs: Sequence[StoredRun]) -> str:
    """One line a run."""
    if not runs:
        return "no runs; `nsyskit history add TRACE` keeps one\n"
    grid = _grid("run", "added", "name", "build", "model", "GPU", "tags")
    for run in runs:
        cells = (str(run.id), run.added, run.name, run.build, run.model, run.gpu, ", ".join(run.tags))
        grid.add_row(*(printable(cell or "–") for cell in cells))
    return _printed(grid)


def render_run(run: StoredRun) -> str:
    """Setup and numbers of one run; parts below a thousandth are left out."""
    facts = _grid("setup", "")
    for name, fact in {"run": str(run.id), "added": run.added, "tags": ", ".join(run.tags) or "–"}.items():
        facts.add_row(name, printable(fact))
    for name, told in run.facts.get("setup", {}).items():
        facts.add_row(printable(name), printable(str(told)))
    numbers = _grid("per token", "")
    for name, (value, unit) in run.metrics.items():
        if value:
            numbers.add_row(printable(name), value_text(value, unit))
    return _printed(facts) + "\n" + _printed(numbers)


def render_trend(metric: str, points: Sequence[TrendPoint]) -> str:
    """One line a run with a bar, and the change from the run before."""
    grid = _grid("run", "added", "build", metric, "change", "")
    most = max(abs(point.value) for point in points) or 1.0
    before: float | None = None
    for point in points:
        change = "" if not before else f"{(point.value / before - 1) * 100:+.1f} %"
        bar = "█" * round(abs(point.value) / most * _BAR)
        shown = value_text(point.value, point.unit)
        grid.add_row(str(point.run), printable(point.added), printable(point.build or "–"), shown, change, bar)
        before = point.value
    return _printed(grid)


def value_text(value: float, unit: str) -> str:
    """A metric in its unit."""
    if unit in {"ns", "ms"}:
        return human_ns(value * (1e6 if unit == "ms" else 1))
    if unit == "bytes":
        return human_bytes(value)
    return rounded(value, 3) + (f" {printable(unit)}" if unit != "count" else "")


def _grid(*heads: str) -> Table:
    grid = Table(box=None, pad_edge=False)
    for head in heads:
        grid.add_column(head, overflow="fold")
    return grid


def _printed(block: RenderableType) -> str:
    out = StringIO()
    Console(file=out, width=_WIDTH, highlight=False, no_color=True, markup=False, emoji=False).print(block)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
