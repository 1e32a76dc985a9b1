"""What llama.cpp says of itself: the numbers it printed, and its start."""

from __future__ import annotations

import polars as pl
from rich.console import Group, RenderableType
from rich.text import Text

from nsyskit.analysis.program import ProgramResult
from nsyskit.analysis.startup import StartupResult
from nsyskit.report.text.layout import Columns, Layout, block_of, known, number, table
from nsyskit.report.words import START_PARTS, start_sentence
from nsyskit.units import human_bytes, human_ns, printable


@block_of.register
def _program(result: ProgramResult, layout: Layout) -> RenderableType | None:
    rows = [row for row in result.rows if row.numbers.tokens_per_s is not None or row.numbers.ms is not None]
    if not rows:
        return None
    frame = pl.DataFrame(
        {
            "name": [f"{row.numbers.tool} {row.numbers.label}" for row in rows],
            "printed": [row.numbers.tokens_per_s for row in rows],
            "ms": [row.numbers.ms for row in rows],
            "trace": [row.trace_tokens_per_s for row in rows],
            "difference": [row.difference for row in rows],
        },
        schema={"name": pl.String} | dict.fromkeys(("printed", "ms", "trace", "difference"), pl.Float64),
    )
    columns: Columns = {
        "printed ms": lambda row: number(row["ms"], 2),
        "printed tokens/s": lambda row: number(row["printed"], 1),
        "trace tokens/s": lambda row: number(row["trace"], 1),
        "difference": lambda row: known(row["difference"], "{:+.1%}".format),
    }
    return table("What the program printed, and the trace", frame, columns, layout, name=lambda row: row["name"])


@block_of.register
def _startup(result: StartupResult, layout: Layout) -> RenderableType | None:
    blocks: list[RenderableType] = []
    if result.window is not None:
        columns: Columns = {
            "time": lambda row: human_ns(row["dur_ns"]),
            "CUDA calls": lambda row: human_ns(row["api_ns"]),
            "OS calls": lambda row: human_ns(row["os_ns"]),
            "on files": lambda row: human_ns(row["disk_ns"]),
            "uploading": lambda row: human_ns(row["copy_ns"]),
            "uploaded": lambda row: human_bytes(row["copy_bytes"]),
        }
        title = f"Start: {human_ns(result.window.dur_ns)} to the first token"
        blocks.append(table(title, result.spans, columns, layout, name=lambda row: START_PARTS[row["name"]]))
        blocks.append(Text(start_sentence(result)))
    if result.milestones.height:
        told = ", ".join(f"{name} at {ms:,.1f} ms" for name, ms in result.milestones.rows())
        blocks.append(Text(printable(f"The program's log, on its own clock: {told}")))
    return Group(*blocks)
