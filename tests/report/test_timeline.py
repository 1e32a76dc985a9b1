"""Timelines as data: columns that sum to the ledgers, events that are all there, landmarks."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tiny_trace import PID, TID, api, graph, kernel, memcpy, open_tiny, os_call

from nsyskit.analysis.causes import CAUSES, whole_window
from nsyskit.analysis.devices import BUSY_PARTS, devices
from nsyskit.analysis.steps import find_steps
from nsyskit.analysis.threads import PARTS, threads
from nsyskit.analysis.timeline import (
    BASE_COLUMNS,
    FINER,
    aggregated,
    density,
    events,
    instant,
    landmarks,
    timelines,
)
from nsyskit.analysis.windows import default_window
from nsyskit.errors import MissingTableError, UsageError
from nsyskit.ingest import open_trace
from nsyskit.trace import Window

DEMO = Path(__file__).resolve().parents[2] / "traces" / "demo" / "trace.sqlite"

# a kernel 3–8, a bubble 8–20 (malloc 10–14, the program's code around it), a copy 20–22
ROWS = (
    api("cudaLaunchKernel", 0, 2, corr=1), kernel("void mul<int>(int)", 3, 8, short="mul", corr=1),
    api("cudaMalloc", 10, 14), os_call("poll", 15, 16), api("cudaMemcpyAsync", 19, 20, corr=2),
    memcpy("DtoH", 20, 22, 64, corr=2),
)  # fmt: skip


@pytest.fixture
def tiny(tmp_path):
    return open_tiny(tmp_path, *ROWS)


class TestDensity:
    def test_a_lane_a_gpu_a_copy_direction_a_driver_thread(self, tiny):
        lanes = density(tiny).lanes
        keys = [(lane.key, lane.kind) for lane in lanes]
        assert keys == [("gpu0", "gpu"), ("gpu0.DtoH", "copies"), (f"thread{PID}.{TID}", "thread")]
        assert lanes[0].parts == ("kernel", "memcpy", "submit", "cuda", "blocked", "host")

    def test_nanoseconds_of_a_column_one_by_one(self, tiny):
        """A window of 18 ns in 1024 columns: each holds nothing or one whole ns."""
        level = density(tiny, window=Window("explicit", 3, 21)).levels[0]
        assert level.height == BASE_COLUMNS
        assert (level["start_ns"][0], level["end_ns"][-1]) == (3, 21)
        full = level.filter(pl.col("end_ns") > pl.col("start_ns"))
        assert full["gpu0/kernel"].to_list() == [1] * 5 + [0] * 13  # 3–8
        assert full["gpu0/cuda"].to_list() == [0] * 7 + [1] * 4 + [0] * 7  # 10–14

    def test_streams_have_lanes_when_there_are_several(self, tmp_path):
        trace = open_tiny(tmp_path, kernel("a", 0, 4), kernel("b", 2, 6, stream=8))
        found = density(trace)
        streams = [lane for lane in found.lanes if lane.kind == "stream"]
        assert [lane.label for lane in streams] == ["stream 7", "stream 8"]
        assert found.levels[0]["gpu0.stream1/kernel"].sum() == 4

    def test_a_finer_level_sums_to_the_coarser(self):
        found = density(open_trace(DEMO))
        coarse, fine = found.levels[:2]
        assert fine.height == FINER * coarse.height
        keys = [f"{lane.key}/{part}" for lane in found.lanes for part in lane.parts]
        group = pl.int_range(pl.len()) // FINER
        summed = fine.group_by(group.alias("group"), maintain_order=True).agg(pl.col(keys).sum()).drop("group")
        assert summed.equals(coarse.select(keys))

    def test_sums_to_the_ledgers(self, real_trace):
        trace = open_trace(real_trace)
        try:
            ledgers, found = devices(trace).devices, density(trace)
        except MissingTableError:
            pytest.skip("nothing to draw")
        for level in found.levels:
            sums = {name: int(level[name].sum()) for name in level.columns[2:]}
            whole = [f"gpu{index}" for index in range(len(ledgers))]
            busy = sorted(sum(sums.get(f"{key}/{part}", 0) for part in BUSY_PARTS) for key in whole)
            assert busy == sorted(ledger.busy_ns for ledger in ledgers)
            for cause in CAUSES:
                idle = sorted(sums.get(f"{key}/{cause}", 0) for key in whole)
                assert idle == sorted(ledger.idle[cause] for ledger in ledgers)
            for thread in threads(trace).threads[:4]:
                parts = {part: sums.get(f"thread{thread.pid}.{thread.tid}/{part}", 0) for part in PARTS}
                assert parts == {part: thread.part_ns(part) for part in PARTS}


class TestEvents:
    def test_rows_by_lane(self, tiny):
        found = events(tiny, Window("explicit", 0, 30))
        labels = [lane.label for lane in found.lanes]
        assert labels == ["GPU 0: idle, by cause", "stream 7", "copies", "thread 11: CUDA API", "thread 11: OS calls"]
        assert found.total == found.events.height
        kernels = found.events.filter(pl.col("lane") == 1).select("start_ns", "end_ns", "part", "name").rows()
        assert kernels == [(3, 8, "kernel", "mul"), (20, 22, "memcpy", "memcpy DtoH 64 B")]
        calls = found.events.filter(pl.col("lane") == 3).select("start_ns", "part", "name").rows()
        assert calls == [
            (0, "submit", "cudaLaunchKernel"),
            (10, "cuda", "cudaMalloc"),
            (19, "submit", "cudaMemcpyAsync"),
        ]

    def test_a_bubble_knows_its_length_causes_and_neighbours(self, tiny):
        found = events(tiny, Window("explicit", 0, 22))
        bubble = found.bubbles.row(1, named=True)
        assert (bubble["start_ns"], bubble["end_ns"], bubble["dur_ns"]) == (8, 20, 12)
        assert {cause: bubble[cause] for cause in CAUSES if bubble[cause]} == {
            "cuda": 4,
            "blocked": 1,
            "submit": 1,
            "host": 6,
        }
        assert (bubble["before"], bubble["after"]) == ("mul", "memcpy DtoH 64 B")
        pieces = found.events.filter(pl.col("bubble") == 1).select("start_ns", "end_ns", "part").rows()
        assert pieces == [
            (8, 10, "host"), (10, 14, "cuda"), (14, 15, "host"), (15, 16, "blocked"),
            (16, 19, "host"), (19, 20, "submit"),
        ]  # fmt: skip

    def test_events_are_cut_at_the_window_and_keep_their_length(self, tiny):
        found = events(tiny, Window("explicit", 5, 7))
        kernels = found.events.filter(pl.col("part") == "kernel")
        assert kernels.select("start_ns", "end_ns", "dur_ns").rows() == [(5, 7, 5)]

    def test_a_bubble_of_the_outer_window_keeps_its_length(self, tiny):
        inner = events(tiny, Window("explicit", 9, 11), within=Window("explicit", 0, 22))
        assert inner.bubbles["dur_ns"].to_list() == [12]
        assert inner.events.filter(pl.col("bubble") == 0)["end_ns"].max() == 11

    def test_above_the_cap_neighbours_are_put_together(self, tmp_path):
        """4096 kernels of 1 ns, 2 ns apart, in a window of 4 ns a column: 2 kernels a column."""
        trace = open_tiny(tmp_path, *(kernel("k", 2 * at, 2 * at + 1) for at in range(4096)))
        found = events(trace, Window("explicit", 0, 8192), cap=1000)
        assert found.aggregated
        assert found.total == 4096 + 4096  # kernels and the gaps between them, the last at the window's end
        kernels = found.events.filter(pl.col("part") == "kernel")
        assert kernels.height == 2048
        assert kernels.row(0, named=True) | {"lane": 0} == {
            "lane": 0, "start_ns": 0, "end_ns": 3, "dur_ns": 2, "part": "kernel",
            "name": None, "count": 2, "bubble": None,
        }  # fmt: skip
        assert (kernels["count"].sum(), kernels["dur_ns"].sum()) == (4096, 4096)

    def test_one_alone_keeps_its_name(self, tiny):
        found = events(tiny, Window("explicit", 0, 30))
        assert aggregated(found.events, found.window, 1000).equals(found.events)

    def test_a_graph_has_a_lane(self, tmp_path):
        trace = open_tiny(tmp_path, api("cudaGraphLaunch", 0, 1, corr=1), graph(2, 9, corr=1))
        lanes = {lane.kind: lane.label for lane in events(trace, Window("explicit", 0, 10)).lanes}
        assert lanes["graphs"] == "CUDA graphs"


class TestLandmarks:
    def test_the_three_largest_bubbles(self, tmp_path):
        starts = [0, 10_000, 15_000, 35_000, 36_000]
        trace = open_tiny(tmp_path, *(kernel("k", at, at + 1_000) for at in starts))
        titles = [mark.title for mark in landmarks(trace)]
        assert titles == [
            "largest bubble: 19.00 µs on GPU 0",
            "second largest bubble: 9.000 µs on GPU 0",
            "third largest bubble: 4.000 µs on GPU 0",
        ]

    def test_steps_first_then_bubbles_then_what_was_asked_for(self):
        trace = open_trace(DEMO)
        at = default_window(trace).start_ns
        marks = landmarks(trace, around=[at])
        kinds = [mark.title.split(":")[0] for mark in marks]
        assert kinds == [
            "a median decode step", "the slowest decode step", "the first prefill", "largest bubble",
            "second largest bubble", "third largest bubble", "around the time asked for",
        ]  # fmt: skip
        assert marks[-1].window == Window("explicit", at - 5_000_000, at + 5_000_000)
        steps = find_steps(trace).steps
        prefill = steps.filter(pl.col("phase") == "prefill").sort("begin_ns")["begin_ns"][0]
        assert marks[2].window.start_ns < prefill < marks[2].window.end_ns
        assert marks[2].window.start_ns == whole_window(trace).start_ns  # nothing was recorded before

    def test_a_trace_without_a_time(self, tmp_path):
        with pytest.raises(MissingTableError):
            timelines(open_tiny(tmp_path))

    def test_the_times_that_a_user_writes(self, tiny):
        assert instant(tiny, "5ns") == 5
        assert instant(tiny, "+2ns") == 5  # the first GPU operation begins at 3
        with pytest.raises(UsageError, match="is not a time"):
            instant(tiny, "soon")


def test_a_run_without_a_gpu_shows_the_threads_that_call_most(tmp_path):
    """Thread 1 waits 3 of 8 ns in two calls, thread 2 all 8 in one."""
    rows = (
        os_call("sem_wait", 1, 3, tid=1), os_call("read", 5, 6, tid=1), os_call("poll", 0, 8, tid=2),
    )  # fmt: skip
    trace = open_tiny(tmp_path, *rows)
    told = density(trace)
    assert [(lane.kind, lane.label) for lane in told.lanes] == [("thread", "thread 1"), ("thread", "thread 2")]
    sums = told.levels[-1].sum()
    first, second = (lane.key for lane in told.lanes)
    assert (sums[f"{first}/blocked"][0], sums[f"{first}/os"][0], sums[f"{first}/host"][0]) == (2, 1, 5)
    assert sums[f"{second}/blocked"][0] == 8
    (lane, _) = (lane for lane in events(trace, Window("explicit", 0, 8)).lanes if lane.kind == "os")
    assert lane.label == "thread 1: OS calls"
