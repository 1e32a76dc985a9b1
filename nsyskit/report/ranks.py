"""Several reports of one run, as text and as JSON."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import polars as pl
from rich.console import Console, RenderableType
from rich.text import Text

from nsyskit.analysis.devices import DevicesResult
from nsyskit.analysis.ranks import Rank, RanksResult
from nsyskit.report.json import section
from nsyskit.report.json.plain import span
from nsyskit.report.schemas import shipped_schema
from nsyskit.report.several_gpus import counted
from nsyskit.report.text import Layout, block_of
from nsyskit.units import human_ns, human_share, printable

SCHEMA = "nsyskit.ranks/1"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the document, shipped with the package."""
    return shipped_schema("ranks")


def document(result: RanksResult) -> dict[str, Any]:
    """The document as plain values; places count the entries of ``ranks`` from 0."""
    window = result.window
    return {
        "schema": SCHEMA,
        "window": span(window),
        "clock": result.clock,
        "uncertainty_ns": result.uncertainty_ns,
        "ranks": [
            {
                "name": rank.name, "number": rank.number, "shift_ns": rank.shift_ns, "busy_ns": rank.busy_ns,
                "busy_share": _share(rank.busy_ns, result), "warnings": list(rank.warnings),
                "devices": section(DevicesResult(window, rank.ledgers)),
            }
            for rank in result.ranks
        ],
        "busy_count": result.busy_count.to_dicts(),
        "busy_sets": result.busy_sets.to_dicts(),
        "waits": result.waits.to_dicts(),
        "shared": [{"uuid": uuid, "places": list(places)} for uuid, places in result.shared],
    }  # fmt: skip


def render_json(result: RanksResult) -> str:
    return json.dumps(document(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_text(result: RanksResult, *, width: int = 100) -> str:
    """Clock and window first, then who worked when, then each rank's ledger."""
    out = StringIO()
    console = Console(file=out, width=max(width, 60), no_color=True, highlight=False, markup=False, emoji=False)
    for block in _blocks(result, Layout(10, console.width)):
        console.print(block)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).rstrip() + "\n"


def _blocks(result: RanksResult, layout: Layout) -> list[RenderableType]:
    window, names = result.window, [_name(rank) for rank in result.ranks]
    blocks: list[RenderableType] = [
        Text(f"{len(names)} reports · window {window.kind} {human_ns(window.dur_ns)} that all of them cover"),
        Text(f"clocks: {_clock(result)}"),
    ]
    blocks += [
        Text(f"warning: GPU {uuid} is at work in {' and '.join(names[place] for place in places)}")
        for uuid, places in result.shared
    ]
    blocks += [Text(""), Text(f"Reports whose GPUs work at a time: {counted(result.busy_count)}")]
    for waiting, part in result.waits.group_by("waiting", maintain_order=True):
        blocks += [Text(f"{names[int(str(waiting[0]))]} idles while"), *_waits(part, names, result)]
    for rank in result.ranks:
        blocks += ["", *_rank(rank, result, layout)]
    return blocks


def _waits(part: pl.DataFrame, names: list[str], result: RanksResult) -> list[Text]:
    lines = []
    for row in part.sort("idle_ns", "other", descending=[True, False]).iter_rows(named=True):
        span = "" if row["low_ns"] is None else f", {human_ns(row['low_ns'])} to {human_ns(row['high_ns'])}"
        share = human_share(_share(row["idle_ns"], result))
        lines.append(Text(f"  {names[row['other']]} works: {human_ns(row['idle_ns'])} ({share}{span})"))
    return lines


def _rank(rank: Rank, result: RanksResult, layout: Layout) -> list[RenderableType]:
    shift = f"{'+' if rank.shift_ns >= 0 else '−'}{human_ns(abs(rank.shift_ns))}"
    share = human_share(_share(rank.busy_ns, result))
    blocks: list[RenderableType] = [
        Text(f"{_name(rank)}: busy {share}, its clock {shift}", style="bold"),
        *(Text(f"warning: {printable(message)}") for message in rank.warnings),
    ]
    ledgers = block_of(DevicesResult(result.window, rank.ledgers), layout)
    return [*blocks, ledgers] if ledgers is not None else blocks


def _name(rank: Rank) -> str:
    return printable(rank.name if rank.number is None else f"{rank.name} (rank {rank.number})")


def _clock(result: RanksResult) -> str:
    if result.uncertainty_ns is not None:
        return f"aligned by the sessions' start in UTC, to ±{human_ns(result.uncertainty_ns)}: {result.clock}"
    return (
        f"aligned by the sessions' start in UTC; {result.clock}: as good as their system clocks agree, "
        "which no report tells (NTP: about a millisecond)"
    )


def _share(ns: int, result: RanksResult) -> float:
    return ns / result.window.dur_ns
