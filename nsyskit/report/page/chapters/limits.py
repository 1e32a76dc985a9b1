"""What the hardware allows, what depth costs, which tensors take the time, and what to try."""

from __future__ import annotations

from nsyskit.analysis.advice import AdviceResult, Item
from nsyskit.analysis.depth import DepthResult
from nsyskit.analysis.limits import LimitsResult
from nsyskit.analysis.roles import RolesResult
from nsyskit.report.figures import drawing
from nsyskit.report.page.elements import NOTHING, Html, join, note, tag, text
from nsyskit.report.page.sections import Sections, block
from nsyskit.report.page.tables import Column, count, decimal, ns, share, size, table, words
from nsyskit.report.words import growth_sentences, limit_sentences


@block.register
def _advice(result: AdviceResult, made: Sections, _name: str) -> Html:
    if result.withheld is not None:
        return made.nothing(f"{result.withheld[:1].upper()}{result.withheld[1:]}.")
    return tag("ol", *(_experiment(item) for item in result.items), class_="advice") if result.items else NOTHING


@block.register
def _limits(result: LimitsResult, made: Sections, name: str) -> Html:
    told = [tag("p", text(line)) for line in limit_sentences(result)]
    if result.by_quant.is_empty():
        return join(told)
    columns = [
        words("format", lambda row: str(row["quant"])),
        decimal("GB/s", "gb_per_s", ".1f"),
        share("of peak", "share_of_peak"),
        ns("a token", "ns_per_token"),
        size("bytes a token", "bytes_per_token"),
    ]
    rows = table("Matrices, by the format of their weights", result.by_quant, columns)
    return join([*told, made.drawn(name, drawing(result), "Reading speed by the format of the weights"), rows])


@block.register
def _depth(result: DepthResult, made: Sections, name: str) -> Html:
    if result.bins.is_empty():
        return NOTHING
    told = [tag("p", text(line)) for line in (f"Depth: {result.told}.", *growth_sentences(result))]
    columns = [
        words("depth", lambda row: f"{row['lo']:,} to {row['hi']:,}"),
        count("batch", "batch"),
        count("steps", "steps"),
        decimal("ms p50", "ms_p50", ".3f"),
        ns("kernels", "kernel_ns"),
        ns("attention", "attention_ns"),
        share("of the kernels", "attention_share"),
    ]
    rows = table("Decode steps against depth", result.bins, columns)
    return join([*told, made.drawn(name, drawing(result), "Milliseconds per step against depth"), rows])


@block.register
def _roles(result: RolesResult, made: Sections, name: str) -> Html:
    if result.why_none is not None:
        return note(f"Tensors are not told apart: {result.why_none}.")
    rate = [
        ns("a step", "ns"),
        size("bytes", "bytes"),
        decimal("GB/s", "gb_per_s", ".1f"),
        share("of peak", "share_of_peak"),
    ]
    told = f"Mean of {result.steps:,} decode steps of {result.batch}; {result.others:,} more are not shown."
    kinds = [words("tensor", lambda row: row["role"]), words("format", lambda row: row["types"] or "–")]
    by_role = table("Matrices by tensor", result.roles, [*kinds, share("of matrices", "share"), *rate])
    layer = Column("layer", lambda row: row["layer"], str)
    one = [layer, words("tensor", lambda row: row["role"]), words("format", lambda row: row["type"] or "–")]
    by_cell = table("Matrices by layer and tensor", result.cells, [*one, *rate])
    plot = made.drawn(name, drawing(result), "Time of a step's matrix kernels by layer and tensor")
    return join([tag("p", text(told)), by_role, plot, by_cell])


def _experiment(item: Item) -> Html:
    most = "" if item.max_speedup is None else f" at most {item.max_speedup:.2f}× in {item.phase}"
    evidence = ", ".join(one.path for one in item.evidence)
    return tag(
        "li",
        tag("p", tag("code", text(item.change)), text(most)),
        tag("p", text(f"because {item.why}")),
        note(f"from {evidence}; refuted if {item.refuted_by}"),
    )
