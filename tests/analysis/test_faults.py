"""Faults put into a healthy trace: each is named by a trust note, and none leaves a verdict that is silently wrong."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tiny_trace import api, awaited, kernel, memcpy, open_tiny

from nsyskit.analysis.analyze import analyze
from nsyskit.analysis.devices import devices
from nsyskit.analysis.faults import clocks, doubled_rows, lost_kernels
from nsyskit.analysis.steps import find_steps
from nsyskit.analysis.trust import trust
from nsyskit.ingest import open_trace
from nsyskit.trace import Window
from traces.synth.__main__ import main

TRACES = Path(__file__).parents[2] / "traces"
GPU = ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE")


def faulty(tmp_path, *statements: str, trace="demo"):
    path = Path(shutil.copy(TRACES / trace / "trace.sqlite", tmp_path / "trace.sqlite"))
    path.chmod(0o644)
    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        for statement in statements:
            for kind in GPU if "{GPU}" in statement else ("",):
                table = f"CUPTI_ACTIVITY_KIND_{kind}"
                if not kind or table in tables:
                    connection.execute(statement.replace("{GPU}", table))
        connection.commit()
    return open_trace(path)


def notes(trace):
    return {note.code: note.level for note in trust(trace)}


@pytest.mark.parametrize("name", sorted(folder.parent.name for folder in TRACES.glob("*/trace.sqlite")))
def test_healthy_rows_are_not_accused(name):
    found = notes(open_trace(TRACES / name / "trace.sqlite"))
    assert not found.keys() & {"duplicates", "clock_offset", "truncated", "kernels_lost", "bad_rows"}


@pytest.mark.parametrize("offset", [-1_000_000, -100_000, -20_000, 20_000, 100_000, 1_000_000])
@pytest.mark.parametrize("trace", ["demo", "bench-graph", "two-gpus-layer-split"])
def test_clocks_that_disagree(tmp_path, trace, offset):
    moved = faulty(tmp_path, f"UPDATE {{GPU}} SET start = start + {offset}, end = end + {offset}", trace=trace)
    assert notes(moved)["clock_offset"] == "error"
    assert analyze(moved, only=["verdict"]).verdict.bottleneck == "none"


@pytest.mark.parametrize("offset", [-15_000, -8_000, -2_000, 2_000, 8_000, 15_000])
def test_an_offset_too_small_to_see_is_too_small_to_matter(tmp_path, offset):
    whole = analyze(open_trace(TRACES / "demo" / "trace.sqlite"), only=["verdict", "devices"])
    moved = faulty(tmp_path, f"UPDATE {{GPU}} SET start = start + {offset}, end = end + {offset}")
    found = analyze(moved, only=["verdict", "devices"])
    if "clock_offset" not in notes(moved):
        assert found.verdict.bottleneck == whole.verdict.bottleneck
        (before,), (after,) = whole.sections["devices"].devices, found.sections["devices"].devices
        assert abs(before.busy_ns / before.window_ns - after.busy_ns / after.window_ns) < 0.01


def test_rows_that_are_there_twice(tmp_path):
    doubled = faulty(tmp_path, "INSERT INTO {GPU} SELECT * FROM {GPU}")
    assert notes(doubled)["duplicates"] == "error"
    some = faulty(tmp_path, "INSERT INTO {GPU} SELECT * FROM {GPU} WHERE rowid % 500 = 1")
    assert notes(some)["duplicates"] == "warning"


def test_calls_that_are_there_twice(tmp_path):
    doubled = faulty(
        tmp_path,
        "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME SELECT * FROM CUPTI_ACTIVITY_KIND_RUNTIME WHERE eventClass < 60",
    )  # fmt: skip
    assert notes(doubled)["duplicates"] == "error"


CUT = "CREATE TABLE cut AS SELECT min(start) * 0.3 + max(end) * 0.7 AS t FROM CUPTI_ACTIVITY_KIND_KERNEL"
LATER = "WHERE start > (SELECT t FROM cut)"


def test_gpu_rows_cut_off_at_the_end(tmp_path):
    cut = faulty(tmp_path, CUT, f"DELETE FROM {{GPU}} {LATER}", trace="two-gpus-layer-split")
    assert notes(cut)["truncated"] == "error"
    assert analyze(cut, only=["verdict"]).verdict.bottleneck == "none"


def test_all_rows_cut_off_at_the_end_are_a_shorter_capture(tmp_path):
    whole = analyze(open_trace(TRACES / "demo" / "trace.sqlite"), only=["verdict"])
    tables = ("CUPTI_ACTIVITY_KIND_RUNTIME", "OSRT_API", "{GPU}")
    cut = faulty(tmp_path, CUT, *(f"DELETE FROM {table} {LATER}" for table in tables))
    assert analyze(cut, only=["verdict"]).verdict.bottleneck == whole.verdict.bottleneck


def test_kernels_lost_on_the_way(tmp_path):
    lost = faulty(tmp_path, "DELETE FROM {GPU} WHERE rowid % 10 = 3")
    assert notes(lost)["kernels_lost"] == "error"
    few = faulty(tmp_path, "DELETE FROM {GPU} WHERE rowid % 100 = 3")
    assert notes(few)["kernels_lost"] == "warning"


def test_calls_lost_on_the_way(tmp_path):
    lost = faulty(tmp_path, "DELETE FROM CUPTI_ACTIVITY_KIND_RUNTIME WHERE rowid % 10 = 3")
    assert "orphans" in notes(lost)


def test_what_is_counted(tmp_path):
    trace = open_tiny(
        tmp_path,
        api("cudaLaunchKernel", 100, 103, corr=1), kernel("k", 99, 120, corr=1),
        api("cudaLaunchKernel", 110, 113, corr=2), kernel("k", 120, 50_000, corr=2), kernel("k", 120, 50_000, corr=2),
        api("cudaStreamSynchronize", 120, 30_000, corr=3), awaited(3, stream=7),
        api("cudaLaunchKernel", 50_010, 50_013, corr=4),
        api("cudaStreamSynchronize", 50_020, 50_030, corr=5), awaited(5, stream=7),
    )  # fmt: skip
    seen = clocks(trace)
    assert (seen.ops, seen.early, seen.waits, seen.late) == (3, 1, 2, 1)
    assert doubled_rows(trace) == {"GPU rows": 1}
    lost = lost_kernels(trace)
    assert (lost.launches, lost.lost, lost.at_end) == (3, 1, True)


def test_what_the_generator_drops(tmp_path):
    """Lost API rows in the shipped trace; lost rows of graphs in one that is made here."""
    assert "orphans" in notes(open_trace(TRACES / "damaged" / "trace.sqlite"))
    made = main(["bench-graph", "--steps", "8", "--drop-graphs", "0.3", "--truth", "sums", "-o", str(tmp_path)])
    assert made == 0
    assert "graph_coverage" in notes(open_trace(tmp_path / "trace.sqlite"))


@pytest.mark.parametrize("trace", ["demo", "two-gpus-layer-split"])
def test_rows_that_name_no_process(tmp_path, trace):
    few = faulty(tmp_path, "UPDATE {GPU} SET globalPid = NULL WHERE rowid % 200 = 3", trace=trace)
    assert notes(few)["no_process"] == "warning"
    many = faulty(tmp_path, "UPDATE {GPU} SET globalPid = NULL WHERE rowid % 2 = 1", trace=trace)
    assert notes(many)["no_process"] == "error"
    assert analyze(many, only=["verdict", "threads", "sync"]).verdict.bottleneck == "none"
    for ledger in [ledger for lossy in (few, many) for ledger in devices(lossy).devices]:
        assert ledger.busy_ns + ledger.idle_ns == ledger.window_ns


def test_what_names_no_gpu_ran_on_the_only_one(tmp_path):
    rows = kernel("k", 5, 13), kernel("k", 20, 30, globalPid=None), memcpy("HtoD", 40, 50)
    (ledger,) = devices(open_tiny(tmp_path, *rows), window=Window("explicit", 0, 60)).devices
    assert (ledger.kernel_ns, ledger.memcpy_ns, ledger.idle_ns) == (18, 10, 32)


@pytest.mark.parametrize("trace", ["demo", "bench-graph"])
def test_a_launch_of_nobody_tears_no_step(tmp_path, trace):
    launches = "nameId IN (SELECT id FROM StringIds WHERE value LIKE 'cudaLaunchKernel%')"
    table = "CUPTI_ACTIVITY_KIND_RUNTIME"
    last = f"(SELECT max(rowid) FROM {table} WHERE {launches})"
    lossy = faulty(tmp_path, f"UPDATE {table} SET globalTid = NULL WHERE rowid = {last}", trace=trace)
    assert find_steps(lossy).torn == 0
    assert find_steps(lossy).steps.height == find_steps(open_trace(TRACES / trace / "trace.sqlite")).steps.height
