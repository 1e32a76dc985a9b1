"""A metric over the runs of the history, plotted."""

from __future__ import annotations

from collections.abc import Sequence

from nsyskit.history.history import TrendPoint
from nsyskit.report.figures.base import Drawing, laid_out, plain, series
from nsyskit.report.history_text import value_text
from nsyskit.report.html import Plotly, page
from nsyskit.report.page.elements import tag, text
from nsyskit.report.page.sections import Sections
from nsyskit.report.page.tables import Column, table, words
from nsyskit.units import printable


def render_trend(metric: str, points: Sequence[TrendPoint], *, plotly: Plotly = "inline") -> str:
    """A page with one figure and its table; equal input gives equal bytes."""
    made = Sections()
    rows = [
        {"run": p.run, "name": p.name, "added": p.added, "build": p.build or "–", "value": p.value, "unit": p.unit}
        for p in points
    ]
    unit = points[0].unit
    columns = [
        Column("run", lambda row: row["run"], str), words("added", lambda row: row["added"]),
        words("build", lambda row: row["build"]), words("trace", lambda row: row["name"]),
        Column(metric, lambda row: row["value"], lambda value: value_text(value, unit)),
    ]  # fmt: skip
    plot = made.drawn("trend", trend_figure(points), f"{metric} over {len(points)} runs")
    section = tag("section", tag("h1", text(metric)), plot, table(metric, rows, columns), id="overview")
    head = tag("header", tag("p", tag("strong", text("nsyskit history")), tag("span", text(metric)), class_="facts"))
    return page(metric, [head, tag("main", section, id="main")], made.figures, plotly=plotly)


def trend_figure(points: Sequence[TrendPoint]) -> Drawing:
    """The metric by run, in the order of adding; builds are told on the axis."""
    labels = [f"{point.run} {plain(printable(point.build or ''))}".strip() for point in points]
    line = series(
        "scatter",
        x=labels,
        y=[point.value for point in points],
        mode="lines+markers",
        marker={"color": "#3a7fc4", "size": 8},
        customdata=[
            [value_text(point.value, point.unit), plain(printable(point.name)), point.added] for point in points
        ],
        hovertemplate="%{x}: %{customdata[0]}<br>%{customdata[1]}, %{customdata[2]}<extra></extra>",
    )
    return laid_out(
        [line], rows=10, x="run and build", y=points[0].unit, x_type="category", yaxis={"rangemode": "tozero"}
    )
