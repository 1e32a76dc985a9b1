"""A sweep as one HTML file: throughput along every axis, prefill and decode apart, quantisations, traced cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nsyskit.analysis.step_costs import PhaseCost
from nsyskit.report.figures.base import Drawing, laid_out, plain, series
from nsyskit.report.html import Plotly, page
from nsyskit.report.page.bars import phase_bar
from nsyskit.report.page.elements import NOTHING, Html, tag, text
from nsyskit.report.page.sections import Sections
from nsyskit.report.page.tables import Column, size, table, words
from nsyskit.report.sweep_text import rate_text
from nsyskit.sweep.ledgers import CellLedger, short_place
from nsyskit.sweep.table import Quantisation, SweepTable, quantisations
from nsyskit.units import printable

_COLORS = ("#3a7fc4", "#2a8a5a", "#c48a1a", "#c4574a", "#9a6ac4", "#1f8a8a", "#a8702f", "#b8568f")
_ORDERED: Final = frozenset({"n_threads", "n_batch", "n_ubatch", "n_gpu_layers", "n_cpu_moe", "n_depth"})
"""Settings that are quantities: drawn as lines; the others as bars."""


def render_html(name: str, found: SweepTable, ledgers: Sequence[CellLedger] = (), *, plotly: Plotly = "inline") -> str:
    """A self-contained page; equal input gives equal bytes. ``ledgers`` are those of the traced cells."""
    made = Sections()
    plots = [_plots(found, label, made) for label in found.labels if label != "ppl"]
    head = tag("header", tag("p", tag("strong", text("nsyskit sweep")), tag("span", text(name)), class_="facts"))
    cells = _table(found, {one.at: one for one in ledgers})
    first = tag("section", tag("h1", text(f"{len(found.rows)} cells")), cells, id="overview")
    sides = _quantisations(quantisations(found), found.labels, made)
    return page(
        name, [head, tag("main", first, sides, *plots, _ledgers(ledgers), id="main")], made.figures, plotly=plotly
    )


def _plots(found: SweepTable, label: str, made: Sections) -> Html:
    drawn = [
        made.drawn(f"{label}-{at}", axis_figure(found, axis, label), f"{label} along {axis}")
        for at, axis in enumerate(found.axes)
        if any(len(points) > 1 for points in found.series(axis, label).values())
    ]
    unit = "milliseconds to the first token" if label.startswith("ttft") else "tokens per second"
    return tag("section", tag("h2", text(f"{label}: {unit}")), *drawn, id=f"test-{label}") if drawn else NOTHING


def axis_figure(found: SweepTable, axis: str, label: str) -> Drawing:
    """One test along one axis, one line (or row of bars) for each setting of the others."""
    drawn = []
    first_token = label.startswith("ttft")
    unit = "ms" if first_token else "tokens/s"
    for at, (name, measured) in enumerate(found.series(axis, label).items()):
        points = sorted(measured, key=lambda point: _quantity(point[0])) if axis in _ORDERED else measured
        shared: dict[str, Any] = {
            "x": [plain(printable(value or "unset")) for value, _, _ in points],
            "y": [rate for _, rate, _ in points],
            "error_y": {"type": "data", "array": [spread or 0.0 for _, _, spread in points]},
            "name": plain(printable(name)) or label,
            "hovertemplate": f"%{{x}}: %{{y:.2f}} {unit}<extra>%{{fullData.name}}</extra>",
        }
        color = _COLORS[at % len(_COLORS)]
        if axis in _ORDERED:
            drawn.append(series("scatter", mode="lines+markers", line={"color": color}, **shared))
        else:
            drawn.append(series("bar", marker={"color": color}, **shared))
    legend = len(drawn) if len(drawn) > 1 else 0
    return laid_out(drawn, rows=11, x=axis, y=unit, legend=legend, x_type="category", yaxis={"rangemode": "tozero"})


def _quantity(value: str) -> float:
    """A setting's value as a number; ``-1`` means all or automatic and stands first, as does what is none."""
    try:
        return float(value)
    except ValueError:
        return -1.0


def _table(found: SweepTable, traced: Mapping[int, CellLedger]) -> Html:
    def setting(axis: str) -> Column:
        return words(axis, lambda row: str(row["settings"].get(axis, "–") or "unset"))

    columns = [
        *(setting(axis) for axis in found.axes or ("model",)),
        *(_measurement(label, lambda row: row["results"]) for label in found.labels),
    ]
    if any(one.get("vram_bytes") is not None for row in found.rows for one in row["results"].values()):
        columns.append(size("VRAM", "vram_bytes"))
    columns.append(words("state", lambda row: row["error"] or row["state"]))
    if traced:
        columns.append(words("grew", lambda row: row["grew"], link=lambda row: row["link"]))
    rows = [dict(row) | _traced(traced.get(at)) | _held(row) for at, row in enumerate(found.rows)]
    return table("Every cell: tokens per second, milliseconds to the first token", rows, columns)


def _measurement(label: str, results: Any) -> Column:
    """A test's column; sorted by its number."""
    if label == "ppl":
        return words("perplexity", lambda row: rate_text(_one(results(row), label), "–"))
    key = "ttft_ms" if label.startswith("ttft") else "tokens_per_s"

    def value(row: Any) -> Any:
        return results(row).get(label, {}).get(key)

    return Column(label, value, lambda shown: f"{shown:,.2f}{' ms' if key == 'ttft_ms' else ''}")


def _one(results: Mapping[str, Any], label: str) -> dict[str, Any] | None:
    return dict(results[label]) if label in results else None


def _held(row: Mapping[str, Any]) -> dict[str, Any]:
    held = [one["vram_bytes"] for one in row["results"].values() if one.get("vram_bytes") is not None]
    return {"vram_bytes": max(held, default=None)}


def _traced(one: CellLedger | None) -> dict[str, Any]:
    if one is None:
        return {"grew": "–", "link": None}
    grown = "; ".join(f"{phase}: {told}" for phase, told in one.grew.items())
    nothing = "the first traced" if one.against is None and one.phases else "nothing" if one.phases else "no ledger"
    return {"grew": grown or nothing, "link": f"#cell-{one.at}"}


def _ledgers(ledgers: Sequence[CellLedger]) -> Html:
    """One ledger a phase for every traced cell, and what the comparison with the first says."""
    if not ledgers:
        return NOTHING
    return tag("section", tag("h2", text("Traced cells")), *(_ledger(one) for one in ledgers), id="traced")


def _ledger(one: CellLedger) -> Html:
    against = [tag("p", text(f"against {one.against}"), class_="note")] if one.against is not None else []
    return tag(
        "section",
        tag("h3", text(one.settings)),
        tag("p", text(one.sentence), class_="lead"),
        *against,
        *(phase_bar(_cost(phase, parts)) for phase, parts in one.phases.items()),
        tag("p", text(f"trace: {short_place(one.trace)}"), class_="note"),
        id=f"cell-{one.at}",
    )


def _cost(phase: str, parts: Mapping[str, float]) -> PhaseCost:
    return PhaseCost(
        phase=phase, count=0, tokens=0, outputs=0, periods=0, ms_per_token={}, tokens_per_s=None, ledger=dict(parts),
        categories={}, counts={},
    )  # fmt: skip


def _quantisations(found: Sequence[Quantisation], labels: Sequence[str], made: Sections) -> Html:
    """Quantisations side by side: speed, memory and perplexity; each at the settings with which it is fastest."""
    if len(found) < len(("one", "other")):
        return NOTHING
    rows = [
        {
            "name": one.name, "size": one.size_bytes, "bits": one.bits_per_weight, "vram": one.vram_bytes,
            "kv": one.kv_bytes, "results": one.results, "with": one.settings or "–",
        }
        for one in found
    ]  # fmt: skip
    columns = [
        words("quantisation", lambda row: row["name"]), size("size", "size"),
        Column("bits/weight", lambda row: row["bits"], lambda value: f"{value:.2f}"), size("VRAM", "vram"),
        size("KV", "kv"), *(_measurement(label, lambda row: row["results"]) for label in labels),
        words("with", lambda row: row["with"]),
    ]  # fmt: skip
    names = ", ".join(one.name for one in found)
    drawn = [made.drawn("quants-speed", speed_figure(found, labels), f"tokens per second of {names}")]
    trade = trade_figure(found, labels)
    if trade is not None:
        drawn.append(made.drawn("quants-ppl", trade, f"perplexity against tokens per second of {names}"))
    shown = table("Each at the settings with which it decodes fastest", rows, columns)
    return tag("section", tag("h2", text("Quantisations side by side")), shown, *drawn, id="quantisations")


def speed_figure(found: Sequence[Quantisation], labels: Sequence[str]) -> Drawing:
    """Tokens per second of every test, a bar a quantisation, as a share of the fastest: prefill dwarfs decode else."""
    drawn = []
    for at, label in enumerate(labels):
        rates = [float(one.results.get(label, {}).get("tokens_per_s") or 0.0) for one in found]
        if not max(rates):
            continue
        bars = series(
            "bar",
            x=[plain(printable(one.name)) for one in found],
            y=[rate / max(rates) for rate in rates],
            customdata=rates,
            name=label,
            marker={"color": _COLORS[at % len(_COLORS)]},
            hovertemplate="%{x}: %{customdata:.2f} tokens/s<extra>%{fullData.name}</extra>",
        )
        drawn.append(bars)
    y = {"rangemode": "tozero"}
    return laid_out(drawn, rows=9, y="share of the fastest", legend=len(drawn), x_type="category", yaxis=y)


def trade_figure(found: Sequence[Quantisation], labels: Sequence[str]) -> Drawing | None:
    """What a lower perplexity costs: one point a quantisation, tokens per second of the decode test along x."""
    decode = next((label for label in labels if label.startswith("tg")), None)
    points = [
        (one.name, float(one.results[decode]["tokens_per_s"]), float(one.results["ppl"]["ppl"]))
        for one in found
        if decode is not None and decode in one.results and one.results.get("ppl", {}).get("ppl") is not None
    ]
    if not points:
        return None
    marks = series(
        "scatter",
        x=[rate for _, rate, _ in points],
        y=[ppl for _, _, ppl in points],
        text=[plain(printable(name)) for name, _, _ in points],
        mode="markers+text",
        textposition="top center",
        marker={"color": _COLORS[0], "size": 9},
        hovertemplate="%{text}: %{x:.2f} tokens/s, perplexity %{y:.4f}<extra></extra>",
    )
    return laid_out([marks], rows=11, x=f"{decode}: tokens/s", y="perplexity")
