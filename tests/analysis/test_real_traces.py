"""On every real trace all partitions sum to their whole, to the nanosecond."""

from __future__ import annotations

import polars as pl
import pytest

from nsyskit.analysis.analyze import analyze
from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.devices import devices
from nsyskit.analysis.gaps import gaps
from nsyskit.analysis.threads import threads
from nsyskit.analysis.windows import window_all
from nsyskit.ingest import open_trace
from nsyskit.trace import Trace, Window


def cuts(trace: Trace) -> list[Window | None]:
    """The default window, the whole trace, and one that cuts through rows at odd places."""
    whole = window_all(trace)
    third = whole.dur_ns // 3
    return [None, whole, Window("explicit", whole.start_ns + third + 1, whole.end_ns - third - 3)]


def test_devices(real_trace):
    trace = open_trace(real_trace)
    if not trace.meta.sources["cuda"]:
        pytest.skip("holds no CUDA")
    for window in cuts(trace):
        for ledger in devices(trace, window=window).devices:
            assert ledger.busy_ns + ledger.idle_ns == ledger.window.dur_ns
            assert ledger.kernel_ns + ledger.graph_ns + ledger.memcpy_ns + ledger.memset_ns == ledger.busy_ns
            assert sum(ledger.idle.values()) == ledger.idle_ns
            assert tuple(ledger.idle) == CAUSES
            assert ledger.kernel_sum_ns - ledger.overlap_ns == ledger.kernel_ns
            assert min(ledger.idle.values()) >= 0
            assert ledger.overlap_ns >= 0


def test_threads(real_trace):
    trace = open_trace(real_trace)
    if not trace.meta.sources["cuda"]:
        pytest.skip("holds no CUDA")
    for window in cuts(trace):
        found = threads(trace, window=window)
        for thread in found.threads:
            assert sum(thread.busy.values()) + sum(thread.idle.values()) == found.window.dur_ns
            assert min(*thread.busy.values(), *thread.idle.values()) >= 0


def test_gaps(real_trace):
    trace = open_trace(real_trace)
    if not trace.meta.sources["cuda"]:
        pytest.skip("holds no CUDA")
    for window in cuts(trace):
        idle = {ledger.use: ledger.idle_ns for ledger in devices(trace, window=window).devices}
        for found in gaps(trace, window=window).devices:
            assert found.hist["total_ns"].sum() == idle[found.use]
            split = found.longest.select(pl.sum_horizontal(CAUSES)).to_series()
            assert split.to_list() == found.longest["dur_ns"].to_list()


def test_the_sum_of_kernels_and_their_union(real):
    """Two GPUs, two processes: durations overlap on one of them by 12,442 ns."""
    found = devices(open_trace(real("h100x2-train"))).devices
    figures = [(ledger.kernel_sum_ns, ledger.kernel_ns) for ledger in found if ledger.use.device == 0]
    assert figures == [(270_875_926, 270_863_484)]


def test_analyze_shows_every_section(real_trace):
    report = analyze(open_trace(real_trace))
    collected = report.meta.sources
    assert (report.sections["api_sum"] is not None) == collected["cuda"]
    assert (report.sections["osrt_sum"] is not None) == collected["osrt"]
    assert (report.sections["nvtx_sum"] is not None) == collected["nvtx"]
    assert not [note for note in report.trust if note.code == "invariant"]
