"""The canonical tables of a trace as Parquet files, for notebooks and other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import polars as pl

from nsyskit.errors import OutputError
from nsyskit.schema import TABLES
from nsyskit.trace import Trace, Window

LEFT_OUT: Final = frozenset({"strings", "streams_text", "diagnostics"})
"""``strings`` is written cut down to what other tables name: nsys keeps the target's environment and arguments there.
Modules keep the file's name, without folders. The program's output and nsys's own messages may hold secrets too."""


def write_parquet(trace: Trace, folder: Path, *, window: Window | None = None) -> tuple[Path, ...]:
    """Write every canonical table with rows as ``<table>.parquet``; with a window, events that touch it.

    Columns are those of ``schema.TABLES``; ids of names and symbols are found in ``strings.parquet``.

    Raises:
        OutputError: the folder or a file in it cannot be written.
    """
    named: list[pl.Series] = []
    modules: list[pl.Series] = []
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for table in (name for name in TABLES if name not in LEFT_OUT):
            rows = _within(trace.tables[table].select(TABLES[table].keys()), window).collect()
            if rows.height:
                named += [rows[column].cast(pl.Int64) for column in rows.columns if column in _NAMES]
                modules += [rows[column].cast(pl.Int64) for column in rows.columns if column == "module_id"]
                written.append(_write(rows, folder / f"{table}.parquet"))
        ids = pl.concat([pl.Series("string_id", [], dtype=pl.Int64), *named]).unique().drop_nulls()
        strings = trace.strings.filter(pl.col("string_id").is_in(ids.implode())).collect()
        written.append(_write(_without_folders(strings, modules).sort("string_id"), folder / "strings.parquet"))
    except (OSError, pl.exceptions.ComputeError) as error:
        for file in written:
            file.unlink(missing_ok=True)
        why = (error.strerror if isinstance(error, OSError) else None) or "the disk refuses"
        raise OutputError(f"cannot write {folder}: {why}", hint="check the place and its space") from error
    return tuple(written)


_NAMES: Final = frozenset({"name_id", "short_name_id", "symbol_id", "module_id"})


def _without_folders(strings: pl.DataFrame, modules: list[pl.Series]) -> pl.DataFrame:
    """Strings with the names of modules cut down to the file: their folders name people and projects."""
    if not modules:
        return strings
    is_module = pl.col("string_id").is_in(pl.concat(modules).unique().implode())
    last = pl.col("value").str.extract(r"([^/\\\\]*)$")
    return strings.with_columns(value=pl.when(is_module).then(last).otherwise("value"))


def _within(rows: pl.LazyFrame, window: Window | None) -> pl.LazyFrame:
    columns = rows.collect_schema().names()
    if window is None or "start_ns" not in columns:
        return rows
    end = pl.col("end_ns") if "end_ns" in columns else pl.col("start_ns")
    return rows.filter((pl.col("start_ns") < window.end_ns) & (end >= window.start_ns))


def _write(rows: pl.DataFrame, target: Path) -> Path:
    """A whole file or none; ``strings.parquet`` comes last, so that a folder without it is not complete."""
    scratch = target.with_name(f".{target.name}")
    try:
        scratch.unlink(missing_ok=True)  # a link of that name would be written through
        rows.write_parquet(scratch)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    return target
