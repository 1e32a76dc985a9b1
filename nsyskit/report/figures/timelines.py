"""Timelines as figures: a lane a row, coloured by what the GPU or the thread did, idle time by its cause.

In the report a script replaces the data of these figures as one zooms; in a notebook they show their coarsest level.
Traces carry ``meta`` (lane, part) so that the script knows which is which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

import polars as pl

from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.timeline import EVENT_COLUMNS, DensityResult, EventsResult, Lane, aggregated
from nsyskit.report.figures.base import Drawing, Series, drawing, laid_out, over, plain, series, time_unit
from nsyskit.report.names import shortened
from nsyskit.report.palette import PART_COLORS
from nsyskit.report.words import PARTS, THREAD_PARTS
from nsyskit.trace import Window
from nsyskit.units import human_ns, human_share, printable

NOTEBOOK_EVENTS: Final = 6_000
_NOTEBOOK_COLUMNS: Final = 1_200
_LABEL_PX: Final = 20
AXIS_PX: Final = 44
_LANE_PX: Final = {"gpu": 64, "thread": 48, "stream": 30, "copies": 24, "graphs": 24, "api": 26, "os": 26}
_EVENT_PX: Final = 26
_TEXT_CHARACTERS: Final = 90
_NO_EVENTS: Final = pl.DataFrame(schema=EVENT_COLUMNS)


@drawing.register
def _density(result: DensityResult) -> Drawing:
    """The whole window: of each column of time the share of every part."""
    unit, level = time_unit(result.window), result.levels[0]
    edges = [*level["start_ns"], level["end_ns"][-1]] if level.height else []
    x = [(edge - result.window.start_ns) / unit.ns for edge in edges]
    width = (level["end_ns"] - level["start_ns"]).cast(pl.Float64)
    drawn: list[Series] = []
    seen = set[str]()
    for index, lane in enumerate(result.lanes):
        axis = _axis(index)
        for part in lane.parts:
            shares = (level[f"{lane.key}/{part}"] / width).fill_nan(0.0).round(4).to_list() if edges else []
            area = series(
                "scatter",
                x=x,
                y=[*shares, *shares[-1:]],
                stackgroup=lane.key,
                line={"width": 0, "shape": "hv"},
                mode="lines",
                fillcolor=PART_COLORS[part],
                name=part_words(lane, part),
                legendgroup=part,
                showlegend=part not in seen,
                hoverinfo="skip",
                yaxis=axis,
                meta={"lane": index, "part": part},
            )
            drawn.append(area)
            seen.add(part)
        hover = series(
            "scatter",
            x=x,
            y=[0.5] * len(x),
            text=_column_texts(level, lane) if edges else [],
            mode="lines",
            line={"width": 0, "color": "#888"},
            showlegend=False,
            hovertemplate="%{text}<extra></extra>",
            yaxis=axis,
            meta={"lane": index, "hover": True},
        )
        drawn.append(hover)
    heights = [_LANE_PX[lane.kind] for lane in result.lanes]
    return _laid_out_lanes(drawn, result.lanes, heights, result.window, legend=len(seen), hovermode="x")


@drawing.register
def _events(result: EventsResult) -> Drawing:
    """A short window event by event; very many are put together, as a label then says."""
    unit = time_unit(result.window)
    rows = result.events
    if rows.height > NOTEBOOK_EVENTS:
        rows = aggregated(rows, result.window, _NOTEBOOK_COLUMNS)
    shown = rows.partition_by("lane", "part", as_dict=True)
    drawn: list[Series] = []
    seen = set[str]()
    for index, lane in enumerate(result.lanes):
        for part in lane.parts:
            own = shown.get((index, part), _NO_EVENTS)
            bars = series(
                "bar",
                base=[(start - result.window.start_ns) / unit.ns for start in own["start_ns"]],
                x=[(end - start) / unit.ns for start, end in zip(own["start_ns"], own["end_ns"], strict=True)],
                y=[0.5] * own.height,
                width=1,
                orientation="h",
                marker={"color": PART_COLORS[part], "line": {"width": 0}},
                customdata=event_texts(own, result.bubbles),
                hovertemplate="%{customdata}<extra></extra>",
                name=part_words(lane, part),
                legendgroup=part,
                showlegend=part not in seen,
                yaxis=_axis(index),
                meta={"lane": index, "part": part},
            )
            drawn.append(bars)
            seen.add(part)
    heights = [_EVENT_PX] * len(result.lanes)
    return _laid_out_lanes(
        drawn, result.lanes, heights, result.window, legend=len(seen), hovermode="closest", barmode="overlay"
    )


def hull(result: DensityResult | EventsResult) -> Drawing:
    """The figure without its data, for the page: there a script fills it in by its zoom."""
    if isinstance(result, DensityResult):
        return drawing(replace(result, levels=(result.levels[0].clear(),)))
    return drawing(replace(result, events=result.events.clear(), bubbles=result.bubbles.clear()))


def part_words(lane: Lane, part: str) -> str:
    """What a colour means; for idle time of a GPU and calls of a thread the colour is the same."""
    if part in THREAD_PARTS and lane.kind in {"thread", "api", "os"}:
        return f"CPU: {THREAD_PARTS[part]}"
    return f"GPU: {PARTS[part]}"


def event_texts(rows: pl.DataFrame, bubbles: pl.DataFrame) -> list[str]:
    """What hovering over each event says."""
    known = [bubble_text(row) for row in bubbles.iter_rows(named=True)]
    return [_event_text(row, known) for row in rows.iter_rows(named=True)]


def bubble_text(row: Mapping[str, Any]) -> str:
    """A bubble's length, its cause split, and the operations around it."""
    causes = sorted((-row[cause], cause) for cause in CAUSES if row[cause])
    split = ", ".join(f"{cause} {human_share(-value / row['dur_ns'])}" for value, cause in causes)
    return (
        f"bubble of {human_ns(row['dur_ns'])} on {event_name(row['gpu'])}<br>{split}"
        f"<br>after {event_name(row['before'] or 'the start of the window')}"
        f"<br>before {event_name(row['after'] or 'the end of the window')}"
    )


@lru_cache(maxsize=4096)
def event_name(name: str) -> str:
    """A name for a hover label: printable, without parameters, cut, not read as markup."""
    short = printable(shortened(name))
    return plain(short if len(short) <= _TEXT_CHARACTERS else f"{short[: _TEXT_CHARACTERS - 1]}…")


def _event_text(row: Mapping[str, Any], bubbles: Sequence[str]) -> str:
    if row["count"] > 1:
        return f"{row['count']:,} events ({row['part']}), together {human_ns(row['dur_ns'])}"
    if row["bubble"] is not None:
        return f"idle, {row['part']} {human_ns(row['dur_ns'])}<br>{bubbles[row['bubble']]}"
    return f"{event_name(row['name'] or row['part'])}<br>{human_ns(row['dur_ns'])}"


def _column_texts(level: pl.DataFrame, lane: Lane) -> list[str]:
    columns = [level[f"{lane.key}/{part}"].to_list() for part in lane.parts]
    widths = (level["end_ns"] - level["start_ns"]).to_list()
    texts = [
        ", ".join(
            f"{part} {human_share(value / width)}" for part, value in zip(lane.parts, values, strict=True) if value
        )
        for width, *values in zip(widths, *columns, strict=True)
    ]
    return [text or "nothing" for text in texts]


def _axis(index: int) -> str:
    return "y" if index == 0 else f"y{index + 1}"


def _laid_out_lanes(
    drawn: Sequence[Series], lanes: Sequence[Lane], heights: Sequence[int], window: Window, *, legend: int, **more: Any
) -> Drawing:
    """Lanes from top to bottom, each under its label, over one time axis that zooms."""
    inner = sum(heights) + _LABEL_PX * len(lanes) or 1
    at = float(inner)
    annotations: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    for index, (lane, height) in enumerate(zip(lanes, heights, strict=True)):
        top = at - _LABEL_PX
        bottom = top - height
        axis = {
            "domain": [max(bottom / inner, 0.0), top / inner],
            "range": [0, 1],
            "fixedrange": True,
            "showticklabels": False,
            "showgrid": False,
            "zeroline": False,
            "anchor": "x",
        }
        axes[f"yaxis{index + 1 if index else ''}"] = axis
        annotations.append(
            {
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "y": top / inner,
                "yref": "paper",
                "yanchor": "bottom",
                "text": event_name(lane.label),
                "showarrow": False,
                "font": {"size": 11},
            }
        )
        at = bottom
    lines = -(-legend // 2)
    margin = AXIS_PX + 22 * lines
    unit = time_unit(window)
    time_axis = {
        "title": {"text": f"{unit.name} from the window's start", "standoff": 4},
        "anchor": _axis(max(len(lanes) - 1, 0)),
        "automargin": False,
        "zeroline": False,
        "hoverformat": ".3f",
        "range": [0.0, window.dur_ns / unit.ns],
    }
    laid = laid_out(
        drawn,
        rows=2,
        legend=legend,
        xaxis=time_axis,
        annotations=annotations,
        height=inner + margin,
        margin={"l": 4, "r": 8, "t": 4, "b": margin},
        dragmode="zoom",
        bargap=0,
        **(axes | more),
    )
    return over(laid, legend={"itemclick": False, "itemdoubleclick": False, "font": {"size": 11}})
