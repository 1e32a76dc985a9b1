"""Figures of a served load and of the GPUs' counters meanwhile."""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from nsyskit.analysis.gpu_memory import GpuMemoryResult
from nsyskit.analysis.served import GpuSamplesResult, ServedResult
from nsyskit.report.figures.base import Drawing, drawing, laid_out, plain, series
from nsyskit.report.palette import SERIES_COLORS
from nsyskit.units import human_bytes, human_ns

_TIMES: Final = {
    "request": ("total_ns", "#8a8a8a"),
    "first token": ("ttft_ns", "#3a7fc4"),
    "between tokens (p50 of the request)": ("itl_p50_ns", "#2a8a5a"),
}
_METRICS: Final[dict[str, tuple[str, float]]] = {
    "memory, GB": ("memory_used_bytes", 1e9),
    "SM use, %": ("sm_share", 0.01),
    "power, W": ("power_mw", 1e3),
    "SM clock, MHz": ("sm_clock_mhz", 1),
    "temperature, °C": ("temperature_c", 1),
}
_METRIC_PX: Final = 110
_GAP_PX: Final = 26
_MAX_POINTS: Final = 4_000


@drawing.register
def _served(result: ServedResult) -> Drawing:
    """What clients waited for, request by request, over the time at which each was sent."""
    drawn = []
    rows = result.requests
    for name, (column, color) in _TIMES.items():
        known = rows.filter(pl.col(column) > 0)
        if known.height:
            texts = [
                f"request {row['index']}: {human_ns(row[column])}<br>{row['prompt_n'] or 0:,} prompt tokens "
                f"({row['cache_n'] or 0:,} cached), {row['predicted_n'] or 0:,} generated"
                for row in known.iter_rows(named=True)
            ]
            points = series(
                "scatter", x=(known["at_ns"] / 1e9).to_list(), y=(known[column] / 1e6).to_list(), name=name,
                mode="markers", marker={"color": color, "size": 7}, text=texts,
                hovertemplate="%{text}<extra>%{fullData.name}</extra>",
            )  # fmt: skip
            drawn.append(points)
    y = {"type": "log", "dtick": 1}
    return laid_out(drawn, rows=10, x="s from the first request", y="ms, logarithmic", legend=len(drawn), yaxis=y)


@drawing.register
def _gpu_samples(result: GpuSamplesResult) -> Drawing:
    """A strip a counter, a line a GPU; counters that NVML did not give are left out."""
    metrics = {
        name: told for name, told in _METRICS.items() if result.samples[told[0]].drop_nulls().len()
    }  # fmt: skip
    lines, names = [], []
    inner = len(metrics) * (_METRIC_PX + _GAP_PX) or 1
    axes: dict[str, Any] = {}
    for strip, (name, (column, unit)) in enumerate(metrics.items()):
        top = 1 - (strip * (_METRIC_PX + _GAP_PX) + _GAP_PX) / inner
        number = strip + 1 if strip else ""
        axes[f"yaxis{number}"] = {
            "domain": [max(top - _METRIC_PX / inner, 0), top], "anchor": "x", "rangemode": "tozero", "nticks": 4,
            "automargin": True,
        }  # fmt: skip
        place = {"x": 0, "xref": "paper", "xanchor": "left", "y": top, "yref": "paper", "yanchor": "bottom"}
        names.append(place | {"text": name, "showarrow": False})
        for at, row in enumerate(result.gpus.iter_rows(named=True)):
            own = result.samples.filter(pl.col("gpu") == row["gpu"])
            values = own[column]
            line = series(
                "scatter", x=(own["at_ns"] / 1e9).to_list(),
                y=[None if value is None else value / unit for value in values],
                name=plain(f"GPU {row['gpu']} {row['name'] or ''}".strip()), legendgroup=str(at),
                showlegend=strip == 0, mode="lines", line={"color": SERIES_COLORS[at % len(SERIES_COLORS)]},
                yaxis=f"y{number}", text=[_said(column, value) for value in values],
                hovertemplate="%{text} at %{x:.2f} s<extra>%{fullData.name}</extra>",
            )  # fmt: skip
            lines.append(line)
    return laid_out(
        lines, rows=2, x="s from the first sample", legend=result.gpus.height, annotations=names, height=inner + 90,
        **axes, xaxis={"anchor": f"y{len(metrics) if len(metrics) > 1 else ''}"},
    )  # fmt: skip


@drawing.register
def _gpu_memory(result: GpuMemoryResult) -> Drawing:
    """Memory held over time, a line a device and process."""
    lines = []
    first = min(int(one.points["at_ns"][0]) for one in result.devices)
    for place, one in enumerate(result.devices):
        points = _thinned(one.points)
        line = series(
            "scatter", x=((points["at_ns"] - first) / 1e9).to_list(), y=(points["bytes"] / 1e9).to_list(),
            name=plain(one.label), mode="lines",
            line={"shape": "hv", "color": SERIES_COLORS[place % len(SERIES_COLORS)]},
            text=[human_bytes(value) for value in points["bytes"]],
            hovertemplate="%{text} at %{x:.3f} s<extra>%{fullData.name}</extra>",
        )  # fmt: skip
        lines.append(line)
    y = {"rangemode": "tozero"}
    return laid_out(lines, rows=6, x="s from the first memory event", y="GB held", legend=len(lines), yaxis=y)


def _thinned(points: pl.DataFrame) -> pl.DataFrame:
    """At most ``_MAX_POINTS`` points: of neighbours the one that holds most, so that no peak is lost."""
    width = -(-points.height // _MAX_POINTS)
    if width <= 1:
        return points
    return points.group_by(pl.int_range(pl.len()) // width, maintain_order=True).agg(
        pl.all().sort_by("bytes", maintain_order=True).last()
    ).select("at_ns", "bytes")  # fmt: skip


def _said(column: str, value: float | None) -> str:
    if value is None:
        return "–"
    if column == "memory_used_bytes":
        return human_bytes(value)
    unit = {"sm_share": "%", "power_mw": "W", "sm_clock_mhz": "MHz", "temperature_c": "°C"}[column]
    factor = {"sm_share": 0.01, "power_mw": 1e3}.get(column, 1)
    return f"{value / factor:.0f} {unit}"
