"""A fleet as one HTML file: what differs first, then distributions by host, GPU, build, model and flags, then all."""

from __future__ import annotations

from typing import Any, Final, Self

import polars as pl

from nsyskit import __version__
from nsyskit.analysis.step_costs import LEDGER_PARTS
from nsyskit.fleet.result import FleetResult, Outlier
from nsyskit.report.figures.base import Drawing, laid_out, series, unique_names
from nsyskit.report.fleet_text import bottlenecks
from nsyskit.report.fleet_words import HEADLINES, headline, metric_text, outlier_sentence, part_share, part_text
from nsyskit.report.html import Plotly, page
from nsyskit.report.page.elements import NOTHING, Html, join, tag, text
from nsyskit.report.page.names import NAME_CHARACTERS
from nsyskit.report.page.sections import Sections
from nsyskit.report.page.tables import MAX_ROWS, Column, Row, count, ns, share, table, words
from nsyskit.report.palette import PART_COLORS
from nsyskit.report.words import HEADLINES as BOTTLENECKS
from nsyskit.report.words import PARTS
from nsyskit.units import human_share

_BARS: Final = 40
_GROUPS_DOWN: Final = {"autorange": "reversed", "type": "category"}
_COLOR: Final = "#3a7fc4"
_DRAWN: Final = ("decode.ms_per_step", "prefill.ms_per_token", "gpu.busy_share")
_TITLES: Final = {"gpu": "GPU", "host": "Hosts", "rank": "Ranks", "build": "Builds", "model": "Models",
                  "program": "Programs"}  # fmt: skip


def render_html(result: FleetResult, *, plotly: Plotly = "inline") -> str:
    """A self-contained page; equal input gives equal bytes."""
    made = Sections()
    chapters = [
        ("differs", "What differs", _outliers(result)),
        ("ledger", "Where the time goes", _ledgers(result, made)),
    ]
    chapters += [(f"by-{axis}", _TITLES.get(axis, axis), _axis(result, axis, made)) for axis in result.axes]
    chapters += [
        ("kernels", "Kernels", _kernels(result)), ("traces", "Traces", _traces(result)),
        ("failed", "Failed", _failed(result)), ("duplicates", "Duplicates", _duplicates(result)),
    ]  # fmt: skip
    chapters = [chapter for chapter in chapters if chapter[2]]
    links = (tag("a", text(title), href=f"#{anchor}") for anchor, title, _ in chapters)
    theme = tag("button", text("Light / dark"), type="button", id="theme")
    facts = tag("p", tag("strong", text("nsyskit fleet")), tag("span", text(headline(result))), class_="facts")
    body = [
        tag("header", facts, tag("nav", *links, theme, aria_label="Sections")),
        tag("main", _overview(result, made), *(_section(*chapter) for chapter in chapters), id="main"),
        tag("footer", text(f"nsyskit {__version__}")),
    ]
    return page("fleet", body, made.figures, plotly=plotly)


def _section(anchor: str, title: str, body: Html) -> Html:
    heading = tag("h2", text(title), id=f"{anchor}-title")
    return tag("section", heading, body, id=anchor, aria_labelledby=f"{anchor}-title")


def _overview(result: FleetResult, made: Sections) -> Html:
    told = [tag("li", text(outlier_sentence(one))) for one in result.outliers[:3]]
    lead = tag("ul", *told) if told else tag("p", text(_nothing_differs(result)), class_="lead")
    total = max(result.traces.height, 1)
    rows: list[Row] = [
        {"name": name, "meaning": BOTTLENECKS.get(name, "–"), "count": number, "share": number / total}
        for name, number in bottlenecks(result)
    ]
    columns = [
        words("what bounds them", lambda row: row["name"]), words("meaning", lambda row: row["meaning"]),
        count("traces", "count"), share("share", "share"),
    ]  # fmt: skip
    everyone = [
        made.drawn(f"all-{metric}", drawn, f"{HEADLINES[metric]} over all traces")
        for metric in _DRAWN
        if (drawn := _histogram(result, metric)) is not None
    ]
    return tag(
        "section", tag("h1", text(headline(result))), lead, table("What bounds the runs", rows, columns),
        _distributions(result), *everyone, id="overview",
    )  # fmt: skip


def _nothing_differs(result: FleetResult) -> str:
    least = "No host, rank or trace differs from its peers by more than their own spread."
    return least if result.traces.height > 1 else "One trace has no peers to differ from."


def _histogram(result: FleetResult, metric: str) -> Drawing | None:
    trusted = result.traces.filter("trusted").select("trace")
    found = result.metrics.filter(pl.col("metric") == metric).join(trusted, on="trace", how="semi")
    if found.height < 2 or found["value"].n_unique() < 2:
        return None
    counted = found["value"].hist(bin_count=30)
    width = float(counted["breakpoint"][1] - counted["breakpoint"][0])
    middles = [float(value) - width / 2 for value in counted["breakpoint"]]
    bars = series(
        "bar", x=middles, y=counted["count"].to_list(), width=width, marker={"color": _COLOR},
        hovertemplate="%{y} traces<extra></extra>",
    )  # fmt: skip
    return laid_out([bars], rows=6, x=HEADLINES[metric], y="traces", bargap=0.05, xaxis=_ticks(metric))


def _ticks(metric: str) -> dict[str, str]:
    return {"tickformat": ".0%"} if metric.endswith("_share") else {}


def _distributions(result: FleetResult) -> Html:
    rows = result.groups.filter((pl.col("by") == "all") & pl.col("metric").is_in(list(HEADLINES))).to_dicts()
    return table("Over all traces", rows, [words("", lambda row: _spoken(row["metric"])), *_quantiles()])


def _spoken(metric: str) -> str:
    """A metric's name where its values carry their unit."""
    return HEADLINES[metric].replace(", ms per", " per")


def _quantiles() -> list[Column]:
    def one(head: str, key: str) -> Column:
        return Column(head, lambda row: _Shown(row[key], row["unit"]), str)

    return [count("traces", "count"), one("min", "min"), one("p05", "p05"), one("median", "p50"), one("p95", "p95"),
            one("max", "max")]  # fmt: skip


class _Shown(float):
    """A number that sorts as such and knows how it is written."""

    unit: str

    def __new__(cls, value: float, unit: str) -> Self:
        made = super().__new__(cls, value)
        made.unit = unit
        return made

    def __str__(self) -> str:
        return metric_text(float(self), self.unit)


def _outliers(result: FleetResult) -> Html:
    if not result.outliers:
        return NOTHING
    rows: list[Row] = [{"one": one} for one in result.outliers]

    def value(head: str, key: str) -> Column:
        return Column(head, lambda row: _Shown(getattr(row["one"], key), row["one"].unit), str)

    columns = [
        words("", lambda row: row["one"].kind), words("which", lambda row: row["one"].who),
        words("number", lambda row: _spoken(row["one"].metric)), value("its own", "value"),
        value("its peers", "expected"), Column("difference", lambda row: row["one"].ratio, _signed),
        words("part of the ledger", lambda row: PARTS.get(row["one"].part or "", "–")),
        words("there", lambda row: _part(row["one"])),
        Column("of the difference", lambda row: part_share(row["one"]), human_share),
        Column("peers", lambda row: row["one"].peers, str),
    ]  # fmt: skip
    if any(one.cell for one in result.outliers):
        columns.append(words("among runs with", lambda row: row["one"].cell or "–"))
    lead = (
        "Peers ran the same program with the same model, build, flags and GPU. Listed is what lies further from their "
        "median than 5 % and than five times their own spread."
    )
    return join([tag("p", text(lead), class_="lead"), table("Differs from its peers", rows, columns)])


def _part(one: Outlier) -> str:
    if one.part_value is None or one.part_expected is None:
        return "–"
    return f"{part_text(one, one.part_value)}, not {part_text(one, one.part_expected)}"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else '−'}{human_share(abs(value))}"


def _ledgers(result: FleetResult, made: Sections) -> Html:
    shown = []
    for phase in ("decode", "prefill", "mixed"):
        own = result.ledgers.filter((pl.col("phase") == phase) & pl.col("by").is_in(["all", "host"]))
        if own.height:
            lead = f"{phase}: mean time per token, by what the GPU did"
            shown += [tag("h3", text(lead)), made.drawn(f"ledger-{phase}", _ledger_figure(own), lead)]
    return join(shown)


def _ledger_figure(own: pl.DataFrame) -> Drawing:
    groups = own["group"].unique(maintain_order=True).to_list()[:_BARS]
    names = unique_names(["all hosts" if name == "all" else name for name in groups])
    drawn = []
    for part in LEDGER_PARTS:
        by_group = dict(own.filter(pl.col("part") == part).select("group", "ns_per_token").iter_rows())
        values = [by_group.get(group, 0.0) / 1e3 for group in groups]
        if any(value >= 0.001 * max(sum(by_group.values()), 1.0) / 1e3 for value in values) and any(values):
            bars = series(
                "bar", x=values, y=names, orientation="h", name=PARTS[part], marker={"color": PART_COLORS[part]},
                hovertemplate="%{y}: %{x:,.1f} µs %{fullData.name}<extra></extra>",
            )  # fmt: skip
            drawn.append(bars)
    return laid_out(drawn, rows=len(names), x="µs per token", legend=len(drawn), barmode="stack", yaxis=_GROUPS_DOWN)


def _axis(result: FleetResult, axis: str, made: Sections) -> Html:
    own = result.groups.filter((pl.col("by") == axis) & pl.col("metric").is_in(list(HEADLINES)))
    if own.is_empty():
        return NOTHING
    metric = next((name for name in _DRAWN if name in own["metric"]), None)
    shown = []
    if metric is not None and (boxes := own.filter(pl.col("metric") == metric)).height > 1:
        cut = boxes.height > _BARS
        drawn = boxes.sort("p50", "group", descending=[True, False]).head(_BARS) if cut else boxes
        note = f"The {_BARS} largest medians of {boxes.height} groups." if cut else ""
        shown += [tag("p", text(note), class_="note")] if note else []
        shown.append(made.drawn(f"by-{axis}", _boxes(drawn, metric), f"{HEADLINES[metric]} by {axis}"))
    rows = _by_group(own)
    first = words(axis, lambda row: row["group"][:NAME_CHARACTERS], full=lambda row: row["group"])
    columns = [first, count("traces", "count")]
    columns += [_cell(name) for name in HEADLINES if name in own["metric"]]
    return join([*shown, table(f"By {axis}: medians over traces", rows, columns)])


def _by_group(own: pl.DataFrame) -> list[Row]:
    rows: dict[str, dict[str, Any]] = {}
    for row in own.iter_rows(named=True):
        group = rows.setdefault(row["group"], {"group": row["group"], "count": 0})
        group["count"] = max(group["count"], row["count"])
        group[row["metric"]] = row
    return list(rows.values())


def _cell(metric: str) -> Column:
    def value(row: Row) -> Any:
        return None if metric not in row else _Shown(row[metric]["p50"], row[metric]["unit"])

    return Column(HEADLINES[metric].replace(", ms per", " per").removesuffix(" per token"), value, str)


def _boxes(own: pl.DataFrame, metric: str) -> Drawing:
    names = unique_names(own["group"].to_list())
    quantiles = {"lowerfence": "p05", "q1": "p25", "median": "p50", "q3": "p75", "upperfence": "p95"}
    box = series(
        "box", y=names, **{mark: own[column].to_list() for mark, column in quantiles.items()},
        orientation="h", marker={"color": _COLOR}, line={"width": 1.5}, name="p05 to p95", hoverinfo="x",
    )  # fmt: skip
    ends = series(
        "scatter", x=[*own["min"], *own["max"]], y=[*names, *names], mode="markers", name="least and most",
        marker={"color": _COLOR, "size": 5, "symbol": "circle-open"}, hovertemplate="%{y}: %{x:.4g}<extra></extra>",
    )  # fmt: skip
    return laid_out(
        [box, ends], rows=len(names), x=HEADLINES[metric], legend=2, xaxis=_ticks(metric), yaxis=_GROUPS_DOWN
    )


def _kernels(result: FleetResult) -> Html:
    if result.kernels.is_empty():
        return NOTHING
    columns = [
        words("kernel", lambda row: row["kernel"][:NAME_CHARACTERS], full=lambda row: row["kernel"]),
        words("category", lambda row: row["category"]), share("share", "share"), ns("total", "total_ns"),
        count("calls", "count"), count("traces", "traces"),
    ]  # fmt: skip
    return table("All kernels of all traces", result.kernels, columns, more=": kernels.parquet has them")


def _traces(result: FleetResult) -> Html:
    there = set(result.metrics["metric"])
    first = [name for name in HEADLINES if name in there and not name.startswith("sync.")]
    cells: dict[int, dict[str, dict[str, Any]]] = {}
    for row in result.metrics.filter(pl.col("metric").is_in(first) & (pl.col("trace") < MAX_ROWS)).to_dicts():
        cells.setdefault(row["trace"], {})[row["metric"]] = {"p50": row["value"], "unit": row["unit"]}
    listed: list[Row] = [row | cells.get(row["trace"], {}) for row in result.traces.head(MAX_ROWS).to_dicts()]
    listed += [{}] * (result.traces.height - len(listed))  # never shown, but counted
    differ = [
        name for name in ("host", "rank", "gpu", "model", "build", "program") if result.traces[name].n_unique() > 1
    ]
    columns = [
        words("trace", lambda row: row["name"]), *(words(name, _text(name)) for name in differ),
        words("bound by", lambda row: row["bottleneck"], full=lambda row: row["sentence"]),
        *(_cell(name) for name in first), words("marks", _marks),
    ]  # fmt: skip
    return table("Every trace once", listed, columns, more=": traces.parquet has them")


def _text(name: str) -> Any:
    return lambda row: row[name] or "–"


def _marks(row: Row) -> str:
    held = "" if row["trusted"] else "numbers withheld "
    return (held + row["warnings"]).strip() or "–"


def _failed(result: FleetResult) -> Html:
    if not result.failed:
        return NOTHING
    rows: list[Row] = [{"name": one.name, "error": one.error} for one in result.failed]
    lead = "They are in none of the numbers above. The same command again tries them once more."
    columns = [words("trace", lambda row: row["name"]), words("why", lambda row: row["error"])]
    return join([tag("p", text(lead), class_="lead"), table("Traces that could not be read", rows, columns)])


def _duplicates(result: FleetResult) -> Html:
    if not result.duplicates:
        return NOTHING
    rows: list[Row] = [{"name": one.name, "same": one.same_as} for one in result.duplicates]
    columns = [words("trace", lambda row: row["name"]), words("holds the same as", lambda row: row["same"])]
    return table("Counted once only", rows, columns, more=": duplicates.parquet has them")
