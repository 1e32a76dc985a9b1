"""The server's tax as one HTML file: both sides part by part, and a waterfall from llama-bench to the server."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from nsyskit import __version__
from nsyskit.compare.compare import signed_ns
from nsyskit.compare.server_tax import ServerTax
from nsyskit.report.figures.base import Drawing, laid_out, series
from nsyskit.report.html import Plotly, page
from nsyskit.report.page.elements import NOTHING, Html, tag, text
from nsyskit.report.page.sections import Sections
from nsyskit.report.page.tables import Column, table, words
from nsyskit.report.server_tax import MEANING, tax_sentence
from nsyskit.units import human_ns


def render_html(found: ServerTax, *, plotly: Plotly = "inline") -> str:
    """A self-contained page; equal input gives equal bytes."""
    made = Sections()
    listed = [f"{reason.level}: {reason.message}" for reason in found.reasons]
    listed += [f"differs: {item.name}: {item.base} and {item.candidate}" for item in found.setup]
    described = ", ".join(f"{part.name} {signed_ns(float(part.tax))}" for part in found.parts)
    overview = tag(
        "section",
        tag("h1", text("The server's tax")),
        tag("p", text(f"{tax_sentence(found)}."), class_="lead"),
        tag("ul", *(tag("li", text(item)) for item in listed)) if listed else NOTHING,
        made.drawn("tax", waterfall(found), f"per generated token: {described}"),
        _parts(found),
        id="overview",
    )
    theme = tag("button", text("Theme"), type="button", id="theme", aria_label="Switch between light and dark")
    facts = tag("p", tag("strong", text("nsyskit compare")), tag("span", text("llama-bench → llama-server")),
                class_="facts")  # fmt: skip
    head = tag("header", facts, tag("nav", theme, aria_label="Page"))
    foot = tag("footer", text(f"nsyskit {__version__}"))
    return page("The server's tax", [head, tag("main", overview, id="main"), foot], made.figures, plotly=plotly)


def waterfall(found: ServerTax) -> Drawing:
    """From llama-bench's time per generated token to the server's, part by part, in µs."""
    names = ["llama-bench", *(part.name for part in found.parts), "llama-server"]
    values: Sequence[Fraction] = [found.bench_ns, *(part.tax for part in found.parts), Fraction()]
    shown = [human_ns(float(found.bench_ns)), *(signed_ns(float(part.tax)) for part in found.parts)]
    bars = series(
        "waterfall",
        x=[float(value) / 1e3 for value in values],
        y=names,
        measure=["absolute", *("relative" for _ in found.parts), "total"],
        orientation="h",
        text=[*shown, human_ns(float(found.server_ns))],
        textposition="auto",
        hovertemplate="%{y}: %{text}<extra></extra>",
        increasing={"marker": {"color": "#c4574a"}},
        decreasing={"marker": {"color": "#2a8a5a"}},
        totals={"marker": {"color": "#6a7f9f"}},
    )
    return laid_out([bars], rows=len(names), x="µs per generated token", yaxis={"autorange": "reversed"})


def _parts(found: ServerTax) -> Html:
    rows = [
        {
            "name": part.name, "server": float(part.server), "bench": float(part.bench), "tax": float(part.tax),
            "what": MEANING.get(part.name, ""),
        }
        for part in found.parts
    ]  # fmt: skip
    columns = [
        words("part", lambda row: row["name"]), Column("server", lambda row: row["server"], human_ns),
        Column("llama-bench", lambda row: row["bench"], human_ns), Column("tax", lambda row: row["tax"], signed_ns),
        words("what", lambda row: row["what"]),
    ]  # fmt: skip
    whole = f"{human_ns(float(found.server_ns))} − {human_ns(float(found.bench_ns))} = {signed_ns(float(found.tax_ns))}"
    return table(f"Per generated token; the parts sum to {whole}", rows, columns)
