"""What a reader sees first: the trace, how far to trust it, the bounds of the verdict, advice and limits."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from nsyskit.analysis.advice import AdviceResult
from nsyskit.analysis.analyze import Report
from nsyskit.analysis.limits import LimitsResult
from nsyskit.report.text.layout import Columns, Layout, block_of, indented, table
from nsyskit.report.words import limit_sentences
from nsyskit.units import human_bytes, human_ns, human_share, printable

_LEVEL_STYLE: Final = {"error": "bold red", "warning": "yellow", "note": "dim"}


def header(report: Report) -> Text:
    """The trace, the window and the GPUs."""
    meta, window = report.meta, report.window
    where = "" if window is None else f" · window {window.kind} {human_ns(window.dur_ns)}"
    gpus = ", ".join(sorted({gpu.name for gpu in meta.gpus}))
    return Text(printable(f"{meta.name}{where}{' · ' + gpus if gpus else ''}"), style="bold")


def trust(report: Report) -> Group:
    """The trust notes, a line each."""
    lines = [Text(f"{note.level}: {printable(note.message)}", style=_LEVEL_STYLE[note.level]) for note in report.trust]
    return Group(*lines, Text(""))


def bounds(report: Report) -> Text:
    """What removing a part of idle time could give, the best three."""
    helpful = [bound for bound in (report.verdict.bounds if report.verdict else ()) if bound.max_speedup]
    if not helpful:
        return Text("")
    best = ", ".join(f"{bound.part} {bound.max_speedup:.2f}×" for bound in helpful[:3])
    return Text(f"At most, without that part of idle time: {best}", style="dim")


@block_of.register
def _advice(result: AdviceResult, layout: Layout) -> RenderableType | None:
    if result.withheld is not None:
        return Text(printable(result.withheld), style="dim")
    lines: list[RenderableType] = [Text("Experiments worth running, the one that can give most first", style="bold")]
    for item in result.items[: layout.top]:
        most = "" if item.max_speedup is None else f" (at most {item.max_speedup:.2f}× in {item.phase})"
        lines.append(Text(printable(f"• {item.change}{most}")))
        evidence = ", ".join(one.path for one in item.evidence)
        lines.append(indented(Text(printable(f"because {item.why}"))))
        lines.append(indented(Text(printable(f"from {evidence}; refuted if {item.refuted_by}"), style="dim")))
    return Group(*lines)


@block_of.register
def _limits(result: LimitsResult, layout: Layout) -> RenderableType | None:
    lines = limit_sentences(result)
    blocks: list[RenderableType] = [Text("Limits", style="bold"), *(Text(line) for line in lines)]
    if result.by_quant.height:
        columns: Columns = {
            "GB/s": lambda row: f"{row['gb_per_s']:.1f}",
            "of peak": lambda row: human_share(row["share_of_peak"]),
            "a token": lambda row: human_ns(row["ns_per_token"]),
            "bytes": lambda row: human_bytes(row["bytes_per_token"]),
        }
        blocks.append(table("", result.by_quant, columns, layout, name=lambda row: row["quant"], label="matrices"))
    return Group(*blocks)
