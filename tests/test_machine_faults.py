"""What a machine does to a run: many at once, a full disk, a kill on the way, other locales and odd paths."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from real_nsys import capture
from tiny_trace import api, kernel, os_call, write_sqlite

from nsyskit.cli import cli

ROWS = [api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 5, 8, corr=1), os_call("poll", 9, 12)]
MANY = [kernel(f"k{at % 50}", 5 * at, 5 * at + 4, corr=at) for at in range(20_000)]
DEMO = Path(__file__).parents[1] / "traces" / "demo" / "trace.sqlite"
COMMAND = [sys.executable, "-m", "nsyskit"]


def start(*arguments: object, **more: str) -> subprocess.Popen[str]:
    argv = [*COMMAND, *(str(argument) for argument in arguments)]
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env={**os.environ, **more}
    )  # fmt: skip


def run(*arguments: object, **more: str) -> tuple[int, str, str]:
    process = start(*arguments, **more)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.nsys
@pytest.mark.skipif(shutil.which("nsys") is None, reason="needs nsys on PATH")
def test_eight_at_once_with_a_cold_cache(tmp_path):
    report = capture(tmp_path / "run.nsys-rep", "sleep", "0.1")
    cache = tmp_path / "cache"
    processes = [start("analyze", report, "--format", "json", NSYSKIT_CACHE=str(cache)) for _ in range(8)]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, said
    assert len({out for out, _ in said}) == 1
    assert len(list((cache / "exports").iterdir())) == 1
    assert not list(cache.rglob(".nsyskit-*"))


@pytest.mark.parametrize("command", ["report", "redact", "export"])
def test_killed_on_the_way(tmp_path, command):
    """Whenever the kill comes: the output is absent or whole, never half there."""
    path = write_sqlite(tmp_path / "trace.sqlite", *MANY)
    arguments = {"report": [], "redact": [], "export": ["--to", "perfetto"]}[command]
    whole = tmp_path / "whole"
    assert run(command, path, "-o", whole, *arguments)[0] == 0
    started = time.monotonic()
    run(command, path, "-o", tmp_path / "timed", *arguments)
    takes = time.monotonic() - started
    for at in range(4):
        target = tmp_path / f"out{at}"
        process = start(command, path, "-o", target, *arguments)
        time.sleep(takes * (0.6 + at / 10))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert not target.exists() or target.stat().st_size >= 0.99 * whole.stat().st_size
    assert run("analyze", path)[0] == 0


def test_a_history_killed_on_the_way(tmp_path):
    """Whenever the kill comes: the runs before it are there, and the next one can be added."""
    path = shutil.copy(DEMO, tmp_path / "trace.sqlite")
    db = tmp_path / "history.sqlite"
    began = time.monotonic()
    assert run("history", "add", path, "--db", db)[0] == 0
    takes = time.monotonic() - began
    for at in range(4):
        process = start("history", "add", path, "--db", db)
        time.sleep(takes * (0.5 + at / 8))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert _whole(db)
    code, out, err = run("history", "add", path, "--db", db)
    assert (code, err) == (0, "")
    assert len(run("history", "list", "--db", db)[1].splitlines()[1:]) == int(out.split()[1].rstrip(":"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", str(place)], check=False)


@pytest.mark.parametrize(
    "arguments", [["report"], ["redact"], ["export", "--to", "perfetto"], ["export", "--to", "parquet"]], ids=" ".join
)
def test_a_full_disk(tmp_path, small_disk, arguments):
    path = write_sqlite(tmp_path / "trace.sqlite", *MANY)
    (small_disk / "filler").write_bytes(bytes(200_000))
    code, out, err = run(arguments[0], path, "-o", small_disk / "out", *arguments[1:])
    assert (code, out, err.count("\n")) == (6, "", 1), err
    assert "; " in err
    assert not [file for file in small_disk.rglob("*") if file.is_file() and file.name != "filler"]


@pytest.mark.nsys
@pytest.mark.skipif(shutil.which("nsys") is None, reason="needs nsys on PATH")
def test_a_full_disk_under_the_cache(tmp_path, small_disk):
    report = capture(tmp_path / "run.nsys-rep", "sleep", "0.1")
    (small_disk / "filler").write_bytes(bytes(200_000))
    code, out, err = run("analyze", report, NSYSKIT_CACHE=str(small_disk))
    assert (code >= 2, out, err.count("\n")) == (True, "", 1), err
    assert run("analyze", report, NSYSKIT_CACHE=str(tmp_path / "cache"))[0] == 0
    (small_disk / "filler").unlink()
    assert not [file for file in small_disk.rglob("*.sqlite") if not _whole(file)]


def _whole(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))


@pytest.mark.parametrize(
    "more",
    [
        {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}, {"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8"},
        {"TZ": "Pacific/Kiritimati"}, {"TZ": "America/St_Johns"}, {"TZ": "nonsense"}, {"PYTHONIOENCODING": "utf-8"},
    ],
    ids=str,
)  # fmt: skip
def test_the_same_in_every_locale_and_time_zone(tmp_path, more):
    path = write_sqlite(tmp_path / "trace.sqlite", *ROWS)
    usual = run("analyze", path, "--format", "json")
    assert usual[0] == 0
    assert run("analyze", path, "--format", "json", **more) == usual
    assert run("info", path, "--format", "json", **more) == run("info", path, "--format", "json")


@pytest.mark.parametrize(
    "name",
    ["with space", "q?x=1", "h#x", "p%41", "p%zz", "ünï-日本", "a&b=c", "a'b\"c", "a;b", "-dash", "file:x", "x" * 200],
)
def test_odd_paths(tmp_path, name):
    """``?``, ``#`` and ``%`` mean something in the URI through which SQLite is told to open read-only."""
    folder = tmp_path / name
    folder.mkdir()
    path = write_sqlite(folder / f"{name}.sqlite", *ROWS)
    before = path.read_bytes()
    plain = write_sqlite(tmp_path / "plain.sqlite", *ROWS)
    sums = ["--format", "csv", "-a", "kernel_sum"]
    runner = CliRunner()
    expected = runner.invoke(cli, ["analyze", str(plain), *sums])
    assert runner.invoke(cli, ["analyze", str(path), *sums]).output == expected.output
    for command, out in (("redact", "clean.sqlite"), ("report", "r.html")):
        result = runner.invoke(cli, [command, str(path), "-o", str(folder / f"{name[:50]}-{out}")])
        assert result.exit_code == 0, result.output
    assert path.read_bytes() == before
    assert len(list(folder.iterdir())) == 3
    assert len(list(tmp_path.iterdir())) == 2
