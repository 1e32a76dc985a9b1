"""Kept columns: the same answers, never stale ones, whole files or none, within their limit, no secrets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from planted_secrets import PLANTED, plant
from tiny_trace import api, awaited, kernel, memcpy, os_call, string, write_sqlite

from nsyskit.cli import cli
from nsyskit.errors import UsageError
from nsyskit.ingest import OpenOptions, columns, open_trace
from nsyskit.ingest.cache import cache_info, clear_cache, make_room
from nsyskit.ingest.sqlite import SqliteSource
from nsyskit.schema import TABLES, WIDE

ROWS = [
    string(500, "k"), api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 5, 8, corr=1, gridX=7),
    kernel("k", 20, 33, corr=2, node=9), memcpy("HtoD", 40, 45, 64, corr=3), os_call("poll", 50, 55),
    api("cudaStreamSynchronize", 9, 35, corr=4), awaited(4),
]  # fmt: skip
KERNELS = "CUPTI_ACTIVITY_KIND_KERNEL"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache that takes small and fresh files, too."""
    monkeypatch.setenv("NSYSKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(columns, "SMALLEST_BYTES", 1)
    monkeypatch.setattr(columns, "_SETTLED_NS", 0)
    monkeypatch.setattr(columns, "_AT_SECOND_LOOK", False)
    return tmp_path / "cache"


@pytest.fixture
def trace(tmp_path, cache) -> Path:
    (tmp_path / "in").mkdir()
    return write_sqlite(tmp_path / "in" / "trace.sqlite", *ROWS)


def everything(path: Path, *, cached: bool = True) -> dict[str, object]:
    opened = open_trace(path, options=OpenOptions(cache=cached))
    found: dict[str, object] = {name: frame.collect().to_dict(as_series=False) for name, frame in opened.tables.items()}
    counts = dict(opened.meta.tables)
    written()
    return found | {"": replace(opened.meta, tables=counts)}


def written() -> None:
    """Wait until what is kept is written."""
    columns._writer().submit(int).result(timeout=60)


def files(cache: Path, pattern: str = "*.parquet") -> list[Path]:
    return sorted((cache / "columns").glob(f"*/{pattern}"))


def changed(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.fixture
def from_trace(monkeypatch) -> list[str]:
    """Names of the nsys tables whose rows were read from the trace."""
    read: list[str] = []
    original = SqliteSource.read

    def watched(source, table, names, *shape: Any) -> Any:
        read.append(table)
        return original(source, table, names, *shape)

    monkeypatch.setattr(SqliteSource, "read", watched)
    return read


class TestSecondLook:
    def test_the_same_rows_and_facts(self, trace, cache):
        plain = everything(trace, cached=False)
        assert not files(cache)
        assert everything(trace) == plain
        assert files(cache, "kernels-*")
        assert everything(trace) == plain

    def test_numbers_are_not_read_again(self, trace, from_trace):
        everything(trace)
        assert KERNELS in from_trace
        from_trace.clear()
        everything(trace)
        assert not [table for table in from_trace if table.startswith("CUPTI_") or table == "OSRT_API"]

    def test_a_wide_column_that_was_not_asked_for_the_first_time(self, trace, cache, from_trace):
        opened = open_trace(trace)
        opened.kernels.select("start_ns").collect()
        written()
        assert [file.name.split("-")[0] for file in files(cache)] == ["kernels"]
        for _ in range(2):
            from_trace.clear()
            found = open_trace(trace).kernels.select("start_ns", "grid_x", "graph_node_id").collect()
            assert found.rows() == [(5, 7, None), (20, 0, 9)]
            written()
        assert KERNELS not in from_trace

    def test_counts_are_kept(self, trace, monkeypatch):
        meta = everything(trace)[""]

        def refuse(_self, table) -> int:
            raise AssertionError(table)

        monkeypatch.setattr(SqliteSource, "row_count", refuse)
        assert open_trace(trace).meta == meta

    def test_the_report_is_the_same(self, trace):
        said = [CliRunner().invoke(cli, ["analyze", str(trace), "--format", "json"]).stdout for _ in range(2)]
        written()
        said += [CliRunner().invoke(cli, ["analyze", str(trace), "--format", "json", *more]).stdout
                 for more in ([], ["--no-cache"])]  # fmt: skip
        assert len(set(said)) == 1
        assert said[0].startswith("{")

    def test_rows_that_were_left_out_are_told_every_time(self, trace, cache):
        changed(trace, f"INSERT INTO {KERNELS} SELECT * FROM {KERNELS} LIMIT 1")
        changed(trace, f"UPDATE {KERNELS} SET end = start - 1 WHERE rowid = 3")
        first = everything(trace)
        assert first["bad_rows"] == {"table": ["kernels"], "reason": ["backwards"], "rows": [1]}
        assert not files(cache, "kernels-*")
        assert everything(trace) == first


class TestWhen:
    def test_at_the_second_look(self, trace, cache, monkeypatch):
        monkeypatch.setattr(columns, "_AT_SECOND_LOOK", True)
        everything(trace)
        assert not files(cache)
        everything(trace)
        assert files(cache, "kernels-*")


class TestNeverStale:
    def test_a_row_changed_by_sqlite(self, trace):
        everything(trace)
        changed(trace, f"UPDATE {KERNELS} SET end = 9 WHERE end = 8")
        assert everything(trace)["kernels"]["end_ns"] == [9, 33]

    def test_a_byte_changed_and_the_clock_of_the_file_turned_back(self, trace, monkeypatch):
        """Not in a page that is looked at, with size and times as before: only the ctime tells."""
        monkeypatch.setattr(columns, "_samples", lambda _size: [(0, 100)])
        everything(trace)
        before = trace.stat()
        content = bytearray(trace.read_bytes())
        with closing(sqlite3.connect(trace)) as connection:
            (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (KERNELS,)).fetchone()
        at = content.index(bytes([5, 8]), (page - 1) * 4096)  # start and end of the first kernel, one byte each
        with trace.open("r+b") as file:
            file.seek(at + 1)
            file.write(bytes([6]))
        os.utime(trace, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = trace.stat()
        assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
        assert everything(trace)["kernels"]["end_ns"] == [6, 33]

    def test_another_file_in_its_place(self, trace, tmp_path):
        everything(trace)
        before = trace.stat()
        other = write_sqlite(tmp_path / "other.sqlite", *ROWS[:2], kernel("k", 5, 9, corr=1))
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(trace)
        assert everything(trace)["kernels"]["end_ns"] == [9]

    def test_a_page_that_is_looked_at(self, trace, monkeypatch):
        """Were every time the same: head, tail and pages between them are part of the key."""
        stat = trace.stat()
        monkeypatch.setattr(columns.os, "fstat", lambda _fd: stat)
        first = columns._key(trace)
        size = stat.st_size
        for at in (24, size // 2 // 4096 * 4096 + 50, size - 1):
            content = bytearray(trace.read_bytes())
            content[at] ^= 1
            trace.write_bytes(content)
            assert columns._key(trace) != first
            content[at] ^= 1
            trace.write_bytes(content)
        assert columns._key(trace) == first

    def test_changed_while_it_was_read(self, trace, cache):
        opened = open_trace(trace)
        columns._writer().submit(time.sleep, 0.3)  # what is kept waits behind this
        opened.kernels.select("start_ns").collect()
        changed(trace, f"UPDATE {KERNELS} SET end = 9 WHERE end = 8")
        written()
        assert not files(cache, "kernels-*")

    def test_a_file_that_changed_just_now_is_not_kept(self, trace, cache, monkeypatch):
        monkeypatch.setattr(columns, "_SETTLED_NS", 2_000_000_000)
        everything(trace)
        assert not files(cache)
        later = time.time_ns() + 2_500_000_000
        monkeypatch.setattr(columns.time, "time_ns", lambda: later)
        everything(trace)
        assert files(cache)

    def test_a_clock_that_was_turned_back(self, trace, cache, monkeypatch):
        """The file seems to come from the future: nothing can be said of when it changed."""
        monkeypatch.setattr(columns.time, "time_ns", lambda: trace.stat().st_ctime_ns - 3_600_000_000_000)
        everything(trace)
        assert not files(cache)

    def test_other_code_other_key(self, trace, monkeypatch):
        first = columns._key(trace)
        monkeypatch.setattr(columns, "_code", lambda: "other")
        assert columns._key(trace) != first


class TestDamaged:
    @pytest.mark.parametrize("kind", ["flipped", "cut", "empty", "foreign", "folder"])
    def test_made_again_silently(self, trace, cache, kind):
        plain = everything(trace)
        for file in files(cache):
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            damaged = {"flipped": content, "cut": content[:-9], "empty": b"", "foreign": b"PAR1" * 99}.get(kind)
            file.unlink()
            if damaged is None:
                file.mkdir()
            else:
                file.write_bytes(damaged)
        assert everything(trace) == plain
        if kind != "folder":
            assert all(columns._crc(file) == int(file.stem[-8:], 16) for file in files(cache))
            assert len(files(cache, "kernels-*")) == 1
        assert everything(trace) == plain

    def test_left_over_by_a_killed_run(self, trace, cache):
        everything(trace)
        (found,) = files(cache, "kernels-*")
        found.rename(found.with_name(".kernels.new"))
        everything(trace)
        assert files(cache, "kernels-*") == [found]
        assert not files(cache, ".*.new")

    def test_another_run_is_writing(self, trace, cache):
        opened = open_trace(trace)
        store = columns.kept_columns(trace)
        with store._alone("kernels") as mine:
            assert mine is not None
            opened.kernels.select("start_ns").collect()
            written()
            assert not files(cache, "kernels-*")
        everything(trace)
        assert files(cache, "kernels-*")


class TestPlaces:
    def test_small_files_are_not_kept(self, trace, cache, monkeypatch):
        monkeypatch.setattr(columns, "SMALLEST_BYTES", trace.stat().st_size + 1)
        everything(trace)
        assert not cache.exists()

    def test_not_even_looked_at_when_told_so(self, trace, cache):
        for command in (["analyze"], ["info"], ["report", "--format", "markdown"]):
            assert CliRunner().invoke(cli, [*command, str(trace), "--no-cache"]).exit_code == 0
        written()
        assert not cache.exists()

    def test_no_room_by_order(self, trace, cache, monkeypatch):
        monkeypatch.setenv("NSYSKIT_CACHE_BYTES", "0")
        assert everything(trace)["kernels"]["end_ns"] == [8, 33]
        assert not files(cache)

    def test_no_number(self, trace, monkeypatch):
        monkeypatch.setenv("NSYSKIT_CACHE_BYTES", "10 GB")
        with pytest.raises(UsageError, match="is no number of bytes; set it to one"):
            open_trace(trace)

    def test_a_cache_that_cannot_be(self, trace, cache):
        cache.touch()
        assert everything(trace)["kernels"]["end_ns"] == [8, 33]

    def test_a_folder_that_others_may_change_is_not_believed(self, trace, cache):
        (cache / "columns").mkdir(parents=True)
        (cache / "columns").chmod(0o777)
        everything(trace)
        assert not files(cache)

    def test_only_the_user_may_look(self, trace, cache):
        everything(trace)
        assert {file.stat().st_mode & 0o777 for file in files(cache)} == {0o600}
        assert {path.stat().st_mode & 0o777 for path in (cache / "columns", *(cache / "columns").iterdir())} == {0o700}

    def test_no_text_of_the_trace(self, tmp_path, cache):
        path = plant(tmp_path / "trace.sqlite")
        everything(path)
        kept = b"".join(file.read_bytes() for file in files(cache))
        assert len(files(cache)) > 10
        assert not [secret for secret in PLANTED if secret.encode() in kept]

    def test_every_table_of_text_is_left_out(self, trace, cache):
        everything(trace)
        kept = {file.name.split("-")[0].split(".")[0] for file in files(cache)} - {"rows"}
        assert kept == set(TABLES) - {"strings", "nvtx", "diagnostics", "gpu_metrics"}
        assert {file.name.split("-")[0] for file in files(cache, "kernels.*")} == {
            f"kernels.{column}" for column in WIDE["kernels"]
        }


class TestLimit:
    def test_what_was_used_longest_ago_goes_first(self, tmp_path, cache, monkeypatch):
        traces = [write_sqlite(tmp_path / f"{name}.sqlite", *ROWS) for name in "abc"]
        entries = []
        for at, path in enumerate(traces):
            everything(path)
            entries.append(cache / "columns" / columns._key(path))
            os.utime(entries[-1], (at, at))
        os.utime(entries[0], (9, 9))
        info = cache_info()
        assert [entry.path for entry in info.entries] == [entries[0], entries[2], entries[1]]
        monkeypatch.setenv("NSYSKIT_CACHE_BYTES", str(info.size_bytes))
        assert make_room(1, keep=entries[2])
        assert [entry.path for entry in cache_info().entries] == [entries[0], entries[2]]
        assert not make_room(info.size_bytes, keep=entries[2])
        assert [entry.path for entry in cache_info().entries] == [entries[2]]

    def test_reading_counts_as_use(self, trace, cache):
        everything(trace)
        (entry,) = (cache / "columns").iterdir()
        os.utime(entry, (5, 5))
        open_trace(trace)
        assert entry.stat().st_mtime > 5

    def test_an_export_in_use_stays(self, cache, monkeypatch):
        old, new = cache / "exports" / "old.sqlite", cache / "exports" / "new.sqlite"
        old.parent.mkdir(parents=True)
        for path in (old, new):
            path.write_bytes(bytes(1_000))
        os.utime(old, (time.time() - 4_000,) * 2)
        monkeypatch.setenv("NSYSKIT_CACHE_BYTES", "10")
        assert not make_room(0, keep=cache)
        assert (old.exists(), new.exists()) == (False, True)

    def test_more_than_the_limit_is_not_written(self, trace, cache, monkeypatch):
        monkeypatch.setenv("NSYSKIT_CACHE_BYTES", "40")
        everything(trace)
        assert not [file for file in files(cache) if file.name.startswith(("kernels-", "api_calls-"))]

    def test_a_tenth_of_the_free_disk(self, monkeypatch):
        monkeypatch.setattr("nsyskit.ingest.cache._free_bytes", lambda: 5_000)
        assert cache_info().limit_bytes == 500
        monkeypatch.setattr("nsyskit.ingest.cache._free_bytes", lambda: 10**15)
        assert cache_info().limit_bytes == 10_000_000_000


class TestCommand:
    def test_info_and_clear(self, trace, cache):
        everything(trace)
        size = sum(file.stat().st_size for file in files(cache))
        document = json.loads(CliRunner().invoke(cli, ["cache", "info", "--format", "json"]).stdout)
        assert (document["folder"], document["size_bytes"]) == (str(cache), size)
        assert [entry["kind"] for entry in document["entries"]] == ["columns"]
        said = CliRunner().invoke(cli, ["cache", "info"]).stdout.splitlines()
        assert said[0].startswith(f"{cache}: ")
        assert "columns" in said[1]
        assert "1 entries removed" in CliRunner().invoke(cli, ["cache", "clear"]).stdout
        assert cache_info().entries == ()
        assert everything(trace)["kernels"]["end_ns"] == [8, 33]

    def test_nothing_there(self, cache):
        assert CliRunner().invoke(cli, ["cache", "info"]).stdout.startswith(f"{cache}: 0 B of at most ")
        assert clear_cache().entries == ()
        assert not cache.exists()

    def test_cleared_while_it_is_read(self, trace):
        everything(trace)
        opened = open_trace(trace)
        opened.kernels.select("start_ns").collect()
        clear_cache()
        assert opened.kernels.select("end_ns").collect()["end_ns"].to_list() == [8, 33]
        assert opened.api_calls.collect().height == 2
        written()


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Large and old enough to be kept by the rules that hold for everybody."""
    path = write_sqlite(tmp_path_factory.mktemp("large") / "trace.sqlite", *ROWS)
    changed(path, "CREATE TABLE filler AS SELECT zeroblob(33000000) AS x")
    time.sleep(2.1)
    return path


def start(cache: Path, *arguments: object) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "nsyskit", *(str(argument) for argument in arguments)]
    environment = {**os.environ, "NSYSKIT_CACHE": str(cache)}
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


class TestProcesses:
    def test_eight_at_once_with_a_cold_cache(self, large, tmp_path):
        cache = tmp_path / "cache"
        start(cache, "info", large).communicate(timeout=60)  # the first look
        processes = [start(cache, "analyze", large, "--format", "json") for _ in range(8)]
        said = [process.communicate(timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [0] * 8, said
        assert len(set(said)) == 1
        names = [file.name.split("-")[0] for file in files(cache)]
        assert len(names) == len(set(names))
        assert {"kernels", "api_calls", "rows"} <= set(names)
        assert not files(cache, ".*.new")
        again = start(cache, "analyze", large, "--format", "json")
        assert again.communicate(timeout=60) == said[0]

    def test_killed_at_any_time(self, large, tmp_path):
        cache = tmp_path / "cache"
        plain = start(cache, "analyze", large, "--no-cache", "--format", "json").communicate(timeout=60)
        began = time.monotonic()
        start(cache, "analyze", large).communicate(timeout=60)
        takes = time.monotonic() - began
        for at in range(5):
            shutil.rmtree(cache)
            start(cache, "info", large).communicate(timeout=60)
            process = start(cache, "analyze", large)
            time.sleep(takes * (0.5 + at / 10))
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            assert all(columns._crc(file) == int(file.stem[-8:], 16) for file in files(cache))
            assert start(cache, "analyze", large, "--format", "json").communicate(timeout=60) == plain

    def test_a_full_disk(self, large, tmp_path):
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("needs root to mount a small file system")
        place = tmp_path / "small"
        place.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=False).returncode:
            pytest.skip("needs the right to mount")
        try:
            (place / "filler").write_bytes(bytes(60_000))
            plain = start(tmp_path / "other", "analyze", large, "--format", "json").communicate(timeout=60)
            os.environ["NSYSKIT_CACHE_BYTES"] = "100000000"
            try:
                start(place, "info", large).communicate(timeout=60)
                assert start(place, "analyze", large, "--format", "json").communicate(timeout=60) == plain
            finally:
                del os.environ["NSYSKIT_CACHE_BYTES"]
            assert all(columns._crc(file) == int(file.stem[-8:], 16) for file in files(place))
        finally:
            subprocess.run(["umount", place], check=True)
