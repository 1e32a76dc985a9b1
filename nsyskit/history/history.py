"""The history: runs with their metrics and steps, tags, trends; one SQLite file that many processes may write."""

from __future__ import annotations

import json
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

_BUSY_S: Final = 60.0
_WAL_TRIES: Final = 200


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
            self.database = Database(connection)
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
                if connection.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone() is None:
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
        rows = list(self.database.query(query, given))
        return [self._run(row) for row in reversed(rows)]

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
        if not found and named.isdigit():
            found = [self._run(row) for row in self.database.query("SELECT * FROM runs WHERE id = ?", [int(named)])]
        if not found:
            raise UsageError(
                f"the history {self.path} has no run or tag {named!r}", hint="`nsyskit history list` shows its runs"
            )
        return found

    def whole(self, number: int) -> StoredRun:
        """A run with metrics and steps."""
        row = next(iter(self.database.query("SELECT * FROM runs WHERE id = ?", [number])))
        metrics = self.database.query("SELECT name, value, unit FROM metrics WHERE run = ? ORDER BY name", [number])
        steps = self.database.query("SELECT phase, parquet FROM steps WHERE run = ? ORDER BY phase", [number])
        return self._run(
            row,
            metrics={item["name"]: (item["value"], item["unit"]) for item in metrics},
            steps={item["phase"]: item["parquet"] for item in steps},
        )

    def metric_names(self) -> list[str]:
        return [row["name"] for row in self.database.query("SELECT DISTINCT name FROM metrics ORDER BY name")]

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
        rows = list(self.database.query(query, {"metric": metric, **filters}))
        if not rows:
            names = ", ".join(name for name in self.metric_names() if name.count(".") == 1) or "none yet"
            raise UsageError(f"no such run has a metric {metric!r}", hint=f"among those kept are: {names}")
        return [
            TrendPoint(row["id"], row["name"], row["added"], row["build"], row["value"], row["unit"]) for row in rows
        ]

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
        found = []
        for row in list(self.database.query("SELECT * FROM cells WHERE sweep = ? ORDER BY id", [sweep])):
            results = [
                {name: value for name, value in one.items() if name not in {"cell", "facts"}} | json.loads(one["facts"])
                for one in self.database.query("SELECT * FROM results WHERE cell = ? ORDER BY rowid", [row["id"]])
            ]
            settings = json.loads(row["settings"])
            found.append(
                Cell(
                    sweep, row["key"], settings, row["state"], row["added"], row["error"], row["trace"], tuple(results)
                )
            )
        return found

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
        version = self._version()
        if version > len(MIGRATIONS):
            raise HistoryError(
                f"{self.path} was written by a newer nsyskit", hint="upgrade nsyskit or name another --db"
            )
        if version == len(MIGRATIONS):
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
        tags = [
            one["tag"] for one in self.database.query("SELECT tag FROM tags WHERE run = ? ORDER BY tag", [row["id"]])
        ]
        return StoredRun(
            name=row["name"], added=row["added"], build=row["build"], model=row["model"], gpu=row["gpu"],
            nsys=row["nsys"], facts=json.loads(row["facts"]), metrics=metrics or {}, steps=steps or {},
            tags=tuple(tags), id=row["id"],
        )  # fmt: skip


def default_path() -> Path:
    """``history.sqlite`` in the user's data directory."""
    from platformdirs import user_data_dir  # noqa: PLC0415  only where nobody names a file

    return Path(user_data_dir("nsyskit")) / "history.sqlite"
