"""The history: kept whole, migrated, written by many processes at once, free of secrets."""

import multiprocessing
import sqlite3
import sys

import pytest

from nsyskit.errors import UsageError
from nsyskit.history.history import Cell, History, HistoryError, StoredRun
from nsyskit.history.migrations import MIGRATIONS

RUN = StoredRun(
    name="a.sqlite", added="2026-01-01T00:00:00Z", build="7 (abc)", model="m.gguf", gpu="T4",
    facts={"setup": {"x": "1"}},
    metrics={"decode.ms_per_token": (2.5, "ms")}, steps={"decode": b"\x00\x01"}, tags=("main",),
)  # fmt: skip


def test_a_run_comes_back_whole(tmp_path):
    with History(tmp_path / "h.sqlite") as history:
        number = history.add(RUN)
        found = history.run("main")
    assert found == StoredRun(**{name: getattr(RUN, name) for name in RUN.__slots__} | {"id": number})


def test_tags_are_given_and_moved(tmp_path):
    with History(tmp_path / "h.sqlite") as history:
        one, two = history.add(RUN), history.add(RUN)
        history.tag("good", [one])
        history.tag("good", [two], move=True)
        assert [run.id for run in history.runs(tag="good")] == [two]
        assert [run.id for run in history.resolve("main")] == [one, two]
        assert [run.id for run in history.resolve(str(one))] == [one]
        with pytest.raises(UsageError, match="no run 99"):
            history.tag("good", [one, 99])
        with pytest.raises(UsageError, match="no run or tag 'nope'"):
            history.run("nope")
        assert [run.id for run in history.runs(limit=1)] == [two]


def test_a_trend_is_in_the_order_of_adding(tmp_path):
    with History(tmp_path / "h.sqlite") as history:
        for value in (2.0, 3.0):
            history.add(StoredRun(name="a", added="t", metrics={"decode.ms_per_token": (value, "ms")}))
        history.add(StoredRun(name="b", added="t", model="other", metrics={"decode.ms_per_token": (9.0, "ms")}))
        assert [point.value for point in history.trend("decode.ms_per_token")] == [2.0, 3.0, 9.0]
        assert [point.value for point in history.trend("decode.ms_per_token", model="other")] == [9.0]
        with pytest.raises(UsageError, match=r"decode\.ms_per_token"):
            history.trend("decode.speed")


def test_an_older_file_is_migrated(tmp_path):
    path = tmp_path / "h.sqlite"
    old = sqlite3.connect(path)
    for statement in MIGRATIONS[0]:
        old.execute(statement)
    old.execute("INSERT INTO runs (name, added, facts) VALUES ('kept', 't', '{}')")
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()
    with History(path) as history:
        assert [run.name for run in history.runs()] == ["kept"]
        history.put_cell(Cell("s", "k", {}, "done", "t"))
        assert len(history.cells("s")) == 1


def test_a_newer_file_is_refused(tmp_path):
    path = tmp_path / "h.sqlite"
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryError, match="newer nsyskit"):
        History(path)


def test_what_is_no_history(tmp_path):
    path = tmp_path / "h.sqlite"
    path.write_text("not a database at all, however long it may be")
    with pytest.raises(HistoryError, match="cannot be used"):
        History(path)


def _write(path, count) -> None:
    with History(path) as history:
        for _ in range(count):
            history.add(RUN)


def test_eight_processes_write_at_once(tmp_path):
    """Also the creation of the file and its tables is raced for."""
    path = tmp_path / "h.sqlite"
    context = multiprocessing.get_context("spawn" if sys.platform == "darwin" else "fork")
    writers = [context.Process(target=_write, args=(path, 10)) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 8
    with History(path) as history:
        runs = history.runs()
        assert len(runs) == 80
        assert all(history.whole(run.id).metrics == RUN.metrics for run in runs)
        assert history.database.conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert history.database.conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_cells_of_a_sweep(tmp_path):
    result = {"label": "tg8", "phase": "decode", "tokens_per_s": 5.0, "n_gen": 8, "model_type": "llama"}
    with History(tmp_path / "h.sqlite") as history:
        history.put_cell(Cell("s", "a", {"n_threads": "1"}, "failed", "t", error="killed"))
        history.put_cell(Cell("s", "a", {"n_threads": "1"}, "done", "t", results=(result,)))
        (cell,) = history.cells("s")
    assert (cell.state, cell.error) == ("done", None)
    assert {name: value for name, value in cell.results[0].items() if value is not None} == result
