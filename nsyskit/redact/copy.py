"""``redact``: the rebuilt file. A fresh database is filled table by table, so that no page of it ever held more."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from nsyskit import nsys_schema as nsys
from nsyskit.errors import OutputError, TraceFormatError, UsageError
from nsyskit.ingest.sqlite import SqliteSource
from nsyskit.redact.facts import FactCleaner, is_environment, learn, variables
from nsyskit.redact.words import CLASSES, HIDDEN, Known, Scrubber
from nsyskit.runfolder import is_run_folder, load_run

_STRINGS: Final = nsys.TABLE_OF["strings"]
_MAYBE_STRING = re.compile(r"(?i)(?:name|text|symbol|module|file|path|label|title|message|string)(?:Id)?$")
_TYPE = re.compile(r"[A-Za-z ]{0,24}")
_REP_SUFFIXES: Final = frozenset({".nsys-rep", ".qdrep", ".qdstrm"})
_ROLES: Final = ("name", "thread", "path", "output", "other")
"""How a string is used, the use that changes least first."""

Clean = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Redaction:
    """What was done.

    Attributes:
        removed: class -> finds that were taken out; classes without any are absent.
        kept: the classes that stayed by request.
        rep_files: rep files in the same folders, which still hold everything.
    """

    removed: Mapping[str, int]
    kept: tuple[str, ...]
    rep_files: tuple[Path, ...]


def redact(path: Path, target: Path, *, keep: Collection[str] = ()) -> Redaction:
    """Write a copy of an SQLite export without what names a machine and its people. An existing target is replaced.

    Rows of events are the same, number by number; names of kernels, API calls, symbols and NVTX ranges stay.

    Raises:
        UsageError: the trace is no SQLite file, or ``keep`` names no class.
        TraceFormatError: it is damaged.
        OutputError: the copy cannot be written.
    """
    source = _source(path, keep)
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".nsyskit-", dir=target.absolute().parent))
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}", hint="check the place") from error
    try:
        with _opened(source, scratch / "clean.sqlite") as connection:
            counts = _Copy(connection, keep).write()
        (scratch / "clean.sqlite").replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}", hint="check the place") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Redaction(counts, tuple(sorted(keep)), _rep_files(source, target))


def find_secrets(path: Path) -> dict[str, int]:
    """Count what ``redact`` would take out, by class, without writing anything.

    Raises:
        UsageError, TraceFormatError: as ``redact``.
    """
    with _opened(_source(path, ()), None) as connection:
        return _Copy(connection, ()).count()


def _source(path: Path, keep: Collection[str]) -> Path:
    unknown = sorted(set(keep) - CLASSES.keys())
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no class of secrets", hint=f"there are {', '.join(CLASSES)}")
    if path.suffix in _REP_SUFFIXES:
        raise UsageError(
            f"{path.name} cannot be cleaned: nsys alone can write its format, and it holds whole environments",
            hint=f"export it with `nsyskit export {path.name}`, redact the .sqlite, and share only that",
        )
    if path.is_dir():
        if not is_run_folder(path):
            raise UsageError(
                f"{path.name} is a directory", hint="redact an SQLite export, as `nsyskit export` writes it"
            )
        return _source(load_run(path).trace, keep)
    _check(path)
    return path


def _check(path: Path) -> None:
    try:
        if not path.is_file():
            raise TraceFormatError(f"{path} does not exist", hint="check the path")
        SqliteSource(path)
    except OSError as error:
        raise TraceFormatError(f"{path.name} cannot be read: {error.strerror}", hint="check its rights") from error


@contextmanager
def _opened(source: Path, target: Path | None) -> Iterator[sqlite3.Connection]:
    """The new file with the old one attached as ``old``, which SQLite cannot change."""
    uri = "file::memory:" if target is None else f"file:{quote(os.fsencode(target.resolve()))}"
    try:
        with closing(sqlite3.connect(uri, isolation_level=None, uri=True)) as opened:
            opened.text_factory = lambda stored: stored.decode(errors="replace")
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=MEMORY", "trusted_schema=OFF"):
                opened.execute(f"PRAGMA {pragma}")
            opened.execute("ATTACH ? AS old", (f"file:{quote(os.fsencode(source.resolve()))}?mode=ro&immutable=1",))
            yield opened
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN}:
            raise OutputError("the clean copy cannot be written", hint="check the place and its free space") from error
        raise TraceFormatError(f"{source.name} cannot be read ({error})", hint="export the report again") from error


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    type: str
    needed: bool
    key: int

    @property
    def quoted(self) -> str:
        return _quoted(self.name)

    @property
    def declared(self) -> str:
        kind = self.type if _TYPE.fullmatch(self.type) else ""
        return f"{self.quoted} {kind}{' NOT NULL' if self.needed else ''}"


class _Copy:
    """One pass over all tables with one scrubber."""

    def __init__(self, connection: sqlite3.Connection, keep: Collection[str]) -> None:
        self._connection = connection
        self._tables = self._read_tables()
        self._roles = self._string_roles()
        self._scrubber = Scrubber(self._learn(), keep=keep)
        self._facts = FactCleaner(self._scrubber)
        self._string_cleaners: dict[str, Clean] = {
            "name": self._scrubber.name, "thread": self._text, "path": self._scrubber.file_name,
            "output": self._output, "other": self._text,
        }  # fmt: skip
        cleaners = {
            "text": self._text, "path": self._scrubber.file_name, "output": self._output,
            "message": self._facts.message,
        }  # fmt: skip
        for name, clean in cleaners.items():
            connection.create_function(f"clean_{name}", 2, _stored(clean))

    def write(self) -> dict[str, int]:
        """Fill the new file."""
        self._connection.execute("BEGIN")
        for table, columns in self._tables.items():
            keys = [column.quoted for column in sorted(columns, key=lambda column: column.key) if column.key]
            declared = [column.declared for column in columns] + ([f"PRIMARY KEY ({', '.join(keys)})"] if keys else [])
            self._connection.execute(f"CREATE TABLE main.{_quoted(table)} ({', '.join(declared)})")
            insert = f"INSERT INTO main.{_quoted(table)}"
            rows = self._pairs(table, columns)
            if rows is None:
                self._connection.execute(f"{insert} {self._select(table, columns)}")
            else:
                marks = ", ".join("?" * len(columns))
                self._connection.executemany(f"{insert} VALUES ({marks})", rows)
        self._connection.execute("COMMIT")
        return self._counts()

    def count(self) -> dict[str, int]:
        """Clean everything and keep nothing."""
        for table, columns in self._tables.items():
            rows = self._pairs(table, columns)
            if rows is None:
                rows = self._connection.execute(self._select(table, columns, counted=True))
            for _ in rows:
                pass
        return self._counts()

    def _counts(self) -> dict[str, int]:
        return {name: count for name in CLASSES if (count := self._scrubber.counts[name])}

    def _select(self, table: str, columns: list[_Column], *, counted: bool = False) -> str:
        cleaned = [_cleaned(table, column) for column in columns]
        return f"SELECT {', '.join(f'count({one})' if counted else one for one in cleaned)} FROM old.{_quoted(table)}"

    def _pairs(self, table: str, columns: list[_Column]) -> Iterator[tuple[Any, ...]] | None:
        """The rows of tables that are judged row by row; None for others."""
        names = [column.name for column in columns]
        if table == _STRINGS and {"id", "value"} <= set(names):
            return self._string_rows(names)
        if table in nsys.FACT_TABLES and {"name", "value"} <= set(names):
            return self._fact_rows(table, names)
        return None

    def _string_rows(self, names: list[str]) -> Iterator[tuple[Any, ...]]:
        for row in self._rows(_STRINGS, names):
            cleaned = self._string(row["id"], str(row["value"]))
            if cleaned is not None:
                yield tuple((row | {"value": cleaned})[name] for name in names)

    def _string(self, number: Any, value: str) -> str | None:
        """The string to write, None when it is to go."""
        role = self._roles.get(number)
        if role != "name" and is_environment(value) and ("\0" in value or role is None):
            kept = not self._scrubber.found("environment")
            return self._text(value) if kept else None if role is None else ""
        if role is None:
            return None if self._scrubber.found("other") else self._text(value)
        return self._string_cleaners[role](value)

    def _fact_rows(self, table: str, names: list[str]) -> Iterator[tuple[Any, ...]]:
        for row in self._rows(table, names):
            cleaned = {name: self._text(value) if isinstance(value, str) else value for name, value in row.items()}
            cleaned["name"] = row["name"]
            if isinstance(row["value"], str):
                cleaned["value"] = self._facts.value(str(row["name"]), row["value"])
            yield tuple(cleaned[name] for name in names)

    def _rows(self, table: str, names: list[str]) -> Iterator[dict[str, Any]]:
        """Rows in file order, all text as text."""
        selected = ", ".join(
            f"CASE WHEN typeof({_quoted(name)}) IN ('text', 'blob') THEN CAST({_quoted(name)} AS BLOB) "
            f"ELSE {_quoted(name)} END" for name in names
        )  # fmt: skip
        for row in self._connection.execute(f"SELECT {selected} FROM old.{_quoted(table)}"):
            yield {
                name: value.decode(errors="replace") if isinstance(value, bytes) else value
                for name, value in zip(names, row, strict=True)
            }

    def _text(self, text: str) -> str:
        if is_environment(text) and "\0" in text:
            return self._facts.environment(text)
        return self._scrubber.text(text)

    def _output(self, text: str) -> str:
        return "" if text and self._scrubber.found("output") else self._text(text)

    def _read_tables(self) -> dict[str, list[_Column]]:
        names = self._connection.execute(
            "SELECT name FROM old.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
            "AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY rowid"
        ).fetchall()
        found = {
            str(name): [
                _Column(str(column), str(kind or ""), bool(needed), int(key))
                for column, kind, needed, key in self._connection.execute(
                    'SELECT name, type, "notnull", pk FROM pragma_table_info(?, ?) ORDER BY cid', (name, "old")
                )
            ]
            for (name,) in names
        }
        return {name: columns for name, columns in found.items() if columns}

    def _string_roles(self) -> dict[int, str]:
        """How each string is used; one that nothing uses is absent."""
        roles: dict[int, str] = {}
        uses = [
            (_ROLES.index(role), table, column.quoted)
            for table, columns in self._tables.items()
            for column in columns
            if (role := self._role(table, column.name)) is not None
        ]
        for rank, table, column in sorted(uses):
            query = f"SELECT DISTINCT {column} FROM old.{_quoted(table)} WHERE typeof({column}) = 'integer'"
            for (number,) in self._connection.execute(query):
                roles.setdefault(number, _ROLES[rank])
        return roles

    def _role(self, table: str, column: str) -> str | None:
        if table == _STRINGS or table in nsys.FACT_TABLES or table.startswith(("ENUM_", "TARGET_INFO_")):
            return None
        if column in nsys.STRING_OUTPUT:
            return "output"
        if column in nsys.STRING_PATHS:
            return "path"
        if column in nsys.STRING_NAMES:
            return "thread" if table == nsys.TABLE_OF["thread_names"] else "name"
        return "other" if _MAYBE_STRING.search(column) or column in self._declared_references(table) else None

    def _declared_references(self, table: str) -> frozenset[str]:
        """Columns whose comment in the file's own DDL says that they refer to strings."""
        query = "SELECT sql FROM old.sqlite_master WHERE type = 'table' AND name = ?"
        ((sql,),) = self._connection.execute(query, (table,)).fetchall()
        lines = (line.split() for line in str(sql).splitlines() if nsys.STRING_REFERENCE in line)
        return frozenset(words[0].strip('"') for words in lines if words)

    def _learn(self) -> Known:
        known = Known()
        facts = []
        for table, columns in self._tables.items():
            names = [column.name for column in columns]
            if table in nsys.FACT_TABLES and {"name", "value"} <= set(names):
                facts += [(str(row["name"]), str(row["value"] or "")) for row in self._rows(table, names)]
            elif table == _STRINGS and {"id", "value"} <= set(names):
                self._learn_strings(known)
            elif table == nsys.PROCESSES:
                for row in self._rows(table, names):
                    known.learn_owners(str(row.get("name")))
        learn(facts, known)
        return known

    def _learn_strings(self, known: Known) -> None:
        for row in self._rows(_STRINGS, ["id", "value"]):
            text = str(row["value"])
            known.learn_owners(text)
            if is_environment(text) and self._roles.get(row["id"]) != "name":
                for name, value in variables(text):
                    known.learn_variable(name, value)


def _cleaned(table: str, column: _Column) -> str:
    """The SQL of a column's value without secrets; numbers are not touched."""
    where, name = (table, column.name), column.quoted
    if where in nsys.USER_TEXT_COLUMNS:
        return name
    kinds = {"output": nsys.OUTPUT_COLUMNS, "path": nsys.PATH_COLUMNS, "message": nsys.MESSAGE_COLUMNS}
    kind = next((kind for kind, columns in kinds.items() if where in columns), "text")
    return (
        f"CASE WHEN typeof({name}) IN ('text', 'blob') "
        f"THEN clean_{kind}(CAST({name} AS BLOB), typeof({name}) = 'blob') ELSE {name} END"
    )


def _stored(clean: Clean) -> Callable[[bytes, int], str | bytes]:
    """A cleaner of SQLite's values: text travels as bytes, since it need not be UTF-8."""

    def run(value: bytes, is_blob: int) -> str | bytes:
        text = value.decode(errors="replace")
        cleaned = clean(text)
        if is_blob:
            return value if cleaned == text else HIDDEN.encode()
        return cleaned

    return run


def _rep_files(source: Path, target: Path) -> tuple[Path, ...]:
    folders = {source.absolute().parent, target.absolute().parent}
    return tuple(sorted(file for folder in folders for file in folder.iterdir() if file.suffix in _REP_SUFFIXES))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
