"""A comparison as one HTML file: verdict, setup, two ledgers side by side, a waterfall of the difference, all lines."""

from __future__ import annotations

from collections.abc import Sequence

from nsyskit import __version__
from nsyskit.analysis.step_costs import PhaseCost
from nsyskit.compare.gate import GateResult
from nsyskit.compare.result import Comparison, PhaseComparison
from nsyskit.report.compare_rows import PartRow, gate_text, line_rows, micros, part_rows, sides
from nsyskit.report.figures.base import Drawing, laid_out, series
from nsyskit.report.html import Plotly, page
from nsyskit.report.page.bars import phase_bar
from nsyskit.report.page.elements import Html, join, tag, text
from nsyskit.report.page.sections import Sections
from nsyskit.report.page.tables import Column, Row, table, words
from nsyskit.units import human_ns


def render_html(comparison: Comparison, gates: Sequence[GateResult] = (), *, plotly: Plotly = "inline") -> str:
    """A self-contained page; equal input gives equal bytes."""
    made = Sections()
    title = f"{', '.join(comparison.base)} → {', '.join(comparison.candidate)}"
    facts = tag("p", tag("strong", text("nsyskit compare")), tag("span", text(title)), class_="facts")
    theme = tag("button", text("Theme"), type="button", id="theme", aria_label="Switch between light and dark")
    links = (tag("a", text(found.phase), href=f"#{found.phase}") for found in comparison.phases)
    body = [
        tag("header", facts, tag("nav", *links, theme, aria_label="Sections")),
        tag(
            "main",
            _overview(comparison, gates),
            *(_phase(found, made) for found in comparison.phases),
            _setup(comparison),
            id="main",
        ),
        tag("footer", text(f"nsyskit {__version__}")),
    ]
    return page(title, body, made.figures, plotly=plotly)


def _overview(comparison: Comparison, gates: Sequence[GateResult]) -> Html:
    listed = [f"{reason.level}: {reason.message}" for reason in comparison.reasons]
    listed += [f"gate {gate_text(result)}" for result in gates]
    return tag(
        "section",
        tag("h1", text(comparison.verdict)),
        tag("p", text(comparison.sentence), class_="lead"),
        tag("p", text(sides(comparison)), class_="note"),
        tag("ul", *(tag("li", text(item)) for item in listed)),
        id="overview",
    )


def _setup(comparison: Comparison) -> Html:
    rows = [
        {"fact": item.name, "base": item.base or "–", "candidate": item.candidate or "–"} for item in comparison.setup
    ]
    rows += [{"fact": name, "base": value, "candidate": "the same"} for name, value in comparison.shared_setup]
    columns = [
        words("fact", lambda row: row["fact"]), words("baseline", lambda row: row["base"]),
        words("candidate", lambda row: row["candidate"]),
    ]  # fmt: skip
    return tag("section", tag("h2", text("Setup")), table("Setup: differences first", rows, columns), id="setup")


def _phase(found: PhaseComparison, made: Sections) -> Html:
    rows, total = part_rows(found)
    described = ", ".join(f"{row.words} {micros(row.ns)} µs" for row in rows)
    drawn = waterfall(found)
    bars = [
        phase_bar(_cost(found, word, candidate=candidate))
        for word, candidate in (("baseline", False), ("candidate", True))
    ]
    return tag(
        "section",
        tag("h2", text(found.phase)),
        tag("p", text(found.sentence), class_="lead"),
        *bars,
        tag("h3", text(f"What the difference of {micros(total)} µs per token is made of")),
        made.drawn(f"{found.phase}-waterfall", drawn, f"{found.phase}: {described}"),
        _part_table(rows, total),
        _line_table(found),
        _kernels(found),
        id=found.phase,
    )


def _cost(found: PhaseComparison, word: str, *, candidate: bool) -> PhaseCost:
    ledger = {name: float(sides_of[int(candidate)]) for name, *sides_of in found.ledgers}
    return PhaseCost(
        phase=word, count=0, tokens=0, outputs=0, periods=0, ms_per_token={}, tokens_per_s=None, ledger=ledger,
        categories={}, counts={},
    )  # fmt: skip


def waterfall(found: PhaseComparison) -> Drawing:
    """From the baseline's time per token to the candidate's, part by part, in µs."""
    rows, _ = part_rows(found)
    names = ["baseline", *(row.words for row in rows), "candidate"]
    steps = [float(found.raw_base) / 1e3, *(row.ns / 1e3 for row in rows), 0.0]
    kinds = ["absolute", *("relative" for _ in rows), "total"]
    shown = [
        human_ns(float(found.raw_base)),
        *(f"{micros(r.ns)} µs" for r in rows),
        human_ns(float(found.raw_candidate)),
    ]
    bars = series(
        "waterfall",
        x=steps,
        y=names,
        measure=kinds,
        orientation="h",
        text=shown,
        textposition="auto",
        hovertemplate="%{y}: %{text}<extra></extra>",
        increasing={"marker": {"color": "#c4574a"}},
        decreasing={"marker": {"color": "#2a8a5a"}},
        totals={"marker": {"color": "#6a7f9f"}},
        connector={"line": {"width": 1, "color": "#8a8a8a"}},
    )
    low = min(float(found.raw_base), float(found.raw_candidate)) / 1e3
    reach = sum(abs(row.ns) for row in rows) / 1e3
    shown_x = [max(0.0, low - 1.5 * reach), low + 2.5 * reach or 1.0]
    order = {"autorange": "reversed"}
    return laid_out([bars], rows=len(names), x="µs per token", xaxis={"range": shown_x}, yaxis=order)


def _part_table(rows: Sequence[PartRow], total: int) -> Html:
    listed = [{"part": row.words, "ns": row.ns} for row in rows]
    columns = [words("part", lambda row: row["part"]), Column("µs per token", lambda row: row["ns"], micros)]
    return table(f"Parts of the difference; their sum is {micros(total)} µs per token", listed, columns)


def _line_table(found: PhaseComparison) -> Html:
    by_name = {line.name: line for line in (found.total, *found.lines)}
    rows = [
        {
            "name": row.name, "base": by_name[row.name].base, "candidate": by_name[row.name].candidate,
            "share": by_name[row.name].share, "row": row,
        }
        for row in line_rows(found, every=True)
    ]  # fmt: skip

    def shown(head: str, key: str) -> Column:
        return Column(head, lambda row: getattr(row["row"], key), str, number=False)

    columns = [
        words("per token", lambda row: row["name"]), shown("baseline", "base"), shown("candidate", "candidate"),
        Column("diff", lambda row: row["share"], lambda value: f"{value:+.1%}"), shown("95 % interval", "interval"),
        shown("verdict", "verdict"),
    ]  # fmt: skip
    return table(f"{found.phase}: every number per token, like for like", rows, columns)


def _kernels(found: PhaseComparison) -> Html:
    rows: list[Row] = [
        {"name": name, "word": word, "ns": ns}
        for word, kernels in (("new", found.new_kernels), ("vanished", found.vanished_kernels))
        for name, ns in kernels
    ]
    if not rows:
        return join([])
    columns = [
        words("kernel", lambda row: row["name"]), words("", lambda row: row["word"]),
        Column("per token", lambda row: row["ns"], human_ns),
    ]  # fmt: skip
    return table("Kernels that only one side runs", rows, columns)
