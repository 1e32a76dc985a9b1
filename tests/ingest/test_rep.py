"""Rep files: captured by the real nsys while the test runs, exported, cached by what they hold."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from real_nsys import capture
from test_refusals import refused

from nsyskit.analysis.sums import osrt_sum
from nsyskit.cli import cli
from nsyskit.ingest import OpenOptions, export_sqlite, open_trace
from nsyskit.ingest.rep import cache_dir
from nsyskit.nsys import find_nsys

pytestmark = pytest.mark.nsys
needs_nsys = pytest.mark.skipif(shutil.which("nsys") is None, reason="needs nsys on PATH")

PROGRAM = """
import time
for _ in range({waits}):
    time.sleep(0.002)
"""


def sleeper(folder: Path, *, waits: int) -> Path:
    """A rep file of a small program that sleeps so many times."""
    return capture(folder / "run.nsys-rep", sys.executable, "-c", PROGRAM.format(waits=waits))


@pytest.fixture(scope="module")
def captured(tmp_path_factory) -> Path:
    return sleeper(tmp_path_factory.mktemp("captured"), waits=8)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    return sleeper(tmp_path_factory.mktemp("other"), waits=5)


@pytest.fixture
def report(captured, tmp_path) -> Path:
    return Path(shutil.copy(captured, tmp_path / "run.nsys-rep"))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NSYSKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def sleeps(path: Path) -> int:
    rows = osrt_sum(open_trace(path)).rows
    return rows.filter(rows["name"].str.contains("nanosleep|^select$"))["count"].sum()


@needs_nsys
def test_analyzed_through_the_export_path(report, cache):
    trace = open_trace(report)
    assert (trace.meta.container, trace.meta.name) == ("rep", "run.nsys-rep")
    assert trace.meta.sources["osrt"]
    assert not trace.meta.sources["cuda"]
    assert sleeps(report) == 8


@needs_nsys
def test_the_same_numbers_as_nsys_stats(report, tmp_path, cache):
    """The installed nsys sums the same rows: its own report of the same file is the oracle."""
    name = "osrtsum" if find_nsys().version < (2023,) else "osrt_sum"
    argv = ["nsys", "stats", "--force-export=true", f"--report={name}", "--format=csv", "--output=-", str(report)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path, timeout=120).stdout
    table = [line.split(",") for line in said[said.index("Time (%)") :].splitlines() if line.count(",") >= 8]
    theirs = {row[8]: (int(row[1]), int(row[2]), int(row[5]), int(row[6])) for row in table[1:]}
    ours = osrt_sum(open_trace(report)).rows.select("name", "total_ns", "count", "min_ns", "max_ns").rows()
    assert {name: tuple(numbers) for name, *numbers in ours} == theirs


@needs_nsys
def test_through_the_command(report, cache):
    result = CliRunner().invoke(cli, ["analyze", str(report)])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("run.nsys-rep · window all ")
    assert "OS runtime by thread" in result.stdout


@needs_nsys
def test_nothing_is_written_beside_the_report_and_it_stays_the_same(report, cache):
    neighbours, content = set(report.parent.iterdir()) | {cache}, report.read_bytes()
    open_trace(report).os_calls.collect()
    assert set(report.parent.iterdir()) == neighbours
    assert report.read_bytes() == content


@needs_nsys
def test_exported_once(report, cache):
    said = []
    options = OpenOptions(progress=lambda what, _share: said.append(what))
    open_trace(report, options=options)
    assert any(what.startswith("exporting run.nsys-rep with nsys 20") for what in said)
    said.clear()
    open_trace(report, options=options)
    assert set(said) == {"reading run.nsys-rep"}
    assert len(list((cache / "exports").iterdir())) == 1, "no scratch folder stays"


@needs_nsys
def test_a_report_that_changed_is_never_answered_with_the_old_export(report, other, cache):
    assert sleeps(report) == 8
    then = report.stat()
    shutil.copy(other, report)
    os.utime(report, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert sleeps(report) == 5


@needs_nsys
def test_the_same_content_elsewhere_is_not_exported_again(report, cache):
    open_trace(report)
    moved = report.rename(report.with_name("moved.nsys-rep"))
    open_trace(moved)
    assert len(list((cache / "exports").iterdir())) == 1


@needs_nsys
def test_a_cache_that_cannot_be_written(report, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NSYSKIT_CACHE", str(tmp_path / "file"))
    said = refused("analyze", report, code=6)
    assert said.startswith("cannot write to ")
    assert said.endswith("; free the place or set NSYSKIT_CACHE")


def test_the_users_cache_directory_is_the_default(monkeypatch, tmp_path):
    monkeypatch.delenv("NSYSKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "nsyskit"


class TestExport:
    @needs_nsys
    def test_writes_the_file_that_the_user_keeps(self, report):
        result = CliRunner().invoke(cli, ["export", str(report)])
        kept = report.with_suffix(".sqlite")
        assert (result.exit_code, result.stdout) == (0, f"{kept}\n")
        with closing(sqlite3.connect(kept)) as connection:
            assert connection.execute("SELECT count(*) FROM OSRT_API WHERE eventClass = 27").fetchone()[0] > 8
        assert sorted(path.name for path in report.parent.iterdir()) == ["run.nsys-rep", "run.sqlite"]

    @needs_nsys
    def test_does_not_overwrite_unless_told_to(self, report):
        kept = report.with_suffix(".sqlite")
        kept.write_text("precious")
        assert "run.sqlite exists; choose another name or add --force" in refused("export", report, code=6)
        assert kept.read_text() == "precious"
        assert CliRunner().invoke(cli, ["export", str(report), "--force"]).exit_code == 0
        assert kept.read_bytes().startswith(b"SQLite format 3")

    @needs_nsys
    def test_never_onto_the_report_itself(self, report):
        content = report.read_bytes()
        assert "is the input itself" in refused("export", report, "-o", report, "--force", code=6)
        assert report.read_bytes() == content

    @needs_nsys
    def test_the_library_twin(self, report, tmp_path):
        export_sqlite(report, tmp_path / "kept.sqlite")
        assert open_trace(tmp_path / "kept.sqlite").meta.sources["osrt"]

    @pytest.mark.parametrize("content", [None, b""])
    def test_nothing_to_export(self, tmp_path, content):
        if content is not None:
            (tmp_path / "run.nsys-rep").write_bytes(content)
        assert "run.nsys-rep" in refused("export", tmp_path / "run.nsys-rep")


class TestBroken:
    @needs_nsys
    @pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
    def test_truncated(self, report, cache, share):
        content = report.read_bytes()
        report.write_bytes(content[: int(len(content) * share)])
        said = refused("analyze", report)
        assert said == f"{report} is truncated or damaged; copy it again or capture again"
        assert not list((cache / "exports").iterdir())

    @needs_nsys
    def test_garbage(self, report):
        report.write_bytes(hashlib.sha256(b"").digest() * 200)
        assert refused("analyze", report).startswith(f"{report} is not a rep file of nsys; ")

    @needs_nsys
    def test_garbage_behind_the_right_beginning(self, report):
        content = report.read_bytes()
        report.write_bytes(content[:64] + b"\xaa" * len(content[64:]))
        assert str(report) in refused("analyze", report, code=_code(report))

    @pytest.mark.e2e
    @needs_nsys
    def test_newer_than_the_installed_nsys(self):
        """Captured by nsys 2023.4, opened by an older one: which version wrote it, and what to do."""
        root = os.environ.get("NSYSKIT_E2E_ROOT")
        if not root or not (Path(root) / "usr/bin/nsys").exists():
            pytest.skip("needs NSYSKIT_E2E_ROOT with the real nsys 2023.4")
        if find_nsys().version >= (2023, 4):
            pytest.skip("needs an older nsys on PATH")
        with tempfile.TemporaryDirectory(prefix="nsyskit-", dir=Path(root) / "tmp") as outside:
            argv = ["chroot", root, "nsys", "profile", "--trace=osrt", "--sample=none", "--cpuctxsw=none",
                    f"--output=/tmp/{Path(outside).name}/new", "sleep", "0.01"]  # fmt: skip
            subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
            said = refused("analyze", Path(outside) / "new.nsys-rep", code=5)
        assert "new.nsys-rep is newer than this nsys (written by nsys 2023.4." in said
        assert said.endswith("; export it with that version or a later one: name it with --nsys or NSYSKIT_NSYS")


def _code(report: Path) -> int:
    """Damage past the beginning is either seen as such or taken for a newer format: both are one clear line."""
    return CliRunner().invoke(cli, ["analyze", str(report)]).exit_code


@needs_nsys
def test_an_eager_export_holds_the_same_rows_as_a_lazy_one(report, tmp_path, cache):
    for lazy in ("true", "false"):
        target = tmp_path / f"lazy-{lazy}.sqlite"
        argv = ["nsys", "export", "--type=sqlite", f"--lazy={lazy}", f"--output={target}", str(report)]
        subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    lazy, eager = (open_trace(tmp_path / f"lazy-{word}.sqlite") for word in ("true", "false"))
    with closing(sqlite3.connect(tmp_path / "lazy-false.sqlite")) as connection:
        tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
    assert tables > 100, "every table exists"
    assert eager.meta.tables == lazy.meta.tables
    assert eager.meta.sources == lazy.meta.sources
    for table in lazy.tables:
        if table != "strings":
            assert eager.tables[table].collect().equals(lazy.tables[table].collect()), table
