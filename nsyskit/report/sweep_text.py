"""A sweep in a terminal: one line a cell, the best of each test marked, failures with their reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nsyskit.sweep.ledgers import CellLedger
from nsyskit.sweep.table import SweepTable, best, quantisations
from nsyskit.units import human_bytes, printable, rounded

_WIDTH: Final = 120
_BAR: Final = 12
_FEW: Final = 6
_TWO: Final = 2


def render_table(name: str, table: SweepTable, ledgers: Sequence[CellLedger] = ()) -> str:
    """The whole sweep as text; ``ledgers`` of its traced cells."""
    out = StringIO()
    console = Console(file=out, width=_WIDTH, highlight=False, no_color=True, markup=False, emoji=False)
    console.print(Text(f"{name}: {len(table.rows)} cells, tokens per second"))
    console.print(_grid(table))
    for row in table.rows:
        if row["error"]:
            console.print(Text(printable(f"failed: {table.named(row)}: {row['error']}")))
    for label in table.labels:
        top = best(table, label)
        if top is not None and table.axes:
            rate = top["results"][label]["tokens_per_s"]
            console.print(Text(printable(f"best {label}: {rounded(rate, 2)} tokens/s with {table.named(top)}")))
    for block in (_side_by_side(table), _grown(ledgers)):
        if block is not None:
            console.print(block)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _side_by_side(table: SweepTable) -> Table | None:
    """Quantisations, each at its fastest settings."""
    found = quantisations(table)
    if len(found) < _TWO:
        return None
    grid = Table(box=None, pad_edge=False, title="Quantisations side by side", title_justify="left")
    for head in ("", "size", "bits/weight", "VRAM", "KV", *table.labels, "with"):
        grid.add_column(head, justify="left" if head in {"", "with"} else "right", no_wrap=head != "with")
    for one in found:
        sizes = [human_bytes(size) if size is not None else "–" for size in
                 (one.size_bytes, one.vram_bytes, one.kv_bytes)]  # fmt: skip
        bits = "–" if one.bits_per_weight is None else rounded(one.bits_per_weight, 2)
        rates = [rate_text(_measured(one.results, label), "–") for label in table.labels]
        grid.add_row(printable(one.name), sizes[0], bits, *sizes[1:], *rates, printable(one.settings))
    return grid


def _measured(results: Mapping[str, Any], label: str) -> dict[str, Any] | None:
    return dict(results[label]) if label in results else None


def _grown(ledgers: Sequence[CellLedger]) -> Table | None:
    """Each traced cell: which part of the time per token grew against the first."""
    if not ledgers:
        return None
    grid = Table(box=None, pad_edge=False, title="Traced cells", title_justify="left")
    for head in ("", "what grew", "trace"):
        grid.add_column(head, overflow="fold")
    for one in ledgers:
        grown = "; ".join(f"{phase}: {told}" for phase, told in one.grew.items())
        grid.add_row(printable(one.settings), printable(grown or one.sentence), printable(one.trace))
    return grid


def _grid(table: SweepTable) -> Table:
    grid = Table(box=None, pad_edge=False)
    bars = len(table.labels) + len(table.axes) <= _FEW
    for axis in table.axes or ("model",):
        grid.add_column(printable(axis), overflow="fold")
    grid.add_column("size", justify="right", no_wrap=True)
    grid.add_column("KV", justify="right", no_wrap=True)
    held = any("vram_bytes" in one for row in table.rows for one in row["results"].values())
    if held:
        grid.add_column("VRAM", justify="right", no_wrap=True)
    for label in table.labels:
        grid.add_column(label, justify="right", no_wrap=True)
        if bars:
            grid.add_column("")
    most = {label: (best(table, label) or {"results": {}})["results"].get(label, {}) for label in table.labels}
    for row in table.rows:
        sizes = [one.get("model_size") for one in row["results"].values() if one.get("model_size")]
        cells = [printable(str(row["settings"].get(axis, "–") or "unset")) for axis in table.axes or ("model",)]
        caches = [one["kv_bytes"] for one in row["results"].values() if one.get("kv_bytes")]
        cells += [human_bytes(max(found)) if found else "–" for found in (sizes, caches)]
        if held:
            devices = [one["vram_bytes"] for one in row["results"].values() if "vram_bytes" in one]
            cells.append(human_bytes(max(devices)) if devices else "–")
        for label in table.labels:
            measured = row["results"].get(label)
            cells += [rate_text(measured, row["state"]), *([_bar(measured, most[label])] if bars else [])]
        grid.add_row(*cells)
    return grid


def rate_text(measured: dict[str, Any] | None, state: str) -> str:
    """A measurement: rate and standard deviation, time to first token, or perplexity."""
    if measured is None:
        return state if state == "failed" else "–"
    if measured["label"] == "ppl":
        return str(measured.get("ppl", "–"))
    if measured.get("ttft_ms") is not None:
        return f"{rounded(float(measured['ttft_ms']), 2)} ms"
    if measured.get("tokens_per_s") is None:
        return "–"
    rate, spread = float(measured["tokens_per_s"]), measured.get("stddev")
    return rounded(rate, 2) + (f" ± {rounded(float(spread), 2)}" if spread is not None else "")


def _bar(measured: dict[str, Any] | None, most: dict[str, Any]) -> str:
    if not measured or not measured.get("tokens_per_s") or not most.get("tokens_per_s"):
        return ""
    return "█" * max(1, round(float(measured["tokens_per_s"]) / float(most["tokens_per_s"]) * _BAR))
