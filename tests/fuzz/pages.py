"""SQLite files for the reader of pages: whatever it takes from one must be what SQLite takes."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

from nsyskit.ingest.pages import NotPlainError, PageFile
from tests.fuzz import hostile

_EDGES = [0, 1, -1, 2, 127, 128, -128, -129, 32_767, 32_768, 1 << 23, -(1 << 23) - 1, 1 << 31, 1 << 47, -(1 << 47) - 1]
_WHOLE = frozenset({"one", "edge", "constant", "null", "small"})
_EDGES += [(1 << 63) - 1, -(1 << 63)]


def pages(rng: Random, folder: Path) -> None:
    path = folder / "pages.sqlite"
    path.unlink(missing_ok=True)
    fields, plain = _written(rng, path)
    damaged = rng.random() < 0.7
    if damaged:
        path.write_bytes(hostile.damaged(rng, path.read_bytes(), block=rng.choice([1, 1, 8, 512])))
    try:
        found = from_pages(path, fields)
    except (NotPlainError, sqlite3.Error, UnicodeError):
        assert damaged or not plain, "a plain table was not read"
        return
    assert found.rows() == from_rows(path, fields), "other values than SQLite's"


def from_pages(path: Path, fields: Mapping[str, int]) -> pl.DataFrame:
    """The table ``t`` as the reader of pages finds it."""
    with closing(_opened(path)) as connection:
        connection.execute(f"SELECT {', '.join(fields)} FROM t LIMIT 0")  # the columns may have lost their names
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 't'").fetchone() or (0,)
    with PageFile(path) as file:
        return pl.concat([file.rows(leaves, fields) for leaves in file.pieces(root)])


def from_rows(path: Path, fields: Mapping[str, int]) -> list[tuple[Any, ...]] | None:
    """The same as SQLite finds it; None where it cannot be read."""
    with closing(_opened(path)) as connection:
        try:
            return connection.execute(f"SELECT {', '.join(fields)} FROM t NOT INDEXED").fetchall()
        except (sqlite3.Error, UnicodeError):
            return None


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)


def _written(rng: Random, path: Path) -> tuple[dict[str, int], bool]:
    """A database with a table ``t``; the fields that are to be read, and whether a reader of pages must manage."""
    width = rng.randrange(1, 40)
    wanted = sorted(rng.sample(range(width), rng.randint(1, width)))
    kinds = [_kind(rng, wanted=field in wanted) for field in range(width)]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size = {rng.choice([512, 1024, 4096, 4096, 65536])}")
        connection.execute(f"CREATE TABLE t ({', '.join(f'c{field}' for field in range(width))})")
        connection.execute("CREATE TABLE other (c0)")
        rows = [[_value(rng, kind) for kind in kinds] for _ in range(rng.choice([1, 5, 300, 3_000]))]
        ids = sorted(rng.sample(range(-5, 1 << rng.choice([15, 30, 50])), len(rows)))
        if rng.random() < 0.7 or ids[0] < 0 or ids[-1] > 1 << 40:
            ids = list(range(1, len(rows) + 1))
        insert = f"INSERT INTO t (rowid, {', '.join(f'c{field}' for field in range(width))}) VALUES ({'?, ' * width}?)"
        for row_id, row in zip(ids, rows, strict=True):
            connection.execute(insert, [row_id, *row])
            if rng.random() < 0.02:  # so that the pages of a table do not stand side by side
                connection.executemany("INSERT INTO other VALUES (?)", [["x" * 90]] * 20)
        if rng.random() < 0.2:
            connection.execute("DELETE FROM t WHERE rowid % 3 = 0")
        connection.commit()
    plain = _WHOLE.issuperset(kinds[: wanted[-1] + 1]) and "long" not in kinds  # that may go on in other pages
    return {f"c{field}": field for field in wanted}, plain


def _kind(rng: Random, *, wanted: bool) -> str:
    whole = sorted(_WHOLE)
    return rng.choice(whole if wanted and rng.random() < 0.99 else [*whole, "text", "long", "real"])


def _value(rng: Random, kind: str) -> Any:
    return {
        "one": lambda: rng.getrandbits(rng.choice([3, 20, 40])),
        "edge": lambda: rng.choice(_EDGES),
        "constant": lambda: 7,
        "null": lambda: rng.choice([None, 0, 1, 300]),
        "small": lambda: rng.choice([0, 1]),
        "text": lambda: "x" * rng.randrange(20),
        "long": lambda: "x" * rng.choice([100, 5_000]),
        "real": lambda: rng.choice([0.5, 1e300, 3]),
    }[kind]()
