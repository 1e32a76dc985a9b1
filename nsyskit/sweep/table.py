"""A sweep as a table: one row a cell and test, and what varies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

    def series(self, axis: str, label: str) -> dict[str, list[tuple[str, float, float | None]]]:
        """Points of one test along one axis: what the other axes are -> (value, tokens/s, standard deviation)."""
        others = [name for name in self.axes if name != axis]
        found: dict[str, list[tuple[str, float, float | None]]] = {}
        for row in self.rows:
            measured = row["results"].get(label)
            if measured and measured.get("tokens_per_s") is not None and axis in row["settings"]:
                name = ", ".join(f"{other}={row['settings'].get(other, '–')}" for other in others)
                point = (row["settings"][axis], measured["tokens_per_s"], measured.get("stddev"))
                found.setdefault(name, []).append(point)
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


def best(table: SweepTable, label: str) -> Mapping[str, Any] | None:
    """The row with most tokens per second in a test; None when nothing was measured."""
    measured = [row for row in table.rows if row["results"].get(label, {}).get("tokens_per_s") is not None]
    return max(measured, key=lambda row: row["results"][label]["tokens_per_s"], default=None)
