"""Single gaps: how long, why, between what."""

from __future__ import annotations

import pytest
from tiny_trace import Row, api, graph, kernel, memcpy, memset, open_tiny, os_call, string

from nsyskit.analysis.gaps import DeviceGaps, gaps
from nsyskit.errors import MissingTableError
from nsyskit.trace import Window

ROWS = (
    api("cudaLaunchKernel", 0, 1, corr=1), kernel("void mul<int>(int)", 0, 3, short="mul", corr=1),
    memcpy("HtoD", 8, 10, 64, corr=9), memset(11, 12), os_call("poll", 3, 5), api("cudaMalloc", 5, 6), graph(20, 21),
)  # fmt: skip


def of(tmp_path, *rows: Row | list[Row], window: tuple[int, int], top: int = 10) -> DeviceGaps:
    (found,) = gaps(open_tiny(tmp_path, *rows), window=Window("explicit", *window), top=top).devices
    return found


def test_longest_first_with_its_neighbours(tmp_path):
    found = of(tmp_path, *ROWS, window=(0, 25))
    assert found.longest.select("start_ns", "dur_ns", "before", "after").rows() == [
        (12, 8, "memset", "CUDA graph"), (3, 5, "mul", "memcpy HtoD 64 B"), (21, 4, "CUDA graph", None),
        (10, 1, "memcpy HtoD 64 B", "memset"),
    ]  # fmt: skip


def test_a_gap_split_by_cause(tmp_path):
    """3–8: poll until 5, an allocation until 6, then it ends at a copy without a call."""
    row = of(tmp_path, *ROWS, window=(0, 25)).longest.row(1, named=True)
    assert {name: row[name] for name in ("blocked", "cuda", "unknown", "host")} == {
        "blocked": 0, "cuda": 1, "unknown": 4, "host": 0,
    }  # fmt: skip


def test_only_the_longest(tmp_path):
    assert of(tmp_path, *ROWS, window=(0, 25), top=2).longest["dur_ns"].to_list() == [8, 5]


def test_the_histogram_counts_them_all(tmp_path):
    """Gaps of 999 ns, 1 µs, 4 µs, 5 µs and 6 ms."""
    ends = [0, 1000, 2001, 6002, 11_003, 6_011_004]
    rows = [kernel("k", at, at + 1) for at in ends]
    hist = of(tmp_path, *rows, window=(0, 6_011_005), top=1).hist
    assert hist.rows() == [
        (0, 1_000, 1, 999), (1_000, 5_000, 2, 5_000), (5_000, 50_000, 1, 5_000), (50_000, 500_000, 0, 0),
        (500_000, 5_000_000, 0, 0), (5_000_000, None, 1, 6_000_000),
    ]  # fmt: skip


def test_a_gpu_that_never_rests_has_no_gap(tmp_path):
    found = of(tmp_path, api("cudaFree", 0, 1), kernel("k", 0, 8), window=(0, 8))
    assert found.longest.is_empty()
    assert found.hist["count"].sum() == 0


def test_cuda_was_not_collected(tmp_path):
    with pytest.raises(MissingTableError, match="; capture with --trace=cuda"):
        gaps(open_tiny(tmp_path, string(1, "x")))
