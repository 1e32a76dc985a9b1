"""The history: runs with their metrics and steps, tags, trends; one SQLite file that many processes may write."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sqlite_utils import Database

from nsyskit.errors import NsyskitError, UsageError
from nsyskit.history.migrations import MIGRATIONS
from nsyskit.jsontext import json_object

_BUSY_S: Final = 60.0
_WAL_TRIES: Final = 200
_LONGEST_NUMBER: Final = 19


class HistoryError(NsyskitError):
    """The history cannot be read or written: no SQLite file, written by a newer nsyskit, the disk is full."""

    exit_code = 6


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as it is kept.

    Attributes:
        id: its number; 0 before it was added.
        added: when, in UTC, ``2026-01-31T12:00:00Z``.
        facts: everything else about it, as JSON knows it.
        metrics: path -> value and unit.
        steps: phase -> its steps as Parquet.
    """

    name: str
    added: str
    build: str | None = None
    model: str | None = None
    gpu: str | None = None
    nsys: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    steps: Mapping[str, bytes] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    id: int = 0


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """One run's value of a metric."""

    run: int
    name: str
    added: str
    build: str | None
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a sweep: ``state`` is ``done`` or ``failed``; ``results`` are its measurements."""

    sweep: str
    key: str
    settings: Mapping[str, Any]
    state: str
    added: str
    error: str | None = None
    trace: str | None = None
    results: tuple[Mapping[str, Any], ...] = ()


_TABLES: Final = frozenset({"runs", "metrics", "steps", "tags", "cells", "results"})
_MEASURED: Final = (
    "tokens_per_s", "stddev", "samples", "n_prompt", "n_gen", "n_depth", "ttft_ms", "ttft_stddev_ms", "model_size",
    "model_n_params", "vram_bytes", "kv_bytes", "ppl",
)  # fmt: skip
_RESULT_COLUMNS: Final = (
    "label", "phase", "tokens_per_s", "stddev", "samples", "n_prompt", "n_gen", "n_depth",
)  # fmt: skip


class History:
    """An open history. Every write is one transaction; use it as a context manager.

    Raises:
        HistoryError: the file is no history, is newer than this nsyskit, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            self.database = Database(connection)
            self._check_kind()
            self._use_wal()
            self._migrate()
        except (OSError, sqlite3.Error) as error:
            raise HistoryError(
                f"{path} cannot be used as history: {error}", hint="name another file with --db"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.conn.close()

    def add(self, run: StoredRun) -> int:
        """Keep a run; returns its number."""
        with self._writing() as connection:
            cursor = connection.execute(
                "INSERT INTO runs (name, added, build, model, gpu, nsys, facts) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (run.name, run.added, run.build, run.model, run.gpu, run.nsys, json.dumps(run.facts, sort_keys=True)),
            )
            number = int(cursor.lastrowid or 0)
            rows = [(number, name, value, unit) for name, (value, unit) in run.metrics.items()]
            connection.executemany("INSERT INTO metrics (run, name, value, unit) VALUES (?, ?, ?, ?)", rows)
            connection.executemany(
                "INSERT INTO steps VALUES (?, ?, ?)", [(number, *item) for item in run.steps.items()]
            )
            connection.executemany("INSERT INTO tags VALUES (?, ?)", [(tag, number) for tag in run.tags])
        return number

    def tag(self, tag: str, runs: Sequence[int], *, move: bool = False) -> None:
        """Give runs a tag; ``move`` takes it from all others first.

        Raises:
            UsageError: there is no such run.
        """
        with self._writing() as connection:
            for run in runs:
                if run >= 2**63 or connection.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone() is None:
                    raise UsageError(f"the history has no run {run}", hint="`nsyskit history list` shows its runs")
            if move:
                connection.execute("DELETE FROM tags WHERE tag = ?", (tag,))
            connection.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", [(tag, run) for run in runs])

    def runs(self, *, tag: str | None = None, limit: int | None = None) -> list[StoredRun]:
        """Runs without metrics and steps, newest last; of a tag, or all."""
        where = "WHERE id IN (SELECT run FROM tags WHERE tag = :tag)" if tag is not None else ""
        newest = "LIMIT :limit" if limit is not None else ""
        query = f"SELECT * FROM runs {where} ORDER BY id DESC {newest}"
        given = {name: value for name, value in (("tag", tag), ("limit", limit)) if value is not None}
        return [self._run(row) for row in reversed(self._rows(query, given))]

    def run(self, named: str) -> StoredRun:
        """One run with everything, by its number, or the newest of a tag.

        Raises:
            UsageError: there is no such run.
        """
        found = self.resolve(named)
        return self.whole(found[-1].id)

    def resolve(self, named: str) -> list[StoredRun]:
        """The runs of a tag, or the one of a number.

        Raises:
            UsageError: neither is there.
        """
        found = self.runs(tag=named)
        if not found and named.isascii() and named.isdigit() and len(named) < _LONGEST_NUMBER:
            found = [self._run(row) for row in self._rows("SELECT * FROM runs WHERE id = ?", [int(named)])]
        if not found:
            raise UsageError(
                f"the history {self.path} has no run or tag {named!r}", hint="`nsyskit history list` shows its runs"
            )
        return found

    def whole(self, number: int) -> StoredRun:
        """A run with metrics and steps."""
        (row,) = self._rows("SELECT * FROM runs WHERE id = ?", [number])
        metrics = self._rows("SELECT name, value, unit FROM metrics WHERE run = ? ORDER BY name", [number])
        steps = self._rows("SELECT phase, parquet FROM steps WHERE run = ? ORDER BY phase", [number])
        with self._sound():
            return self._run(
                row,
                metrics={_text(one["name"]): (_number(one["value"]), _text(one["unit"])) for one in metrics},
                steps={_text(one["phase"]): _blob(one["parquet"]) for one in steps},
            )

    def metric_names(self) -> list[str]:
        with self._sound():
            return [_text(row["name"]) for row in self._rows("SELECT DISTINCT name FROM metrics ORDER BY name")]

    def trend(
        self, metric: str, *, tag: str | None = None, model: str | None = None, gpu: str | None = None
    ) -> list[TrendPoint]:
        """A metric's value in every run that has it, oldest first.

        Raises:
            UsageError: no run has it.
        """
        filters = {"tag": tag, "model": model, "gpu": gpu}
        query = (
            "SELECT runs.id, runs.name, added, build, value, unit FROM metrics JOIN runs ON runs.id = metrics.run "
            "WHERE metrics.name = :metric AND (:tag IS NULL OR runs.id IN (SELECT run FROM tags WHERE tag = :tag)) "
            "AND (:model IS NULL OR model = :model) AND (:gpu IS NULL OR gpu = :gpu) ORDER BY runs.id"
        )
        rows = self._rows(query, {"metric": metric, **filters})
        if not rows:
            names = ", ".join(name for name in self.metric_names() if name.count(".") == 1) or "none yet"
            raise UsageError(f"no such run has a metric {metric!r}", hint=f"among those kept are: {names}")
        with self._sound():
            return [
                TrendPoint(
                    row["id"], _text(row["name"]), _text(row["added"]), _text_or_none(row["build"]),
                    _number(row["value"]), _text(row["unit"]),
                )
                for row in rows
            ]  # fmt: skip

    def put_cell(self, cell: Cell) -> None:
        """Keep a cell of a sweep; one of the same key is replaced."""
        with self._writing() as connection:
            connection.execute("DELETE FROM cells WHERE sweep = ? AND key = ?", (cell.sweep, cell.key))
            cursor = connection.execute(
                "INSERT INTO cells (sweep, key, settings, state, error, trace, added) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    cell.sweep,
                    cell.key,
                    json.dumps(cell.settings),
                    cell.state,
                    cell.error,
                    cell.trace,
                    cell.added,
                ),
            )
            for result in cell.results:
                rest = {name: value for name, value in result.items() if name not in _RESULT_COLUMNS}
                values = [result.get(name) for name in _RESULT_COLUMNS]
                connection.execute(
                    f"INSERT OR REPLACE INTO results (cell, {', '.join(_RESULT_COLUMNS)}, facts) "
                    f"VALUES (?, {', '.join('?' for _ in _RESULT_COLUMNS)}, ?)",
                    (cursor.lastrowid, *values, json.dumps(rest, sort_keys=True)),
                )

    def cells(self, sweep: str) -> list[Cell]:
        """The cells of a sweep, in the order they were kept."""
        return [
            self._cell(sweep, row) for row in self._rows("SELECT * FROM cells WHERE sweep = ? ORDER BY id", [sweep])
        ]

    def _cell(self, sweep: str, row: Mapping[str, Any]) -> Cell:
        with self._sound():
            measured = self._rows("SELECT * FROM results WHERE cell = ? ORDER BY rowid", [row["id"]])
            return Cell(
                sweep, _text(row["key"]), _settings(row["settings"]), _text(row["state"]), _text(row["added"]),
                _text_or_none(row["error"]), _text_or_none(row["trace"]), tuple(map(_result, measured)),
            )  # fmt: skip

    def _rows(self, query: str, given: Sequence[object] | Mapping[str, object] = ()) -> list[dict[str, Any]]:
        try:
            return list(self.database.query(query, given or None))  # type: ignore[arg-type]  # it takes both
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """What was stored is not what nsyskit stores: SQLite lets a column hold anything."""
        try:
            yield
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> HistoryError:
        return HistoryError(f"{self.path} is damaged: {error}", hint="restore it, or name another file with --db")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, whole or not at all; waits for other writers."""
        connection = self.database.conn
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise HistoryError(f"cannot write {self.path}: {error}", hint="free space or name another --db") from error

    def _check_kind(self) -> None:
        """Leave other programs' databases alone, traces among them; what runs by itself has no place in a history.

        Raises:
            HistoryError: the file is no history, or is newer than this nsyskit.
        """
        if self._version() > len(MIGRATIONS):
            raise HistoryError(
                f"{self.path} was written by a newer nsyskit", hint="upgrade nsyskit or name another --db"
            )
        listed = "SELECT CAST(name AS BLOB) AS name, type FROM sqlite_master WHERE type != 'index'"
        kinds = {row["name"].decode(errors="replace"): row["type"] for row in self._rows(listed)}
        foreign = bool(kinds) if not self._version() else "runs" not in kinds
        if foreign or "trigger" in kinds.values() or "view" in {kinds.get(name) for name in _TABLES}:
            raise HistoryError(f"{self.path} is no history of nsyskit", hint="name another file with --db")

    def _use_wal(self) -> None:
        """Readers beside a writer. Switching does not wait for others by itself."""
        for left in reversed(range(_WAL_TRIES)):
            try:
                if self.database.conn.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal":
                    return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or not left:
                    raise
            time.sleep(0.05)

    def _migrate(self) -> None:
        if self._version() == len(MIGRATIONS):
            return
        with self._writing() as connection:
            for at in range(self._version(), len(MIGRATIONS)):  # another process may have done it meanwhile
                for statement in MIGRATIONS[at]:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _version(self) -> int:
        return int(self.database.conn.execute("PRAGMA user_version").fetchone()[0])

    def _run(
        self,
        row: Mapping[str, Any],
        *,
        metrics: Mapping[str, tuple[float, str]] | None = None,
        steps: Mapping[str, bytes] | None = None,
    ) -> StoredRun:
        with self._sound():
            tags = self._rows("SELECT tag FROM tags WHERE run = ? ORDER BY tag", [row["id"]])
            texts = {name: _text_or_none(row[name]) for name in ("build", "model", "gpu", "nsys")}
            return StoredRun(
                name=_text(row["name"]), added=_text(row["added"]), **texts, facts=_facts(row["facts"]),
                metrics=metrics or {}, steps=steps or {}, tags=tuple(_text(one["tag"]) for one in tags), id=row["id"],
            )  # fmt: skip


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a name in it is no text")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _number(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("a value in it is no number")
    return value


def _blob(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("the steps in it are no bytes")
    return value


def _facts(text: object) -> dict[str, Any]:
    facts = json_object(_text(text))
    if not isinstance(facts.get("setup", {}), dict):
        raise TypeError("the facts in it have another shape")
    return facts


def _settings(text: object) -> dict[str, Any]:
    settings = json_object(_text(text))
    if any(isinstance(value, list | dict) for value in settings.values()):
        raise TypeError("the settings in it have another shape")
    return settings


def _result(row: Mapping[str, Any]) -> dict[str, Any]:
    """A measurement with its further facts."""
    kept = {name: value for name, value in row.items() if name not in {"cell", "facts"}}
    found = kept | json_object(_text(row["facts"]))
    _text(found["label"])
    _text_or_none(found["phase"])
    for name in _MEASURED:
        if found.get(name) is not None:
            _number(found[name])
    return found


def default_path() -> Path:
    """``history.sqlite`` in the user's data directory."""
    from platformdirs import user_data_dir  # noqa: PLC0415  only where nobody names a file

    return Path(user_data_dir("nsyskit")) / "history.sqlite"
