"""Whole fleets: the same bytes from every scheduler, resumed, killed, with everything broken in them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jsonschema
import polars as pl
import pytest
from click.testing import CliRunner
from fleets import TINY, broken, copied, trace
from page_figures import figures_of

from nsyskit.cli import cli
from nsyskit.errors import TraceFormatError, UsageError
from nsyskit.fleet import child as child_module
from nsyskit.fleet.child import Child
from nsyskit.fleet.fleet import Options, Progress, run_fleet
from nsyskit.fleet.schedulers import make_scheduler
from nsyskit.fleet.task import Outcome, Task
from nsyskit.report.fleet_files import document, json_schema

ROOT = Path(__file__).parents[2]


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["fleet", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.output


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def first(traces, tmp_path_factory):
    """The output of the plainest run, and what it printed."""
    out = tmp_path_factory.mktemp("first") / "out"
    environment = pytest.MonkeyPatch()
    environment.setenv("NSYSKIT_FLEET_KEY", str(tmp_path_factory.getbasetemp() / "fleet-key"))
    printed = run(traces, "-o", out, "--scheduler", "local")
    environment.undo()
    return out, printed


def test_the_slow_host_is_named_with_its_part(first):
    out, printed = first
    assert printed.startswith("8 traces of 4 hosts; 1 host differs\n")
    told = json.loads((out / "fleet.json").read_text())
    (one,) = told["outliers"]
    assert (one["kind"], one["who"], one["traces"], one["peers"]) == ("host", "host-3", 2, 6)
    assert (one["metric"], one["part"]) == ("decode.ms_per_step", "host")
    assert one["part_value"] - one["part_expected"] == pytest.approx(150_000, rel=0.1)  # as `fleets.busier` made it
    assert [row["host"] for row in told["traces"]] == ["host-1"] * 2 + ["host-2"] * 2 + ["host-3"] * 2 + ["host-4"] * 2


def test_the_document_keeps_its_schema(first):
    told = json.loads((first[0] / "fleet.json").read_text())
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.Draft202012Validator(json_schema()).validate(told)


def test_distributions_are_those_of_the_traces(first):
    metrics = pl.read_parquet(first[0] / "metrics.parquet").filter(metric="decode.ms_per_step")
    groups = pl.read_parquet(first[0] / "groups.parquet").filter(metric="decode.ms_per_step")
    everyone = groups.row(by_predicate=pl.col("by") == "all", named=True)
    assert everyone["count"] == 8
    assert (everyone["min"], everyone["max"]) == (metrics["value"].min(), metrics["value"].max())
    assert everyone["p50"] == pytest.approx(metrics["value"].median())
    assert groups.filter(by="host")["group"].to_list() == ["host-1", "host-2", "host-3", "host-4"]
    assert groups.filter(by="host")["count"].to_list() == [2, 2, 2, 2]
    ledgers = pl.read_parquet(first[0] / "ledgers.parquet").filter(by="all", phase="decode")
    rows = pl.read_parquet(first[0] / "metrics.parquet").filter(metric="decode.ms_per_token")
    assert ledgers["ns_per_token"].sum() / 1e6 == pytest.approx(rows["value"].mean())  # equal tokens in each


@pytest.mark.parametrize("options", [["--workers", 1], ["--workers", 3], ["--workers", 2, "--threads", 2]], ids=str)
def test_every_number_of_workers_writes_the_same_bytes(traces, first, tmp_path, options):
    run(traces, "-o", tmp_path / "out", *options)
    assert files(tmp_path / "out") == files(first[0])


def test_everything_wrong_at_once(traces, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    for at, file in enumerate(sorted(traces.rglob("*.sqlite"))[:4]):
        copied(file, folder / f"good-{at}.sqlite")
    broken(folder / "odd", folder / "good-0.sqlite")
    copied(folder / "good-1.sqlite", folder / "odd" / "again.sqlite")
    copied(folder / "good-1.sqlite", folder / "odd" / "and-again.sqlite")
    trace(folder / "huge.sqlite", 9, preset=TINY)
    limits = Limits(folder / "huge.sqlite")
    monkeypatch.setattr(child_module, "own_memory", limits.memory)
    monkeypatch.setattr(Child, "run", limits.watched(Child.run))
    printed = run(folder, "-o", tmp_path / "out", "--memory", "3GB", "--workers", 2)
    assert printed.startswith("4 traces of 2 hosts; 5 failed; 2 counted once only\n")
    told = json.loads((tmp_path / "out" / "fleet.json").read_text())
    assert [row["name"] for row in told["traces"]] == [f"good-{at}.sqlite" for at in range(4)]
    failed = {row["name"]: row["error"] for row in told["failed"]}
    assert set(failed) == {"huge.sqlite", *(f"odd/{name}.sqlite" for name in ("cut", "empty", "text", "other"))}
    assert "more than 3.000 GB of memory" in failed["huge.sqlite"]
    assert told["duplicates"] == [
        {"name": f"odd/{name}.sqlite", "same_as": "good-1.sqlite"} for name in ("again", "and-again")
    ]
    run(folder, "-o", tmp_path / "out", "--memory", "3GB", "--strict", code=1)


class Limits:
    """Makes one trace look huge: reading it seems to take more memory than there is."""

    def __init__(self, huge: Path) -> None:
        self.huge, self.busy = str(huge), set()

    def watched(self, own):
        def run_here(child: Child, task: Task) -> Outcome:
            if task.location == self.huge:
                self.busy.add(threading.get_ident())
            try:
                return own(child, task)
            finally:
                self.busy.discard(threading.get_ident())

        return run_here

    def memory(self, pid: int) -> int:
        assert pid > 0
        return 4 * 10**9 if threading.get_ident() in self.busy else 10**6


def test_memory_is_measured(traces, tmp_path):
    """A limit that no trace can keep: Python itself takes more. Nothing is left, and it is said."""
    (file, *_) = sorted(traces.rglob("*.sqlite"))
    printed = run(file, "-o", tmp_path / "out", "--memory", "5MB", code=3)
    assert "none of 1 traces could be read" in printed
    assert "more than 5.000 MB of memory" in printed


def test_time_is_limited(traces, tmp_path):
    (file, *_) = sorted(traces.rglob("*.sqlite"))
    assert "took more than 0.01 s" in run(file, "-o", tmp_path / "out", "--timeout", 0.01, code=3)


def test_a_killed_process_loses_nothing(traces, first, tmp_path, monkeypatch):
    """The process under the third trace is killed from outside, once."""
    asked: list[int] = []
    own = Child._ask

    def ask(child: Child, task: Task) -> Outcome:
        asked.append(1)
        if len(asked) == 3:
            os.kill(child._started(task.threads).pid, signal.SIGKILL)
        return own(child, task)

    monkeypatch.setattr(Child, "_ask", ask)
    run(traces, "-o", tmp_path / "out", "--workers", 1)
    assert len(asked) == 9  # eight traces, one of them twice
    assert files(tmp_path / "out") == files(first[0])


def test_what_dies_twice_is_given_up(traces, tmp_path, monkeypatch):
    (file, *_) = sorted(traces.rglob("*.sqlite"))
    own = Child._ask

    def ask(child: Child, task: Task) -> Outcome:
        os.kill(child._started(task.threads).pid, signal.SIGKILL)
        return own(child, task)

    monkeypatch.setattr(Child, "_ask", ask)
    child = Child()
    outcome = child.run(Task("a.sqlite", str(file)))
    child.close()
    assert "killed by SIGKILL, twice" in outcome.error


def test_a_killed_fleet_goes_on(traces, first, tmp_path):
    """The whole command is killed once half of the parts are there; the same again makes only the others."""
    out = tmp_path / "out"
    argv = [sys.executable, "-m", "nsyskit", "fleet", str(traces), "-o", str(out), "--workers", "1", "-q"]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while len(list(out.glob("parts/??/*.json"))) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (out / "fleet.json").exists()
    seen: list[Progress] = []
    run_fleet([str(traces)], out, options=Options(workers=1), tell=seen.append)
    assert 3 <= seen[-1].kept < 8
    assert (seen[-1].done, seen[-1].of, seen[-1].failed) == (8, 8, 0)
    run(traces, "-o", out)
    assert files(out) == files(first[0])


def test_an_unchanged_fleet_is_not_read_again(traces, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_fleet([str(traces)], out)
    monkeypatch.setattr("nsyskit.fleet.fleet.make_scheduler", None)
    seen: list[Progress] = []
    run_fleet([str(traces)], out, tell=seen.append)
    assert (seen[-1].done, seen[-1].kept) == (8, 8)


def test_moved_traces_are_only_hashed(traces, tmp_path):
    folder = tmp_path / "in"
    copied(min(traces.rglob("*.sqlite")), folder / "a.sqlite")
    run_fleet([str(folder)], tmp_path / "out")
    (part,) = (tmp_path / "out").glob("parts/??/*.json")
    made = part.stat().st_mtime_ns
    (folder / "a.sqlite").rename(folder / "b.sqlite")
    result = run_fleet([str(folder)], tmp_path / "out")
    assert result.traces["name"].to_list() == ["b.sqlite"]
    assert part.stat().st_mtime_ns == made


def test_changed_traces_are_read_again(traces, tmp_path):
    one, other, *_ = sorted(traces.rglob("*.sqlite"))
    copied(one, tmp_path / "in" / "a.sqlite")
    before = run_fleet([str(tmp_path / "in")], tmp_path / "out")
    copied(other, tmp_path / "in" / "a.sqlite")
    after = run_fleet([str(tmp_path / "in")], tmp_path / "out")
    assert before.metrics.equals(before.metrics)
    assert not after.metrics.equals(before.metrics)


def test_run_folders_bring_their_facts(traces, tmp_path):
    (file, *_) = sorted(traces.rglob("*.sqlite"))
    copied(file, tmp_path / "in" / "bare.sqlite")
    copied(file, tmp_path / "in" / "run" / "trace.sqlite")
    facts = {"schema": "nsyskit.run/1", "llama": {"build_number": 7, "build_commit": "abc1234"}}
    (tmp_path / "in" / "run" / "run.json").write_text(json.dumps(facts))
    result = run_fleet([str(tmp_path / "in")], tmp_path / "out")
    assert result.traces.select("name", "build").rows() == [("run", "7 (abc1234)")]
    assert [(one.name, one.same_as) for one in result.duplicates] == [("bare.sqlite", "run")]


def test_manifests_tell_facts(traces, tmp_path):
    listed = sorted(traces.rglob("*.sqlite"))[:3]
    rows = [f"{file},box{at // 2},{at},b{at}" for at, file in enumerate(listed)]
    (tmp_path / "m.csv").write_text("\n".join(["path,host,rank,build", *rows]))
    result = run_fleet([str(tmp_path / "m.csv")], tmp_path / "out")
    told = result.traces.select("host", "rank", "build").rows()
    assert told == [("host-1", "0", "b0"), ("host-1", "1", "b1"), ("host-2", "2", "b2")]
    shown = run_fleet([str(tmp_path / "m.csv")], tmp_path / "named", options=Options(host_names=True))
    assert shown.traces["host"].to_list() == ["box0", "box0", "box1"]
    assert set(result.axes) >= {"host", "rank", "build"}


def test_untrusted_traces_are_in_no_distribution(tmp_path):
    samples = ROOT / "traces"
    with_errors = run_fleet([str(samples)], tmp_path / "out")
    trusted = with_errors.traces["trusted"].sum()
    everyone = with_errors.groups.filter(by="all", metric="gpu.busy_share")
    assert everyone["count"].to_list() == [trusted]


def test_nothing_can_be_read(tmp_path):
    (tmp_path / "a.sqlite").touch()
    with pytest.raises(TraceFormatError, match="none of 1 traces"):
        run_fleet([str(tmp_path)], tmp_path / "out", options=Options(scheduler="local"))


def test_options_that_do_not_fit():
    with pytest.raises(UsageError, match="--dask-address does not fit"):
        make_scheduler("processes", address="tcp://127.0.0.1:1")


def test_sizes():
    assert "is no size" in run("x", "-o", "y", "--memory", "lots", code=2)
    assert "is no size" in run("x", "-o", "y", "--memory", "0GB", code=2)


def test_json_on_stdout(traces, first, tmp_path):
    printed = run(traces, "-o", tmp_path / "out", "--format", "json", "-q")
    assert printed == (first[0] / "fleet.json").read_text()


def test_the_page_says_it_first(first):
    page = (first[0] / "fleet.html").read_text()
    assert "<h1>8 traces of 4 hosts; 1 host differs</h1>" in page
    assert "host-3 (2 traces): decode takes" in page
    assert "nsyskit fleet" in page
    assert page.count("<table") >= 6
    assert {"by-host", "ledger-decode"} <= figures_of(page).keys()


def test_equal_results_render_equally(traces, tmp_path):
    one, two = (run_fleet([str(traces)], tmp_path / name, options=Options(scheduler="local")) for name in "ab")
    assert document(one) == document(two)


@pytest.mark.nsys
@pytest.mark.skipif(shutil.which("nsys") is None, reason="needs nsys on PATH")
def test_rep_files_leave_nothing_behind(tmp_path, monkeypatch):
    """Exported where the worker stands, analyzed, deleted: the user's cache stays as it was."""
    folder = tmp_path / "in"
    folder.mkdir()
    argv = ["nsys", "profile", "--trace=osrt", "--sample=none", "--cpuctxsw=none", f"--output={folder / 'a'}"]
    program = [sys.executable, "-c", "import time; time.sleep(0.01)"]
    subprocess.run([*argv, *program], check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    (folder / "cut.nsys-rep").write_bytes((folder / "a.nsys-rep").read_bytes()[:1000])
    monkeypatch.setenv("NSYSKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    result = run_fleet([str(folder)], tmp_path / "out", options=Options(workers=1))
    assert result.traces["name"].to_list() == ["a.nsys-rep"]
    assert [one.name for one in result.failed] == ["cut.nsys-rep"]
    assert result.failed[0].error.startswith("cut.nsys-rep")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in", "out"]
