"""Tables for the page: figures are readable, sort by their true value, and are cut at a stated number of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from nsyskit.report.page.elements import NOTHING, Html, join, note, tag, text
from nsyskit.units import human_bytes, human_count, human_ns, human_share

Row = Mapping[str, Any]
MAX_ROWS: Final = 500
FOLDED_ROWS: Final = 15
_SEARCH_FROM: Final = 12
_TITLE_CHARACTERS: Final = 400
_FEW_COLUMNS: Final = 5


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, the value that sorts it, and how that is shown. ``bar`` draws a share as a bar."""

    head: str
    value: Callable[[Row], Any]
    show: Callable[[Any], str]
    number: bool = True
    bar: bool = False
    hint: str | None = None
    full: Callable[[Row], str] | None = None
    link: Callable[[Row], str | None] | None = None


def ns(head: str, key: str, hint: str | None = None) -> Column:
    return Column(head, lambda row: row[key], human_ns, hint=hint)


def count(head: str, key: str, hint: str | None = None) -> Column:
    return Column(head, lambda row: row[key], human_count, hint=hint)


def size(head: str, key: str) -> Column:
    return Column(head, lambda row: row[key], human_bytes)


def share(head: str, key: str, hint: str | None = None) -> Column:
    return Column(head, lambda row: row[key], human_share, bar=True, hint=hint)


def decimal(head: str, key: str, form: str, hint: str | None = None) -> Column:
    """A figure without a unit of its own, in the given format."""
    return Column(head, lambda row: row[key], lambda value: format(value, form), hint=hint)


def words(
    head: str, value: Callable[[Row], str], *, full: Callable[[Row], str] | None = None,
    link: Callable[[Row], str | None] | None = None,
) -> Column:  # fmt: skip
    """Text; ``full`` stands in its title, ``link`` leads to a place on the page."""
    return Column(head, value, str, number=False, full=full, link=link)


def table(caption: str, rows: pl.DataFrame | Sequence[Row], columns: Sequence[Column], *, more: str = "") -> Html:
    """A sortable table, searchable when it is long. ``more`` says where the rows are that were cut off."""
    listed = (
        list(rows.head(MAX_ROWS).iter_rows(named=True)) if isinstance(rows, pl.DataFrame) else list(rows)[:MAX_ROWS]
    )
    total = rows.height if isinstance(rows, pl.DataFrame) else len(rows)
    head = tag("tr", *(_heading(column) for column in columns))
    body = (
        tag("tr", *(_cell(column, row) for column in columns), class_="folded" if index >= FOLDED_ROWS else None)
        for index, row in enumerate(listed)
    )
    grid = tag(
        "table",
        tag("caption", text(caption)),
        tag("thead", head),
        tag("tbody", *body),
        class_="sortable",
        data_total=len(listed),
    )
    box = tag("div", grid, class_="scroll", tabindex=0, role="region", aria_label=caption)
    kind = "table few" if len(columns) <= _FEW_COLUMNS else "table"
    return tag("div", _tools(caption, len(listed)), box, _cut(total, more), class_=kind)


def _heading(column: Column) -> Html:
    inner = tag("button", text(column.head), type="button")
    return tag("th", inner, scope="col", class_="number" if column.number else None, title=column.hint)


def _cell(column: Column, row: Row) -> Html:
    value = column.value(row)
    shown = "–" if value is None else column.show(value)
    if not column.number:
        full = (column.full or (lambda _: shown))(row)
        title = full[:_TITLE_CHARACTERS] if full != shown else None
        place = column.link(row) if column.link is not None else None
        inner = tag("a", text(shown), href=place, title=title) if place else tag("span", text(shown), title=title)
        return tag("td", inner, class_="name")
    content = text(shown)
    if column.bar and value is not None:
        content = join([tag("span", class_="meter", style=f"--share:{min(value, 1):.4f}"), content])
    return tag("td", content, class_="number", data_value="" if value is None else repr(value))


def _tools(caption: str, listed: int) -> Html:
    if listed < _SEARCH_FROM:
        return NOTHING
    search = tag("input", type="search", placeholder="Search", aria_label=f"Search: {caption}", class_="search")
    fold = tag("button", text(f"Show all {listed}"), type="button", class_="fold", aria_expanded="false")
    return tag(
        "div",
        search,
        fold if listed > FOLDED_ROWS else NOTHING,
        tag("span", class_="found", role="status"),
        class_="tools",
    )


def _cut(total: int, more: str) -> Html:
    hidden = total - MAX_ROWS
    return note(f"… and {hidden:,} more rows{more}") if hidden > 0 else NOTHING
