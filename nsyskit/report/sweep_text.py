"""A sweep in a terminal: one line a cell, the best of each test marked, failures with their reason."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nsyskit.sweep.table import SweepTable, best
from nsyskit.units import human_bytes, printable, rounded

_WIDTH: Final = 120
_BAR: Final = 12
_FEW: Final = 6


def render_table(name: str, table: SweepTable) -> str:
    """The whole sweep as text."""
    out = StringIO()
    console = Console(file=out, width=_WIDTH, highlight=False, no_color=True)
    console.print(Text(f"{name}: {len(table.rows)} cells, tokens per second"))
    console.print(_grid(table))
    for row in table.rows:
        if row["error"]:
            console.print(Text(printable(f"failed: {_named(row, table)}: {row['error']}")))
    for label in table.labels:
        top = best(table, label)
        if top is not None and table.axes:
            rate = top["results"][label]["tokens_per_s"]
            console.print(Text(printable(f"best {label}: {rounded(rate, 2)} tokens/s with {_named(top, table)}")))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _grid(table: SweepTable) -> Table:
    grid = Table(box=None, pad_edge=False)
    bars = len(table.labels) + len(table.axes) <= _FEW
    for axis in table.axes or ("model",):
        grid.add_column(printable(axis), overflow="fold")
    grid.add_column("size", justify="right", no_wrap=True)
    grid.add_column("KV", justify="right", no_wrap=True)
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
        for label in table.labels:
            measured = row["results"].get(label)
            cells += [rate_text(measured, row["state"]), *([_bar(measured, most[label])] if bars else [])]
        grid.add_row(*cells)
    return grid


def rate_text(measured: dict[str, Any] | None, state: str) -> str:
    """A measurement: rate and standard deviation, or perplexity."""
    if measured is None:
        return state if state == "failed" else "–"
    if measured["label"] == "ppl":
        return str(measured.get("ppl", "–"))
    if measured.get("tokens_per_s") is None:
        return "–"
    rate, spread = float(measured["tokens_per_s"]), measured.get("stddev")
    return rounded(rate, 2) + (f" ± {rounded(float(spread), 2)}" if spread is not None else "")


def _bar(measured: dict[str, Any] | None, most: dict[str, Any]) -> str:
    if not measured or not measured.get("tokens_per_s") or not most.get("tokens_per_s"):
        return ""
    return "█" * max(1, round(float(measured["tokens_per_s"]) / float(most["tokens_per_s"]) * _BAR))


def _named(row: Mapping[str, Any], table: SweepTable) -> str:
    return ", ".join(f"{axis}={row['settings'].get(axis, '–') or 'unset'}" for axis in table.axes) or "its settings"
