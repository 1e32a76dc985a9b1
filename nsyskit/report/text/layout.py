"""What all blocks of the terminal report share: the dispatch, tables, ledger bars, and names and figures that fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any, Final

import polars as pl
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nsyskit.report.palette import PART_COLORS
from nsyskit.units import human_ns, human_share, printable

_WIDE: Final = 120
SMALL_SHARE: Final = 0.002

Cell = Callable[[Mapping[str, Any]], str]
Columns = dict[str, Cell]
"""Head of a column -> what it says of a row."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows a table shows, and the columns of the terminal."""

    top: int
    width: int

    @property
    def wide(self) -> bool:
        """Whether there is room for columns beyond the most telling."""
        return self.width >= _WIDE

    def at_least(self, *rows: int) -> Layout:
        """The same, for a table that is read as a whole: so many rows, or more."""
        return replace(self, top=max(self.top, *rows))


@singledispatch
def block_of(result: object, layout: Layout) -> RenderableType | None:
    """One result as a block of the report; None when there is nothing to show."""
    raise NotImplementedError(type(result))


def table(
    title: str, rows: pl.DataFrame, columns: Columns, layout: Layout, *, name: Cell, label: str = "name"
) -> Table:
    """A table with right-aligned figures and the name last, cut off where the line ends."""
    made = Table(
        title=Text(printable(title)) if title else None,  # a Text: rich would read brackets in a name as markup
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        collapse_padding=True,
    )
    shown = [
        ({column: cell(row) for column, cell in columns.items()}, row)
        for row in rows.head(layout.top).iter_rows(named=True)
    ]
    used = 0
    for column in columns:
        widest = max([len(column), *(len(cells[column]) for cells, _ in shown)])
        made.add_column(column, justify="right", no_wrap=True, width=widest)
        used += widest + 2
    # given the name's true width, rich would rather drop the figures than cut the name
    made.add_column(label, no_wrap=True, overflow="ellipsis", width=max(layout.width - used, 16))
    for cells, row in shown:
        made.add_row(*(Text(printable(cell)) for cell in cells.values()), Text(printable(name(row))))
    if rows.height > layout.top:
        made.caption, made.caption_justify = f"… and {rows.height - layout.top} more", "left"
    return made


def indented(block: RenderableType) -> Padding:
    """A line that belongs to the one above."""
    return Padding(block, (0, 0, 0, 2))


def known(value: Any, say: Callable[[Any], str]) -> str:
    """A figure in words, a dash where the trace does not tell it."""
    return "–" if value is None else say(value)


def number(value: float | None, digits: int) -> str:
    """A plain number with so many decimals, a dash where the trace does not tell it."""
    return known(value, lambda figure: f"{figure:,.{digits}f}")


def clipped(text: str, width: int, *, style: str = "") -> Text:
    """One line, cut off where the terminal ends."""
    line = Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")
    line.truncate(width, overflow="ellipsis")
    return line


def ledger_block(title: str, parts: Mapping[str, int], total: int, width: int) -> RenderableType:
    """A bar of the parts of ``total`` ns under a title, and its legend, largest first."""
    shown = {name: value for name, value in parts.items() if value}
    legend, small = [], 0
    for name, value in sorted(shown.items(), key=lambda item: -item[1]):
        if value < SMALL_SHARE * total:
            small += value
            continue
        square = ("■ ", PART_COLORS[_part(name)])
        legend.append(Text.assemble(square, f"{name} {human_ns(value)} ({human_share(value / total)})"))
    if small:
        legend.append(Text(f"the rest {human_ns(small)}"))
    lines = _packed(legend, width - 2)
    return Group(Text(title, style="bold"), _bar(shown, total, width - 2), indented(Group(*lines)))


def _packed(entries: Sequence[Text], width: int) -> list[Text]:
    """Entries side by side, as many as fit a line: a figure is never torn from its name or its unit."""
    lines: list[Text] = []
    for entry in entries:
        if lines and lines[-1].cell_len + 3 + entry.cell_len <= width:
            lines[-1].append("   ").append_text(entry)
        else:
            lines.append(entry)
    return lines


def _bar(parts: Mapping[str, int], total: int, width: int) -> Text:
    """A bar of ``width`` cells; every part gets its share, rounded so that the cells sum to the width."""
    bar, done, cells = Text("  "), 0, 0
    for name, value in parts.items():
        done += value
        upto = round(done / total * width) if total else 0
        glyph = "░" if "idle" in name else "█"
        bar.append(glyph * (upto - cells), style=PART_COLORS[_part(name)])
        cells = upto
    return bar


def _part(name: str) -> str:
    return name.removeprefix("idle: ").split(" (")[0]
