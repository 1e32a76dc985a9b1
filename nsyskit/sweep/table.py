"""A sweep as a table: one row a cell and test, and what varies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nsyskit.compare.setup import base_model
from nsyskit.history.history import Cell


@dataclass(frozen=True, slots=True)
class SweepTable:
    """Rows of a sweep.

    Attributes:
        axes: settings that differ between cells, in the order of the settings.
        labels: the tests, in the order measured.
        rows: one a cell: its settings, ``state``, ``error``, ``trace``, and ``results`` (label -> measurement).
    """

    axes: tuple[str, ...]
    labels: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]

    def named(self, row: Mapping[str, Any]) -> str:
        """What tells a row apart: ``n_threads=4, flash_attn=1``."""
        return ", ".join(f"{axis}={row['settings'].get(axis, '–') or 'unset'}" for axis in self.axes) or "its settings"

    def series(self, axis: str, label: str) -> dict[str, list[tuple[str, float, float | None]]]:
        """Points of one test along one axis: what the other axes are -> (value, tokens/s or ms, standard deviation)."""
        others = [name for name in self.axes if name != axis]
        found: dict[str, list[tuple[str, float, float | None]]] = {}
        for row in self.rows:
            measured = row["results"].get(label)
            if measured is None or axis not in row["settings"]:
                continue
            kind = ("ttft_ms", "ttft_stddev_ms") if "ttft_ms" in measured else ("tokens_per_s", "stddev")
            value, spread = (measured.get(name) for name in kind)
            if value is not None:
                name = ", ".join(f"{other}={row['settings'].get(other, '–')}" for other in others)
                found.setdefault(name, []).append((row["settings"][axis], value, spread))
        return found


def tabulate(found: Sequence[Cell]) -> SweepTable:
    """The cells of a sweep side by side."""
    names = list(dict.fromkeys(name for cell in found for name in cell.settings))
    told = {name: {cell.settings[name] for cell in found if name in cell.settings} for name in names}
    axes = [name for name in names if len(told[name]) > 1]
    by_label = [{_label(result, axes): result for result in cell.results} for cell in found]
    labels = list(dict.fromkeys(label for results in by_label for label in results))
    rows = tuple(
        {
            "settings": dict(cell.settings), "state": cell.state, "error": cell.error, "trace": cell.trace,
            "results": results,
        }
        for cell, results in zip(found, by_label, strict=True)
    )  # fmt: skip
    return SweepTable(tuple(axes), tuple(labels), rows)


def _label(result: Mapping[str, Any], axes: Sequence[str]) -> str:
    """The test's label; without its depth where depth is an axis, so that one test is one line along it."""
    label = str(result["label"])
    return re.sub(r"@d\d+", "", label) if "n_depth" in axes else label


@dataclass(frozen=True, slots=True)
class Quantisation:
    """One model of a sweep, at the settings with which it decodes fastest.

    Attributes:
        name: its quantisation, ``Q4_K - Medium``; the file's name where llama-bench did not tell.
        settings: the row's settings but the model.
        size_bytes, bits_per_weight: of the weights.
        vram_bytes, kv_bytes: the most that one of its tests holds.
        results: label -> measurement: speeds, time to first token, perplexity.
    """

    name: str
    settings: str
    size_bytes: int | None
    bits_per_weight: float | None
    vram_bytes: int | None
    kv_bytes: int | None
    results: Mapping[str, Mapping[str, Any]]


def quantisations(table: SweepTable) -> tuple[Quantisation, ...]:
    """Quantisations side by side, smallest first; empty where the sweep has only one model."""
    if "model" not in table.axes:
        return ()
    others = SweepTable(tuple(axis for axis in table.axes if axis != "model"), table.labels, table.rows)
    found = []
    for model in dict.fromkeys(row["settings"].get("model") for row in table.rows):
        rows = tuple(row for row in table.rows if row["settings"].get("model") == model and row["results"])
        row = _fastest(SweepTable(table.axes, table.labels, rows))
        if row is not None:
            found.append(_quantisation(str(model), row, others.named(row) if others.axes else ""))
    return tuple(sorted(found, key=lambda one: (one.size_bytes or 0, one.name)))


def _fastest(table: SweepTable) -> Mapping[str, Any] | None:
    """The row that decodes fastest; without a decode test the one that is fastest in any."""
    decodes = [label for label in table.labels if any(_phase(row, label) == "decode" for row in table.rows)]
    tops = [top for label in (*decodes, *table.labels) if (top := best(table, label)) is not None]
    return tops[0] if tops else None


def _phase(row: Mapping[str, Any], label: str) -> str | None:
    phase: str | None = row["results"].get(label, {}).get("phase")
    return phase


def _quantisation(model: str, row: Mapping[str, Any], settings: str) -> Quantisation:
    results = row["results"]

    def most(name: str) -> int | None:
        return max((int(one[name]) for one in results.values() if one.get(name)), default=None)

    size, weights = most("model_size"), most("model_n_params")
    kind = next((str(one["model_type"]) for one in results.values() if one.get("model_type")), "")
    quant = kind.removeprefix(base_model(kind)).strip()
    return Quantisation(
        name=quant or model,
        settings=settings,
        size_bytes=size,
        bits_per_weight=8 * size / weights if size and weights else None,
        vram_bytes=most("vram_bytes"),
        kv_bytes=most("kv_bytes"),
        results=results,
    )


def best(table: SweepTable, label: str) -> Mapping[str, Any] | None:
    """The row with most tokens per second in a test; None when nothing was measured."""
    measured = [row for row in table.rows if row["results"].get(label, {}).get("tokens_per_s") is not None]
    return max(measured, key=lambda row: row["results"][label]["tokens_per_s"], default=None)
