"""Pages of SQLite files: the same values as SQLite's own, or none at all."""

import sqlite3
from contextlib import closing

import polars as pl
import pytest

from nsyskit.errors import TraceFormatError
from nsyskit.ingest import sqlite as reader
from nsyskit.ingest.pages import NotPlainError, PageFile
from nsyskit.ingest.sqlite import SqliteSource

WHOLE = [0, 1, -1, 127, 128, -128, -129, 32_767, -32_769, 1 << 23, 1 << 31, -(1 << 31) - 1, 1 << 47]
WHOLE += [(1 << 63) - 1, -(1 << 63)]
WANTED = {"start": 0, "end": 1, "correlationId": 3}


def database(path, rows, *, columns="start, end, deviceId, correlationId", page_bytes=4_096, after=(), tail=""):
    """A file with the table ``CUPTI_ACTIVITY_KIND_KERNEL``."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size = {page_bytes}")
        connection.execute(f"CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL ({columns}){tail}")
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES ({marks})", rows)
        for statement in after:
            connection.execute(statement)
        connection.commit()
    return path


def read(path, fields=WANTED):
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master").fetchone()
    with PageFile(path) as file:
        return pl.concat([file.rows(leaves, fields) for leaves in file.pieces(root)])


@pytest.mark.parametrize("page_bytes", [512, 4_096, 65_536])
def test_whole_numbers_of_every_length(tmp_path, page_bytes):
    rows = [(value, -1 - value, 7, None if at % 5 else value) for at, value in enumerate(WHOLE * 100)]
    found = read(database(tmp_path / "t.sqlite", rows, page_bytes=page_bytes))
    assert found.schema == dict.fromkeys(WANTED, pl.Int64)
    assert found.rows() == [(start, end, last) for start, end, _, last in rows]


def test_row_ids_with_holes_and_tables_laid_out_among_each_other(tmp_path):
    rows = [(at, at * at, 0, 1) for at in range(5_000)]
    path = database(
        tmp_path / "t.sqlite", rows, page_bytes=1_024,
        after=["CREATE TABLE other AS SELECT * FROM CUPTI_ACTIVITY_KIND_KERNEL",
               "DELETE FROM CUPTI_ACTIVITY_KIND_KERNEL WHERE start % 7 = 3",
               "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET rowid = rowid + 1000000000 WHERE start > 4000",
               "INSERT INTO other SELECT * FROM CUPTI_ACTIVITY_KIND_KERNEL",
               "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL SELECT start + 5000, end, 0, 1 FROM other WHERE start < 4000"],
    )  # fmt: skip
    with closing(sqlite3.connect(path)) as connection:
        theirs = connection.execute("SELECT start, end, correlationId FROM CUPTI_ACTIVITY_KIND_KERNEL").fetchall()
    assert len(theirs) > 8_000
    assert read(path).rows() == theirs


def test_text_behind_what_is_wanted_and_within_it(tmp_path):
    rows = [(at, "x" * (at % 50), at + 1, "y" * 40) for at in range(300)]
    assert read(database(tmp_path / "t.sqlite", rows), {"end": 2, "start": 0}).rows() == [
        (at + 1, at) for at in range(300)
    ]


def test_a_table_without_rows(tmp_path):
    path = database(tmp_path / "t.sqlite", [(1, 2, 3, 4)], after=["DELETE FROM CUPTI_ACTIVITY_KIND_KERNEL"])
    assert read(path).rows() == []
    assert read(path).schema == dict.fromkeys(WANTED, pl.Int64)


@pytest.mark.parametrize(
    "options",
    [
        {"rows": [(1, 2, 0, 4), (1, 2.5, 0, 4)]},
        {"rows": [(1, 2, 0, 4), (1, "two", 0, 4)]},
        {"rows": [(1, 2, 0, 4), (1, "2" * 80, 0, 4)]},
        {"rows": [(1, 2, "x" * 5_000, 4)]},
        {"rows": [(1, 2, "x" * 100, 4)]},
        {"rows": [(1, 2, 0)], "columns": "start, end, deviceId", "after": [
            "ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL ADD COLUMN correlationId DEFAULT 9"]},
        {"rows": [(1, 2, 0, 4)], "tail": " WITHOUT ROWID",
         "columns": "start PRIMARY KEY, end, deviceId, correlationId"},
        {"rows": [(1, 2, 0, 4)], "after": ["UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET rowid = -1"]},
    ],
    ids=["fraction", "text", "long text", "overflow", "long text before", "added column", "no row ids", "negative id"],
)  # fmt: skip
def test_what_is_left_to_sqlite(tmp_path, options):
    with pytest.raises(NotPlainError):
        read(database(tmp_path / "t.sqlite", **options))


@pytest.mark.parametrize("cut", [50, 1_000, 4_096, 8_192])
def test_a_file_cut_off(tmp_path, cut):
    path = database(tmp_path / "t.sqlite", [(at, at, 0, at) for at in range(2_000)])
    with PageFile(path) as file:
        (leaves,) = file.pieces(2)
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(NotPlainError):
            file.rows(leaves, WANTED)
    with PageFile(path) as file, pytest.raises(NotPlainError):
        file.pieces(2)


def test_pages_that_lead_back_to_themselves_end(tmp_path):
    path = database(tmp_path / "t.sqlite", [(at, at, 0, at) for at in range(2_000)])
    content = bytearray(path.read_bytes())
    cells = int.from_bytes(content[4_096 + 3 : 4_096 + 5], "big")
    for at in range(cells):  # every page below the root is the root
        place = 4_096 + int.from_bytes(content[4_096 + 12 + 2 * at : 4_096 + 14 + 2 * at], "big")
        content[place : place + 4] = (2).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(NotPlainError):
        read(path)


@pytest.fixture
def every_table_is_large(monkeypatch):
    monkeypatch.setattr(reader, "_RANGE_ROWS", 0)


@pytest.fixture
def no_other_way(every_table_is_large, monkeypatch):
    def fetch(*_arguments: object) -> None:
        pytest.fail("SQLite was asked for rows")

    monkeypatch.setattr(SqliteSource, "_fetch", fetch)


def test_large_tables_are_read_from_their_pages(tmp_path, no_other_way):
    rows = [(at, at + 2, 0, None if at % 2 else at) for at in range(3_000)]
    source = SqliteSource(database(tmp_path / "t.sqlite", rows))
    columns = ["correlationId", "start"]
    found = source.read("CUPTI_ACTIVITY_KIND_KERNEL", columns, lambda rows: rows.filter(pl.col("start") > 9))
    assert found.rows() == [(last, start) for start, _, _, last in rows[10:]]
    assert source.row_count("CUPTI_ACTIVITY_KIND_KERNEL") == 3_000


def test_a_key_that_is_the_id_of_its_row(tmp_path, every_table_is_large):
    rows = [(at, at + 2, at + 5, 4) for at in range(300)]
    path = database(tmp_path / "t.sqlite", rows, columns="start INTEGER PRIMARY KEY, end, deviceId, correlationId")
    found = SqliteSource(path).read("CUPTI_ACTIVITY_KIND_KERNEL", ["start", "correlationId"])
    assert found.rows() == [(at, 4) for at in range(300)]


def test_columns_that_no_record_holds(tmp_path, every_table_is_large):
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start, sum AS (start + 5), end, deviceId, more)")
        rows = [(at, at + 2, 7, 8) for at in range(300)]
        connection.executemany(
            "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, more) VALUES (?, ?, ?, ?)", rows
        )
        connection.commit()
    found = SqliteSource(path).read("CUPTI_ACTIVITY_KIND_KERNEL", ["end", "sum", "start"])
    assert found.rows() == [(at + 2, at + 5, at) for at in range(300)]
    assert SqliteSource(path).read("CUPTI_ACTIVITY_KIND_KERNEL", ["end"]).rows() == [(at + 2,) for at in range(300)]


def test_damage_is_told_in_sqlites_words(tmp_path, every_table_is_large):
    path = database(tmp_path / "t.sqlite", [(at, at, 0, at) for at in range(2_000)])
    content = bytearray(path.read_bytes())
    content[3 * 4_096 : 4 * 4_096] = b"\xff" * 4_096
    path.write_bytes(content)
    with pytest.raises(TraceFormatError, match="malformed"):
        SqliteSource(path).read("CUPTI_ACTIVITY_KIND_KERNEL", ["start"])


def test_row_ids_further_apart_than_any_file_is_long(tmp_path, every_table_is_large):
    rows = [(at, at + 2, 0, at) for at in range(300)]
    far = "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET rowid = 4611686018427387904 WHERE rowid = 300"
    source = SqliteSource(database(tmp_path / "t.sqlite", rows, after=[far]))
    assert source._row_ranges("CUPTI_ACTIVITY_KIND_KERNEL") == []
    assert source.read("CUPTI_ACTIVITY_KIND_KERNEL", ["start", "end"]).rows() == [row[:2] for row in rows]
