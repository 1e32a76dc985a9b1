"""Start-up, and what the program printed beside the trace."""

from __future__ import annotations

from nsyskit.analysis.program import ProgramResult, ProgramRow
from nsyskit.analysis.startup import StartupResult
from nsyskit.report.page.elements import NOTHING, Html, join, note, tag, text
from nsyskit.report.page.sections import Sections, block
from nsyskit.report.page.tables import Row, decimal, ns, size, table, words
from nsyskit.report.words import START_PARTS, start_sentence
from nsyskit.units import human_ns


@block.register
def _startup(result: StartupResult, _made: Sections, _name: str) -> Html:
    told = []
    if result.window is not None:
        columns = [
            words("part", lambda row: START_PARTS[row["name"]]),
            ns("time", "dur_ns"),
            ns("CUDA calls", "api_ns"),
            ns("OS calls", "os_ns"),
            ns("on files", "disk_ns", "while nothing is uploaded"),
            ns("uploading", "copy_ns"),
            size("uploaded", "copy_bytes"),
        ]
        title = f"Start: {human_ns(result.window.dur_ns)} to the first token"
        told = [tag("p", text(start_sentence(result))), table(title, result.spans, columns)]
    if result.milestones.height:
        moments = ", ".join(f"{what} at {ms:,.1f} ms" for what, ms in result.milestones.rows())
        told.append(note(f"The program's log, on its own clock: {moments}."))
    return join(told)


@block.register
def _program(result: ProgramResult, _made: Sections, _name: str) -> Html:
    rows = [_printed(row) for row in result.rows if row.numbers.tokens_per_s is not None or row.numbers.ms]
    columns = [
        words("measurement", lambda row: row["name"]),
        decimal("printed ms", "ms", ",.2f"),
        decimal("printed tokens/s", "printed", ",.1f"),
        decimal("trace tokens/s", "trace", ",.1f"),
        decimal("difference", "difference", "+.1%"),
    ]
    return table("What the program printed, and the trace", rows, columns) if rows else NOTHING


def _printed(row: ProgramRow) -> Row:
    return {
        "name": f"{row.numbers.tool} {row.numbers.label}",
        "printed": row.numbers.tokens_per_s,
        "ms": row.numbers.ms,
        "trace": row.trace_tokens_per_s,
        "difference": row.difference,
    }
