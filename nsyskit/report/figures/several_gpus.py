"""The figure of several GPUs: the window by which of them were at work."""

from __future__ import annotations

from typing import Final

from nsyskit.analysis.several_gpus import SeveralGpusResult
from nsyskit.report.figures.base import Drawing, drawing, laid_out, series
from nsyskit.report.several_gpus import gpu_name
from nsyskit.units import human_ns, human_share

_COLORS: Final = ("#2a8a5a", "#3a7fc4", "#d0751a", "#9a6ac4", "#b8568f", "#1f8a8a", "#a8702f")
_NONE: Final = "#8a8a8a"
_MOST: Final = 7
"""Sets of GPUs that get a part of their own; eight GPUs could make 256."""


@drawing.register
def _several_gpus(result: SeveralGpusResult) -> Drawing:
    """One bar, the window: which GPUs were at work, alone or together."""
    sets = [(tuple(row["places"]), row["ns"]) for row in result.busy_sets.iter_rows(named=True)]
    idle = sum(ns for places, ns in sets if not places)
    working = [(places, ns) for places, ns in sets if places]
    parts = [(_set_name(result, places), ns) for places, ns in working[:_MOST]]
    parts += [("other sets", sum(ns for _, ns in working[_MOST:])), ("none", idle)]
    whole = result.window.dur_ns
    bars = [
        series(
            "bar", x=[ns / 1e6], y=["window"], orientation="h", name=name,
            marker={"color": _NONE if name == "none" else _COLORS[position % len(_COLORS)]},
            customdata=[f"{human_ns(ns)} ({human_share(ns / whole)})"],
            hovertemplate="%{fullData.name}: %{customdata}<extra></extra>",
        )
        for position, (name, ns) in enumerate(parts) if ns
    ]  # fmt: skip
    return laid_out(bars, rows=2, x="ms", barmode="stack", legend=len(bars))


def _set_name(result: SeveralGpusResult, places: tuple[int, ...]) -> str:
    names = [gpu_name(result, place) for place in places]
    return f"only {names[0]}" if len(names) == 1 else " + ".join(names)
