"""What a machine does to a run: many at once, a full disk, a kill on the way, other locales and odd paths."""

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
from pathlib import Path

import polars as pl
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


def test_a_full_disk_under_a_history(tmp_path, small_disk):
    """The run that did not fit is not there, the runs before it are, and with room again the next one fits."""
    db = small_disk / "h.sqlite"
    added = ["history", "add", DEMO, "--db", db]
    assert run(*added)[0] == 0
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    codes = [run(*added) for _ in range(2)]
    assert {code for code, _, _ in codes} == {6}, codes
    assert all(err.count("\n") == 1 for _, _, err in codes), codes
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert _whole(db)
    assert run("history", "list", "--db", db)[1].count("trace.sqlite") == 1
    assert run(*added)[0] == 0


def test_a_full_disk_under_a_fleet(tmp_path, small_disk):
    """Every file is whole or absent, and with room again the same command ends well."""
    command = ["fleet", DEMO, "-o", small_disk / "out", "--scheduler", "local"]
    code, out, err = run(*command)
    assert (code, out, err.count("\n")) == (6, "", 1), err
    assert not [file for file in small_disk.rglob(".*") if file.is_file()]
    for file in small_disk.rglob("*.parquet"):
        pl.read_parquet(file)
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert run(*command, "-q")[0] == 0


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


EVERY = """
import json, sys
from contextlib import suppress
from nsyskit.cli import _speak_utf8, cli
_speak_utf8()
for command in json.loads(sys.argv[1]):
    print("$", command[0], flush=True)
    with suppress(SystemExit):
        cli.main(command)
"""
"""What ``main`` does, for several commands in one process."""


def every_output(path: Path, folder: Path, **more: str) -> dict[str, bytes]:
    """What the commands print and write, of one trace."""
    folder.mkdir()
    trace, out = str(path), lambda name: str(folder / name)
    commands = [
        ["analyze", trace], ["analyze", trace, "--format", "json"], ["analyze", trace, "--format", "csv", "-a", "sums"],
        ["info", trace], ["info", trace, "--format", "json"], ["report", trace, "--format", "markdown"],
        ["report", trace, "-o", out("r.html")], ["compare", trace, trace, "--anyway", "-o", out("compare.txt")],
        ["ranks", trace, trace], ["export", trace, "--to", "perfetto", "-o", out("t.pftrace")],
        ["redact", trace, "-o", out("clean.sqlite")], ["kernels", "mul_mat_q<(ggml_type)2>"],
        ["fleet", trace, "-o", out("fleet"), "--scheduler", "local", "-q"], ["analyze", out("nothing")],
    ]  # fmt: skip
    argv = [sys.executable, "-c", EVERY, json.dumps(commands, ensure_ascii=False)]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=120, env={**os.environ, **more})
    assert b"Traceback" not in done.stderr
    written = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return {"out": done.stdout.replace(bytes(folder), b""), "err": done.stderr.replace(bytes(folder), b"")} | written


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    """A trace with names in several scripts, and what the commands make of it where the tests run."""
    folder = tmp_path_factory.mktemp("locale")
    path = write_sqlite(
        folder / "trace-日本-ü.sqlite", *ROWS, kernel("größe_日本_🙂", 20, 31), api("cudaLaunch_ü", 15, 16)
    )
    return path, every_output(path, folder / "usual")


@pytest.mark.parametrize(
    "more",
    [
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "latin-1"},
        {"LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati"}, {"TZ": "nonsense"},
    ],
    ids=str,
)  # fmt: skip
def test_the_same_in_every_locale_and_time_zone(tmp_path, usual, more):
    """Bytes of what is printed and written; names that a locale has no characters for included."""
    path, expected = usual
    told = every_output(path, tmp_path / "other", **more)
    assert "größe_日本_🙂".encode() in told["out"]
    assert set(told) == set(expected)
    assert [name for name, content in told.items() if expected[name] != content and name != "err"] == []


def test_a_file_over_4_gb(tmp_path):
    """The kernels lie behind 4.5 GB of nothing, which a sparse file holds for free: the same numbers, and untouched."""
    page, last = 65_536, 70_000
    path = write_sqlite(tmp_path / "trace.sqlite", *ROWS)
    sums = ["analyze", str(path), "--format", "json"]
    expected = CliRunner().invoke(cli, sums).stdout
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {page}")
        connection.execute("VACUUM")
        where = "FROM sqlite_master WHERE name = 'CUPTI_ACTIVITY_KIND_KERNEL'"
        (root,) = connection.execute(f"SELECT rootpage {where}").fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"UPDATE sqlite_master SET rootpage = {last} WHERE rootpage = {root}")
    with path.open("r+b") as file:
        file.seek((root - 1) * page)
        rows = file.read(page)
        file.seek((last - 1) * page)
        file.write(rows)
        file.seek((root - 1) * page)
        file.write(bytes(page))
        file.seek(28)
        file.write(last.to_bytes(4, "big"))  # pages, as the header counts them
    assert path.stat().st_size > 4_500_000_000
    before = path.stat()
    assert CliRunner().invoke(cli, sums).stdout == expected
    done = CliRunner().invoke(cli, ["redact", str(path), "-o", str(tmp_path / "clean.sqlite")])
    assert done.exit_code == 0, done.output
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)


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


def test_a_name_that_is_no_text(tmp_path):
    """On Linux a file's name is bytes; shown and kept are those of them that are UTF-8."""
    folder = tmp_path / "\udcff"
    folder.mkdir()
    path = shutil.copyfile(DEMO, folder / "\udcfea.sqlite")
    told = every_output(path, tmp_path / "out")
    assert "\N{REPLACEMENT CHARACTER}a.sqlite".encode() in told["out"]
    for name, content in told.items():
        if not name.endswith((".sqlite", ".pftrace", ".parquet")):
            content.decode()
    assert run("history", "add", path, "--db", tmp_path / "h.sqlite")[0] == 0
