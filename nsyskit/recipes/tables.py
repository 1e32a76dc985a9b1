"""What a recipe writes for a trace: sections of the document that ``analyze`` writes as JSON, laid flat.

Both go through the same call, so that ``nsyskit analyze`` and ``nsys recipe`` cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl

from nsyskit.analysis.analyze import analyze
from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.windows import parse_window
from nsyskit.errors import NsyskitError
from nsyskit.ingest import open_trace
from nsyskit.report.csv import csv_text, flat
from nsyskit.report.json import document
from nsyskit.runfolder import is_run_folder

Row = dict[str, Any]
Rows = dict[str, list[Row]]

RECIPES: Final[dict[str, tuple[str, ...]]] = {
    "llama_hotspot_sum": ("kernel_sum", "category_sum", "family_sum", "quant_sum"),
    "llama_sync_sum": ("sync",),
    "llama_gpu_gaps": ("devices", "gaps"),
    "llama_step_pace": ("steps",),
}
"""Recipe -> the analyses it runs."""


def input_files(paths: Iterable[str]) -> list[str]:
    """Traces to look at: a folder that holds rep files and is no run of ``capture`` stands for each of them."""
    found: list[str] = []
    for path in map(Path, paths):
        inside = [] if is_run_folder(path) else [*path.glob("*.nsys-rep"), *path.glob("*.qdrep")]
        found += sorted(map(str, inside)) or [str(path)]
    return found


def tables_of(path: str, name: str, *, recipe: str, window: str | None = None) -> Rows:
    """The tables of one trace, each row with ``name`` first, and ``trust``: what makes them less than certain.

    A trace that cannot be read, or lacks what the recipe is about, is a row of ``trust`` and no other: of many ranks
    one may be damaged.
    """
    try:
        trace = open_trace(path)
        chosen = parse_window(window, trace) if window else None
        told = document(analyze(trace, only=RECIPES[recipe], window=chosen))
    except NsyskitError as error:
        return {"trust": [_left_out(name, str(error))]}
    absent = [section for section in RECIPES[recipe] if told.get(section, ()) is None]
    tables: Rows = {"trust": [{"file": name, **note} for note in told["trust"]]}
    tables["trust"] += [_left_out(name, f"this trace holds nothing for {section}") for section in absent]
    for table, row in _rows(told):
        tables.setdefault(table, []).append({"file": name, **row})
    return tables


def joined(found: Iterable[Rows]) -> Rows:
    """The tables of several traces, one below the other."""
    tables: Rows = {}
    for one in found:
        for table, rows in one.items():
            tables.setdefault(table, []).extend(rows)
    return tables


def left_out(tables: Mapping[str, list[Row]]) -> list[Row]:
    """The notes on traces that gave nothing."""
    return [note for note in tables.get("trust", []) if note["code"] == "left_out"]


def write_tables(tables: Rows, place: Callable[[str], str], *, csv: bool = False) -> None:
    """Each table as Parquet, and as CSV when asked for; ``place`` turns a file's name into where it goes."""
    for table, rows in tables.items():
        frame = frame_of(rows)
        frame.write_parquet(place(f"{table}.parquet"))
        if csv:
            Path(place(f"{table}.csv")).write_text(csv_text(frame.to_dicts()), encoding="utf-8")


def frame_of(rows: list[Row]) -> pl.DataFrame:
    """Rows as a frame; a column that only some rows have is null in the others."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], infer_schema_length=None)


def _left_out(name: str, why: str) -> Row:
    return {"file": name, "level": "error", "code": "left_out", "message": why}


def _rows(told: Mapping[str, Any]) -> Iterator[tuple[str, Row]]:
    """Every row of every table in a document."""
    for name in ("kernel_sum", "category_sum", "family_sum", "quant_sum"):
        yield from ((name, flat(row)) for row in told.get(name) or [])
    for row in told.get("devices") or []:
        key = {"gpu": row["gpu"], "device": row["device"]}
        yield "devices", flat(row)
        for gap in row.get("gaps", []):  # JSON leaves out causes without a part; a column of a table has no such choice
            yield "gaps", key | flat(gap | {"causes": {cause: gap["causes"].get(cause, 0) for cause in CAUSES}})
        yield from (("gap_hist", key | flat(one)) for one in row.get("gap_hist", []))
    yield from _sync(told.get("sync"))
    yield from _steps(told.get("steps"))


def _sync(sync: Mapping[str, Any] | None) -> Iterator[tuple[str, Row]]:
    if sync is None:
        return
    yield "sync", flat({name: value for name, value in sync.items() if not name.endswith("by_class")})
    for table in ("by_class", "copies_by_class"):
        yield from ((f"sync_{table}", {"class": kind, **row}) for kind, row in sync[table].items())
    yield from (("sync_by_api", flat(row)) for row in sync["by_api"])


def _steps(steps: Mapping[str, Any] | None) -> Iterator[tuple[str, Row]]:
    if steps is None:
        return
    yield from (("phases", {"phase": phase} | flat(row)) for phase, row in steps["by_phase"].items())
    yield from (("steps", flat(row)) for row in steps["steps"])
    yield from (("slowest", flat(row)) for row in steps["slowest"])
