"""A sweep as one HTML file: throughput along every axis, prefill and decode apart, and the table."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from nsyskit.report.figures.base import laid_out, plain
from nsyskit.report.html import Plotly, page
from nsyskit.report.page.elements import Html, tag, text
from nsyskit.report.page.sections import Sections
from nsyskit.report.page.tables import Column, table, words
from nsyskit.report.sweep_text import rate_text
from nsyskit.sweep.table import SweepTable
from nsyskit.units import printable

_COLORS = ("#3a7fc4", "#2a8a5a", "#c48a1a", "#c4574a", "#9a6ac4", "#1f8a8a", "#a8702f", "#b8568f")


def render_html(name: str, found: SweepTable, *, plotly: Plotly = "inline") -> str:
    """A self-contained page; equal input gives equal bytes."""
    made = Sections()
    plots = [_plots(found, label, made) for label in found.labels if label != "ppl"]
    head = tag("header", tag("p", tag("strong", text("nsyskit sweep")), tag("span", text(name)), class_="facts"))
    first = tag("section", tag("h1", text(f"{len(found.rows)} cells")), _table(found), id="overview")
    return page(name, [head, tag("main", first, *plots, id="main")], made.figures, plotly=plotly)


def _plots(found: SweepTable, label: str, made: Sections) -> Html:
    drawn = [
        made.drawn(f"{label}-{at}", axis_figure(found, axis, label), f"{label} along {axis}")
        for at, axis in enumerate(found.axes)
        if any(len(points) > 1 for points in found.series(axis, label).values())
    ]
    return tag("section", tag("h2", text(f"{label}: tokens per second")), *drawn, id=f"test-{label}")


def axis_figure(found: SweepTable, axis: str, label: str) -> go.Figure:
    """Tokens per second of one test along one axis, one line for each setting of the others."""
    drawn = go.Figure()
    for at, (name, points) in enumerate(found.series(axis, label).items()):
        drawn.add_scatter(
            x=[plain(printable(value or "unset")) for value, _, _ in points],
            y=[rate for _, rate, _ in points],
            error_y={"type": "data", "array": [spread or 0.0 for _, _, spread in points]},
            mode="lines+markers",
            name=plain(printable(name)) or label,
            line={"color": _COLORS[at % len(_COLORS)]},
            hovertemplate="%{x}: %{y:.2f} tokens/s<extra>%{fullData.name}</extra>",
        )
    laid_out(drawn, rows=11, x=axis, y="tokens/s", legend=len(drawn.data) if len(drawn.data) > 1 else 0)
    return drawn.update_layout(xaxis_type="category", yaxis_rangemode="tozero")


def _table(found: SweepTable) -> Html:
    def setting(axis: str) -> Column:
        return words(axis, lambda row: str(row["settings"].get(axis, "–") or "unset"))

    def rate(label: str) -> Column:
        def value(row: Any) -> Any:
            return row["results"].get(label, {}).get("tokens_per_s")

        return Column(label, value, lambda shown: f"{shown:,.2f}")

    columns = [
        *(setting(axis) for axis in found.axes or ("model",)),
        *(rate(label) for label in found.labels if label != "ppl"),
    ]
    if "ppl" in found.labels:
        columns.append(words("perplexity", lambda row: rate_text(row["results"].get("ppl"), "–")))
    columns.append(words("state", lambda row: row["error"] or row["state"]))
    if any(row["trace"] for row in found.rows):
        columns.append(words("trace", lambda row: row["trace"] or "–"))
    return table("Tokens per second", list(found.rows), columns)
