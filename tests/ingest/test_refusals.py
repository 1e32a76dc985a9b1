"""Broken inputs: exactly one line on stderr, which says what to do, the right exit code, and no traceback."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_trace import api, kernel, string, write_sqlite

from nsyskit.cli import cli

NOBODY = 65534


def refused(*arguments: object, code: int = 3) -> str:
    """The one line that nsyskit says."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("nsyskit: ")
    assert result.stderr.count("\n") == 1
    assert "; " in result.stderr, "what to do next"
    return result.stderr.removeprefix("nsyskit: ").rstrip("\n")


@pytest.fixture
def whole(tmp_path) -> Path:
    kernels = [kernel(f"k{number}", number, number + 3, corr=number) for number in range(2000)]
    return write_sqlite(tmp_path / "trace.sqlite", api("cudaLaunchKernel", 0, 3, corr=1), kernels)


def test_nothing_there(tmp_path):
    assert refused("analyze", tmp_path / "gone.sqlite") == f"{tmp_path}/gone.sqlite does not exist; check the path"


@pytest.mark.parametrize("name", ["empty.sqlite", "empty.nsys-rep", "empty.qdrep", "empty.qdstrm", "empty"])
def test_empty(tmp_path, name):
    (tmp_path / name).touch()
    assert refused("analyze", tmp_path / name).startswith(f"{name} is empty; ")


def test_an_sqlite_file_that_is_no_export(tmp_path):
    with closing(sqlite3.connect(tmp_path / "places.sqlite")) as connection:
        connection.execute("CREATE TABLE moz_places (id INTEGER)")
        connection.commit()
    said = refused("analyze", tmp_path / "places.sqlite")
    assert said.startswith("places.sqlite is an SQLite file but no nsys export: it has none of nsys's tables; ")


@pytest.mark.parametrize("name", ["notes.txt", "notes", "notes.sqlite"])
def test_no_trace_at_all(tmp_path, name):
    (tmp_path / name).write_text("hello " * 100)
    said = refused("analyze", tmp_path / name)
    assert said.startswith(f"{name} is no ")


@pytest.mark.parametrize("share", [0.002, 0.1, 0.5, 0.9, 0.999])
def test_truncated(whole, share):
    content = whole.read_bytes()
    whole.write_bytes(content[: int(len(content) * share)])
    said = refused("analyze", whole)
    assert said.startswith(("trace.sqlite is truncated: ", "trace.sqlite is no SQLite file; "))


def test_damaged_in_the_middle(whole):
    content = bytearray(whole.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8192] = b"\xaa" * 8192
    whole.write_bytes(content)
    assert refused("analyze", whole).startswith("trace.sqlite cannot be read as an nsys export (")


@pytest.mark.parametrize("column", ["start", "globalPid", "demangledName", "correlationId"])
def test_text_in_a_column_of_numbers(whole, column):
    with closing(sqlite3.connect(whole)) as connection:
        connection.execute(f"UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET {column} = 'soon' WHERE rowid = 1")
        connection.commit()
    said = refused("analyze", whole)
    wrong = "holds text or fractions where whole numbers belong; "
    assert said.startswith(f"table CUPTI_ACTIVITY_KIND_KERNEL of trace.sqlite {wrong}")


def test_text_further_down_in_a_column_of_numbers(whole):
    with closing(sqlite3.connect(whole)) as connection:
        connection.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = 'soon' WHERE rowid = 1900")
        connection.commit()
    assert "trace.sqlite" in refused("analyze", whole)


@pytest.mark.parametrize("value", [1 << 40, -(1 << 40)])
def test_a_number_that_fits_no_column(tmp_path, value):
    path = write_sqlite(tmp_path / "trace.sqlite", kernel("k", 3, 5, device=value))
    assert refused("analyze", path).startswith("table CUPTI_ACTIVITY_KIND_KERNEL holds numbers that fit no ")


def test_a_row_without_its_time(tmp_path):
    path = write_sqlite(tmp_path / "trace.sqlite", string(1, "k"))
    with closing(sqlite3.connect(path)) as connection:
        columns = "start, end, globalTid, nameId, correlationId, eventClass"
        connection.execute(f"CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME ({columns})")
        connection.execute(f"INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME ({columns}) VALUES (3, NULL, 0, 1, 1, 0)")
        connection.commit()
    said = refused("analyze", path)
    assert said == "table CUPTI_ACTIVITY_KIND_RUNTIME holds rows without a time; export the report again"


def test_a_column_that_every_nsys_writes_is_missing(tmp_path):
    path = write_sqlite(tmp_path / "trace.sqlite", kernel("k", 3, 5), drop=("start",))
    said = refused("analyze", path)
    assert said.startswith("table CUPTI_ACTIVITY_KIND_KERNEL lacks the column start, which every known nsys writes; ")


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_file_that_is_being_written(whole, suffix):
    companion = whole.with_name(whole.name + suffix)
    companion.write_bytes(b"x")
    assert refused("analyze", whole).startswith(f"trace.sqlite is being written: trace.sqlite{suffix} lies beside it; ")
    companion.write_bytes(b"")
    assert CliRunner().invoke(cli, ["info", str(whole)]).exit_code == 0, "an empty one is a leftover"


def test_an_unfinished_capture(tmp_path):
    (tmp_path / "run.qdstrm").write_bytes(b"NVIDIA Nsight Systems Stream" + bytes(100))
    said = refused("analyze", tmp_path / "run.qdstrm")
    assert said.startswith("run.qdstrm is an unfinished capture; ")
    assert "QdstrmImporter --input-file run.qdstrm" in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_neither_file_nor_directory(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refused("analyze", tmp_path / "pipe").startswith("pipe is neither file nor directory; ")


def test_a_directory_that_is_no_export(tmp_path):
    assert "is a directory but no nsys export" in refused("analyze", tmp_path)


def test_unreadable(whole):
    whole.chmod(0)
    with _without_roots_rights():
        said = refused("analyze", whole)
    assert said == "trace.sqlite cannot be read: permission denied; check its access rights"


def test_no_nsys(tmp_path, monkeypatch):
    (tmp_path / "run.nsys-rep").write_bytes(b"NVIDIA Tegra Profiler Report 1" + bytes(100))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NSYSKIT_NSYS", raising=False)
    assert refused("analyze", tmp_path / "run.nsys-rep", code=5).startswith("nsys was not found on PATH; install ")
    missing = tmp_path / "missing"
    assert refused("analyze", tmp_path / "run.nsys-rep", "--nsys", missing, code=5).startswith(
        f"{missing} is not an executable nsys; "
    )


def test_something_else_that_is_called_nsys(tmp_path, monkeypatch):
    impostor = tmp_path / "nsys"
    impostor.write_text("#!/bin/sh\necho hello\n")
    impostor.chmod(0o755)
    (tmp_path / "run.nsys-rep").write_bytes(b"NVIDIA Tegra Profiler Report 1" + bytes(100))
    said = refused("analyze", tmp_path / "run.nsys-rep", "--nsys", impostor, code=5)
    assert said.startswith(f"{impostor} does not answer --version like nsys (hello); ")


def test_nsys_own_words_about_a_file_name_stay_one_line(tmp_path):
    odd = tmp_path / "a\nb.sqlite"
    odd.write_text("no trace")
    assert "a b.sqlite is no " in refused("analyze", odd)


def test_a_refusal_of_the_installed_command(whole, tmp_path):
    """Through the real process: what a shell sees."""
    whole.write_bytes(whole.read_bytes()[:5000])
    argv = [sys.executable, "-m", "nsyskit", "analyze", str(whole)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("nsyskit: trace.sqlite is truncated: 5,000 of ")
    assert done.stderr.count("\n") == 1


@contextmanager
def _without_roots_rights() -> Iterator[None]:
    """Root may read everything; the tests may be run by root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
