"""The input is never changed, and nothing appears beside it."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from served_run import served_run
from tiny_trace import api, kernel, write_parquet, write_sqlite

from nsyskit.cli import cli

ROWS = [api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 5, 8, corr=1)]
COMMANDS = [
    ["info"], ["analyze"], ["analyze", "--format", "json"], ["analyze", "--format", "csv", "-a", "sums"],
    ["report", "-o", "OUT.html"], ["report", "--format", "markdown"], ["analyze", "--html", "OUT.html"],
    ["timeline", "--from", "+0ns", "--to", "+5ns", "-o", "OUT.html"],
    ["export", "--to", "perfetto", "-o", "OUT.pftrace"],
    ["export", "--to", "parquet", "-o", "OUT"],
]  # fmt: skip
SQLITE_COMMANDS = [*COMMANDS, ["info", "--secrets"], ["redact", "-o", "OUT.sqlite"]]
LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(60)
"""


def state(path: Path) -> dict[str, tuple[str, int]]:
    """Hash and modification time of a file and of everything in its folder."""
    return {
        str(file): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in path.parent.rglob("*")
        if file.is_file()
    }


def run(command: list[str], path: Path, out: Path) -> Result:
    """A command on a trace, its output elsewhere."""
    rest = [str(out / word) if word.startswith("OUT") else word for word in command[1:]]
    force = ["--force"] if any("OUT" in word for word in command) else []
    return CliRunner().invoke(cli, [command[0], str(path), *rest, *force])


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("write", [write_sqlite, write_parquet])
def test_a_tiny_trace(folder, tmp_path, command, write):
    path = write(folder / "trace.sqlite", *ROWS)
    before = state(path)
    assert run(command, path, tmp_path).exit_code == 0
    assert state(path) == before


@pytest.mark.parametrize("command", [["info", "--secrets"], ["redact", "-o", "OUT.sqlite"]], ids=" ".join)
def test_looking_for_secrets(folder, tmp_path, command):
    path = write_sqlite(folder / "trace.sqlite", *ROWS)
    before = state(path)
    assert run(command, path, tmp_path).exit_code == 0
    assert state(path) == before


def test_comparing_and_keeping(folder, tmp_path, monkeypatch):
    path = write_sqlite(folder / "trace.sqlite", *ROWS)
    monkeypatch.setenv("NSYSKIT_DB", str(tmp_path / "history.sqlite"))
    before = state(path)
    CliRunner().invoke(cli, ["compare", str(path), str(path), "--anyway"])
    CliRunner().invoke(cli, ["history", "add", str(path)])
    assert state(path) == before


def look_at_several(path: Path, out: Path) -> None:
    """The commands that take more than one trace, or keep what they found; of a run folder, where ``path`` is one."""
    db = str(out / "h.sqlite")
    commands = [
        ["compare", path, path, "--anyway"], ["history", "add", path, "--db", db], ["ranks", path, path],
        ["fleet", path, "-o", out / "fleet", "--scheduler", "local"], ["fleet", path.parent, "-o", out / "fleet"],
        ["sweep", "--read", path, "--db", db], ["compare", "--bench", path, path],
        ["report", path, "-o", out / "r.html"],
    ]  # fmt: skip
    for command in commands:
        result = CliRunner().invoke(cli, [str(word) for word in command])
        assert result.exception is None or isinstance(result.exception, SystemExit), command
        assert result.exit_code in {0, 2, 3, 4}, result.output


@pytest.fixture
def run_folder(folder) -> Path:
    """A run folder whose databases are in the mode in which SQLite makes files beside them."""
    place = served_run(folder / "run")
    write_sqlite(place / "trace.sqlite", *ROWS)
    for name in ("trace.sqlite", "requests.sqlite", "nvml.sqlite"):
        with closing(sqlite3.connect(place / name)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    return place


def test_several_traces_and_a_run_folder(run_folder, tmp_path):
    before = state(run_folder)
    look_at_several(run_folder, tmp_path)
    assert state(run_folder) == before
    assert {file.suffix for file in run_folder.iterdir()} == {".sqlite", ".json"}


def test_several_traces_under_a_lock(run_folder, tmp_path):
    holders = [
        subprocess.Popen([sys.executable, "-c", LOCK, str(file)], stdout=subprocess.PIPE, text=True)
        for file in (run_folder / "trace.sqlite", run_folder / "requests.sqlite")
    ]
    try:
        for holder in holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
        before = state(run_folder)
        look_at_several(run_folder, tmp_path)
        assert state(run_folder) == before
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def test_a_read_only_file_system(tmp_path):
    """Where not even root can write."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a file system")
    place = tmp_path / "readonly"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        path = write_sqlite(served_run(place / "run") / "trace.sqlite", *ROWS)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        for command in SQLITE_COMMANDS:
            assert run(command, path, tmp_path).exit_code == 0
        look_at_several(path.parent, tmp_path)
    finally:
        subprocess.run(["umount", place], check=True)


def test_while_another_process_holds_a_lock(folder, tmp_path):
    path = write_sqlite(folder / "trace.sqlite", *ROWS)
    holder = subprocess.Popen([sys.executable, "-c", LOCK, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        before = state(path)
        for command in SQLITE_COMMANDS:
            result = run(command, path, tmp_path)
            assert result.exit_code == 0, result.output
        assert state(path) == before
    finally:
        holder.kill()
        holder.wait()


def test_while_another_process_writes(folder, tmp_path):
    """A journal beside the file says so, and the file is refused rather than read half-written."""
    path = write_sqlite(folder / "trace.sqlite", *ROWS)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_spill = ON")
        writer.execute("BEGIN")
        writer.execute("UPDATE StringIds SET value = 'changed'")
        before = state(path)
        for command in SQLITE_COMMANDS:
            result = run(command, path, tmp_path)
            assert result.exit_code in {0, 3}, result.output
            assert result.exit_code == 0 or "is being written" in result.stderr
        assert state(path) == before
        writer.execute("ROLLBACK")


def test_while_another_process_appends(folder, tmp_path):
    """A file that grows is whole only up to what its header says; the rest is not looked at."""
    path = write_sqlite(folder / "trace.sqlite", *ROWS)
    content = path.read_bytes()
    for extra in (1, 100, 4096, 100_000):
        path.write_bytes(content + b"x" * extra)
        before = state(path)
        for command in SQLITE_COMMANDS:
            assert run(command, path, tmp_path).exit_code in {0, 3}
        assert state(path) == before


def test_a_real_trace(real_trace, tmp_path):
    path = tmp_path / "trace.sqlite"
    path.write_bytes(real_trace.read_bytes())
    before = state(path)
    assert CliRunner().invoke(cli, ["analyze", str(path)]).exit_code == 0
    assert state(path) == before


def test_a_write_protected_trace_in_a_write_protected_folder(tmp_path):
    folder = tmp_path / "readonly"
    folder.mkdir()
    path = write_sqlite(folder / "trace.sqlite", *ROWS)
    path.chmod(0o400)
    folder.chmod(0o500)
    try:
        for command in SQLITE_COMMANDS:
            assert run(command, path, tmp_path).exit_code == 0
    finally:
        folder.chmod(0o700)


def test_an_output_never_replaces_its_input(tmp_path):
    path = write_sqlite(tmp_path / "trace.sqlite", *ROWS)
    before = state(path)
    for option in ("-o", "--html"):
        result = CliRunner().invoke(cli, ["analyze", str(path), option, str(path), "--force"])
        assert result.exit_code == 6
        assert result.stderr == f"nsyskit: {path} is the input itself; choose another name\n"
    assert state(path) == before
