"""Tables as CSV. One section is a plain CSV file; several are told apart by a line ``# section`` and a blank line."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from io import StringIO
from typing import Any

from nsyskit.analysis.analyze import Report
from nsyskit.errors import UsageError
from nsyskit.report.json import document
from nsyskit.units import printable

_FORMULA = ("=", "+", "-", "@")


def render_csv(report: Report) -> str:
    """The report's tables.

    Raises:
        UsageError: nothing that was asked for is a table.
    """
    sections = {name: value for name, value in document(report).items() if name != "trust"}
    tables = {name: rows for name, value in sections.items() if (rows := _table(value))}
    if not tables:
        raise UsageError("there is no table to write", hint="ask for sums, copies, devices, threads or gaps with -a")
    if len(tables) == 1:
        return csv_text(next(iter(tables.values())))
    return "\n".join(f"# {name}\n{csv_text(rows)}" for name, rows in tables.items())


def _table(value: Any) -> list[dict[str, Any]]:
    """A section's rows with nested values laid flat: ``idle.host``; lists within rows have no place in a table."""
    if not isinstance(value, list) or not value:
        return []
    return [flat(row) for row in value]


def flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values laid flat, ``idle.host``; lists within rows have no place in a table."""
    cells: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            cells |= flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            cells[prefix + name] = value
    return cells


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Rows as one CSV table, safe to open in a spreadsheet."""
    out = StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_safe, columns))
    writer.writerows([_safe(row.get(name)) for name in columns] for row in rows)
    return out.getvalue()


def _safe(value: Any) -> Any:
    """Text without control characters, quoted where a spreadsheet would run it; names come from traces of others."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
