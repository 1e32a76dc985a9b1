"""Targets that are traces: SQLite by its bytes, SQLite by its rows and tables, Parquet directories."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from io import StringIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_trace import (
    Row,
    api,
    awaited,
    cuda_device,
    diagnostic,
    exporter,
    fact,
    global_tid,
    gpu,
    graph,
    kernel,
    memcpy,
    memset,
    nvtx,
    os_call,
    os_chain,
    overhead,
    process,
    sample,
    string,
    switch,
    thread_name,
    write_parquet,
    write_sqlite,
)

from nsyskit.analysis.analyze import CHOICES, analyze
from nsyskit.analysis.timeline import timelines
from nsyskit.errors import MissingTableError, UsageError
from nsyskit.ingest import open_trace
from nsyskit.redact import redact
from nsyskit.report.csv import render_csv
from nsyskit.report.html import render_html
from nsyskit.report.info import render_info, render_info_json
from nsyskit.report.json import render_json
from nsyskit.report.markdown import render_markdown
from nsyskit.report.parquet import write_parquet as export_parquet
from nsyskit.report.text import render_text
from tests.fuzz.hostile import IMAGE, SCRIPT, damaged, number, text, value

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
_BENCH = json.dumps({"build_commit": "x", "n_prompt": 8, "n_gen": 0, "avg_ts": 5.0, "samples_ns": [5], "avg_ns": 5})


def rows() -> list[Row | list[Row]]:
    """A trace with rows in every table: two steps of a few kernels, copies, a graph, waits, threads, strings."""
    made: list[Row | list[Row]] = []
    for step in range(4):
        at = step * 100
        made += [
            api("cudaLaunchKernel_v7000", at, at + 3, corr=10 * step + 1),
            kernel(f"void mul_mat_q<(ggml_type){step}, (int)128>(char*)", at + 5, at + 13, corr=10 * step + 1),
            api("cudaMemcpyAsync_v3020", at + 14, at + 20, corr=10 * step + 2),
            memcpy("HtoD", at + 15, at + 19, corr=10 * step + 2), memset(at + 20, at + 21, corr=10 * step + 3),
            api("cudaGraphLaunch_v10000", at + 22, at + 30, corr=10 * step + 4),
            graph(at + 31, at + 40, corr=10 * step + 4, graphId=1, graphExecId=1),
            api("cudaStreamSynchronize_v3020", at + 31, at + 45, corr=10 * step + 5), awaited(10 * step + 5),
            memcpy("DtoH", at + 50, at + 52, 32_000 * 4, corr=10 * step + 6, dst="pageable"),
            api("cudaMemcpyAsync_v3020", at + 48, at + 60, corr=10 * step + 6),
            os_call("poll", at + 61, at + 90, chain=step + 1), os_chain(step + 1, "poll", "server_queue::worker_loop()"),
            kernel("k_other", at + 62, at + 70, corr=10 * step + 7, device=1, pid=20, node=5),
            api("cudaLaunchKernel", at + 61, at + 62, corr=10 * step + 7, pid=20, tid=21),
        ]  # fmt: skip
    return [
        *made, nvtx("range", 0, 40), nvtx(None, 1, None, style="StartEnd"), overhead("flush", 8, 9),
        sample(6, "ggml_backend_sched_graph_compute", number=1), switch(1, runs=True), thread_name("main"),
        process("llama-server"), process("other", pid=20), diagnostic("3 events dropped"), gpu(0, "RTX", ordinal=0),
        gpu(1, "RTX", ordinal=1), cuda_device(1, 0), *exporter(), fact("CAPTURE_EVENT_TYPE", "Cuda"),
        fact("PROCESS_0:COMMAND", "/x/llama-server"), fact("PROCESS_0:ARGUMENT_0", "-m"),
        Row("TARGET_INFO_SESSION_START_TIME", {"utcEpochNs": 5}), string(500, _BENCH), string(501, "x_stdout.log"),
        Row("ProcessStreams", {"globalPid": global_tid(10, 0), "filenameId": 501, "contentId": 500}),
    ]  # fmt: skip


@cache
def _template() -> bytes:
    """The trace as SQLite with small pages and without NOT NULL, so that damage reaches every kind of page."""
    with TemporaryDirectory() as folder:
        path = write_sqlite(Path(folder) / "t.sqlite", *rows())
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema=ON")
            connection.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '')")
            connection.execute("PRAGMA writable_schema=RESET")
            connection.execute("PRAGMA page_size=512")
            connection.execute("VACUUM")
        return path.read_bytes()


def sqlite_bytes(rng: Random, folder: Path) -> None:
    content = damaged(rng, _template())
    (folder / "t.sqlite").write_bytes(content)
    look(rng, folder / "t.sqlite")


def sqlite_rows(rng: Random, folder: Path) -> None:
    path = folder / "t.sqlite"
    path.write_bytes(_template())
    with closing(sqlite3.connect(path)) as connection:
        for _ in range(rng.choice((1, 1, 2, 3, 8))):
            change = rng.choice(_CHANGES)
            with suppress(sqlite3.Error, IndexError):  # a change may find nothing left to change
                change(rng, connection)
        connection.commit()
    look(rng, path)


def sqlite_many(rng: Random, folder: Path) -> None:
    """Names, rows and texts in great numbers; slower than the others, and run less."""
    path = folder / "t.sqlite"
    path.write_bytes(_template())
    with closing(sqlite3.connect(path)) as connection:
        for change in (_many, rng.choice(_CHANGES)):
            with suppress(sqlite3.Error, IndexError):
                change(rng, connection)
        connection.commit()
    look(rng, path)


def parquet(rng: Random, folder: Path) -> None:
    source = write_parquet(folder / "t", *_parquet_rows())
    files = sorted(source.iterdir())
    for _ in range(rng.choice((1, 1, 2, 4))):
        file = rng.choice(files)
        kind = rng.randrange(8)
        if kind <= 1 and file.is_file():
            file.write_bytes(damaged(rng, file.read_bytes()))
        elif kind == 2:
            file.unlink(missing_ok=True)
        else:
            with suppress(pl.exceptions.PolarsError, OSError, OverflowError, TypeError, ValueError):
                _changed_frame(rng, pl.read_parquet(file)).write_parquet(file)
    if rng.random() < 0.05:
        rng.choice(files).with_name("odd.parquet").mkdir(exist_ok=True)
    if rng.random() < 0.05:
        (source / "StringIds.parquet").unlink(missing_ok=True)
        (source / "StringIds.parquet").symlink_to("/etc/passwd")
    look(rng, source)


@cache
def _parquet_rows() -> tuple[Row | list[Row], ...]:
    return tuple(rows())


def _changed_frame(rng: Random, frame: pl.DataFrame) -> pl.DataFrame:
    column = rng.choice(frame.columns)
    kind = rng.randrange(7)
    if kind == 0:
        return frame.drop(column)
    if kind == 1:
        return frame.rename({column: text(rng, longest=1_000)})
    if kind == 2:
        return frame.head(0)
    if kind == 3:
        types = (pl.String, pl.Float64, pl.Boolean, pl.Date, pl.UInt64, pl.Int8, pl.Binary, pl.Categorical, pl.Null)
        return frame.with_columns(frame[column].cast(rng.choice(types), strict=False))
    if kind == 4:
        return pl.concat([frame, frame])
    if kind == 5:
        return frame.with_columns(pl.Series(column, [[1]] * frame.height))
    put = [number(rng) if frame[column].dtype != pl.String else text(rng) for _ in range(frame.height)]
    return frame.with_columns(pl.Series(column, put, dtype=frame[column].dtype, strict=False))


def look(rng: Random, path: Path) -> None:
    """What a person does with a trace: analyse it, render it somehow, clean it, export it."""
    opened = open_trace(path)
    only = rng.sample(sorted(CHOICES), rng.choice((1, 2, 4))) if rng.random() < 0.85 else []
    report = analyze(opened, only=only)
    kind = rng.randrange(12)
    if kind <= 3:
        json.loads(render_json(report), parse_constant=refuse_constant)
    elif kind <= 5:
        assert_printable(render_text(report, width=100, color=False))
    elif kind == 6:
        with suppress(UsageError):
            assert_no_formula(render_csv(report))
    elif kind == 7:
        try:
            drawn = timelines(opened, window=report.window) if rng.random() < 0.5 else None
        except MissingTableError:
            drawn = None
        assert_no_script(render_html(report, timelines=drawn, plotly="directory"))
    elif kind == 8:
        assert_no_script(outside_code(render_markdown(report)))
    elif kind == 9:
        assert_printable(render_info(opened.meta))
        json.loads(render_info_json(opened.meta), parse_constant=refuse_constant)
    elif kind == 10 and path.is_file():
        redact(path, path.with_name("clean.sqlite"))
    else:
        export_parquet(opened, path.with_name("exported"))


def refuse_constant(word: str) -> None:
    raise AssertionError(f"JSON holds {word}")


def outside_code(markdown: str) -> str:
    """Markdown without its code spans, in which nothing is markup."""
    return re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", markdown)


def assert_no_script(page: str) -> None:
    assert SCRIPT not in page
    assert IMAGE not in page
    assert "<svg/onload" not in page
    assert not _UNSEEN.search(page), _UNSEEN.search(page)


def assert_printable(printed: str) -> None:
    odd = {char for char in printed if not char.isprintable() and char != "\n"}
    assert not odd, odd


def assert_no_formula(table: str) -> None:
    csv.field_size_limit(1 << 30)
    for row in csv.reader(StringIO(table)):
        for cell in row:
            if cell.startswith(("=", "+", "@", "\t", "\r")):
                raise AssertionError(f"a formula in CSV: {cell[:60]!r}")


Change = Callable[[Random, sqlite3.Connection], None]


def _tables(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]


def _picked(rng: Random, connection: sqlite3.Connection) -> tuple[str, str]:
    table = rng.choice(_tables(connection))
    columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
    return table, rng.choice(columns)


def _set_cell(rng: Random, connection: sqlite3.Connection) -> None:
    table, column = _picked(rng, connection)
    where = f"rowid = {rng.randrange(1, 8)}" if rng.random() < 0.8 else "1"
    connection.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE {where}', (value(rng),))


def _set_time(rng: Random, connection: sqlite3.Connection) -> None:
    tables = [name for name in _tables(connection) if name.startswith(("CUPTI", "OSRT_API", "NVTX", "PROFILER"))]
    column, where = rng.choice(("start", "end")), f"rowid = {rng.randrange(1, 12)}" if rng.random() < 0.7 else "1"
    change = rng.choice(("?", f"{column} + ?", f"{column} * ?", "end - ?", "start - abs(?)"))
    connection.execute(f'UPDATE "{rng.choice(tables)}" SET {column} = {change} WHERE {where}', (number(rng),))


def _set_name(rng: Random, connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE StringIds SET value = ? WHERE rowid = ?", (text(rng), rng.randrange(1, 30)))


def _bad_utf8(rng: Random, connection: sqlite3.Connection) -> None:
    table, column = _picked(rng, connection)
    connection.execute(f'UPDATE "{table}" SET "{column}" = CAST(? AS TEXT)', (rng.randbytes(rng.randrange(1, 9)),))


def _delete(rng: Random, connection: sqlite3.Connection) -> None:
    table, _ = _picked(rng, connection)
    connection.execute(f'DELETE FROM "{table}" WHERE rowid % ? = 0', (rng.randrange(1, 4),))


def _double(rng: Random, connection: sqlite3.Connection) -> None:
    table, _ = _picked(rng, connection)
    connection.execute(f'INSERT INTO "{table}" SELECT * FROM "{table}"')


def _drop(rng: Random, connection: sqlite3.Connection) -> None:
    table, column = _picked(rng, connection)
    connection.execute(
        rng.choice((f'DROP TABLE "{table}"', f'ALTER TABLE "{table}" DROP COLUMN "{column}"',
                    f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "{column.upper()}_"',
                    f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "{column.upper()}"',
                    f'ALTER TABLE "{table}" ADD COLUMN "a""b;--" TEXT DEFAULT \'x\'',
                    f'ALTER TABLE "{table}" RENAME TO "{table.lower()}_"'))
    )  # fmt: skip


def _odd_table(rng: Random, connection: sqlite3.Connection) -> None:
    table, column = _picked(rng, connection)
    old = f'ALTER TABLE "{table}" RENAME TO old_table'
    new = rng.choice((
        f'CREATE VIEW "{table}" AS SELECT * FROM old_table', f'CREATE TABLE "{table}" AS SELECT *, 1 AS "{column}" FROM old_table',
        f'CREATE VIRTUAL TABLE "{table}" USING fts5({column})', f'CREATE TABLE "{table}" ("{column}" PRIMARY KEY) WITHOUT ROWID',
        f'CREATE TABLE "{table}" ("{column}" AS (1/0), a)', f'CREATE TABLE "{table}" (x)',
        f'CREATE VIEW "{table}" AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x AS "{column}" FROM c',
        f'CREATE TABLE "{table}" ("{column}" INTEGER DEFAULT (randomblob(9)))',
        f'CREATE TABLE "{table}" (rowid TEXT, _rowid_ TEXT, oid TEXT, "{column}")',
    ))  # fmt: skip
    connection.execute(old)
    connection.execute(new)
    with suppress(sqlite3.Error):
        connection.execute(f'INSERT INTO "{table}" ("{column}") VALUES (?)', (value(rng),))


def _many(rng: Random, connection: sqlite3.Connection) -> None:
    count = rng.choice((1_000, 1_000, 1_000, 20_000))
    connection.executemany(
        "INSERT INTO StringIds VALUES (?, ?)", [(10_000 + at, f"k{at}<{at}>") for at in range(count)]
    )
    connection.execute(
        "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, contextId, streamId, correlationId, globalPid, "
        "demangledName, shortName) SELECT id, id + 3, 0, 0, 7, id, ?, id, id FROM StringIds WHERE id >= 10000",
        (global_tid(10, 0),),
    )


def _many_of_a_kind(rng: Random, connection: sqlite3.Connection) -> None:
    """One column of every row takes many values: processes, devices, streams, threads, contexts."""
    table = rng.choice([name for name in _tables(connection) if name.startswith(("CUPTI", "OSRT_API"))])
    columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
    column = rng.choice([name for name in columns if name.endswith(("Id", "Pid", "Tid"))])
    scale = rng.choice((1, 1 << 24, 1 << 40, -1, 1 << 55))
    connection.execute(f'UPDATE "{table}" SET "{column}" = rowid * ?', (scale,))


_CHANGES: tuple[Change, ...] = (
    _set_cell, _set_cell, _set_cell, _set_time, _set_time, _set_time, _set_name, _set_name, _bad_utf8, _delete, _double,
    _drop, _odd_table, _many_of_a_kind, _many_of_a_kind,
)  # fmt: skip
