"""What a recipe wrote, as text, CSV or JSON."""

from __future__ import annotations

import json
import math
from io import StringIO
from typing import Any, Final, Literal

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nsyskit.recipes.run import RecipeRun
from nsyskit.report.csv import csv_text
from nsyskit.units import human_count, printable

SCHEMA: Final = "nsyskit.recipe/1"
_WIDEST: Final = 40


def render_text(run: RecipeRun, *, top: int = 10, width: int = 100) -> str:
    """One table a file; of a wide one the columns that fit."""
    out = StringIO()
    console = Console(file=out, width=width, highlight=False, no_color=True, markup=False, emoji=False)
    for name, frame in run.tables.items():
        console.print(_table(name, frame, top, width))
        console.print()
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).rstrip() + "\n"


def render_csv(run: RecipeRun) -> str:
    """One table as plain CSV; several told apart by a line ``# name``, as ``analyze --format csv`` does."""
    tables = {name: csv_text(frame.to_dicts()) for name, frame in run.tables.items()}
    if len(tables) == 1:
        return next(iter(tables.values()))
    return "\n".join(f"# {printable(name)}\n{text}" for name, text in tables.items())


def render_json(run: RecipeRun) -> str:
    """``{schema, recipe, tables: {name: rows}}``."""
    tables = {name: [_plain(row) for row in frame.iter_rows(named=True)] for name, frame in run.tables.items()}
    body = {"schema": SCHEMA, "recipe": run.recipe, "tables": tables}
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _plain(value: Any) -> Any:
    """A value without NaN, which JSON has no word for."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(name: str, frame: pl.DataFrame, top: int, width: int) -> Table:
    shown = frame.head(top)
    cells = {column: [_cell(value) for value in shown[column]] for column in frame.columns}
    table = Table(
        title=Text(printable(name)), title_justify="left", title_style="bold", box=None, pad_edge=False,
        padding=(0, 2, 0, 0), collapse_padding=True,
    )  # fmt: skip
    used, fitting = 0, list[str]()
    for column, texts in cells.items():
        wide = min(max([len(column), *map(len, texts)]), _WIDEST)
        if used + wide > width and fitting:
            break
        used += wide + 2
        fitting.append(column)
        side: Literal["left", "right"] = "right" if frame.schema[column].is_numeric() else "left"
        table.add_column(Text(printable(column)), justify=side, no_wrap=True, overflow="ellipsis", width=wide)
    for line in zip(*(cells[column] for column in fitting), strict=True):
        table.add_row(*map(Text, line))
    more = [f"… and {frame.height - top} more rows"] if frame.height > top else []
    hidden = len(cells) - len(fitting)
    more += [f"{hidden} more columns in CSV and JSON"] if hidden else []
    table.caption, table.caption_justify = "; ".join(more) or None, "left"
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return human_count(value) if isinstance(value, int) and not isinstance(value, bool) else printable(str(value))
