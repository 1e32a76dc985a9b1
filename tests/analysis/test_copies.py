"""Copies by size, memory and speed."""

from __future__ import annotations

import pytest
from tiny_trace import Row, api, memcpy, memset, open_tiny, os_call

from nsyskit.analysis.copies import CopiesResult, copies
from nsyskit.errors import MissingTableError
from nsyskit.trace import Window

WIDE = Window("explicit", 0, 1000)


def result(tmp_path, *rows: Row | list[Row], window: Window = WIDE) -> CopiesResult:
    return copies(open_tiny(tmp_path, *rows), window=window)


@pytest.mark.parametrize(
    ("size", "lo", "hi"),
    [
        (0, 0, 1), (1, 1, 2), (2, 2, 4), (3, 2, 4), (4, 4, 8), (1023, 512, 1024), (1024, 1024, 2048),
        (2**31 - 1, 2**30, 2**31), (2**31, 2**31, 2**32), (2**53 - 1, 2**52, 2**53), (2**53, 2**53, 2**54),
        (2**53 + 1, 2**53, 2**54), (2**62 - 1, 2**61, 2**62), (2**61, 2**61, 2**62),
    ],
)  # fmt: skip
def test_bins_are_powers_of_two_and_one_for_nothing(tmp_path, size, lo, hi):
    hist = result(tmp_path, memcpy("HtoD", 0, 3, size)).hist
    assert hist.select("lo_bytes", "hi_bytes", "count", "bytes").rows() == [(lo, hi, 1, size)]


def test_one_bin_adds_up(tmp_path):
    """4 + 7 bytes in 3 + 2 ns."""
    hist = result(tmp_path, memcpy("HtoD", 0, 3, 4), memcpy("HtoD", 5, 7, 7), memcpy("HtoD", 8, 9, 8)).hist
    assert hist.select("lo_bytes", "count", "bytes", "total_ns", "gb_per_s").rows() == [
        (4, 2, 11, 5, 2.2),
        (8, 1, 8, 1, 8.0),
    ]


def test_a_bin_that_took_no_time_has_no_speed(tmp_path):
    assert result(tmp_path, memcpy("HtoD", 3, 3, 4)).hist["gb_per_s"].to_list() == [None]


@pytest.mark.parametrize(
    ("label", "src", "dst", "memory"),
    [
        ("HtoD", "pageable", "device", "pageable"), ("HtoD", "pinned", "device", "pinned"),
        ("DtoH", "device", "pageable", "pageable"), ("DtoH", "device", "pinned", "pinned"),
        ("HtoD", "managed", "device", "managed"), ("DtoD", "device", "device", "device"),
        ("HtoH", "pageable", "pinned", "pageable"),
    ],
)  # fmt: skip
def test_memory_is_that_of_the_host_side(tmp_path, label, src, dst, memory):
    hist = result(tmp_path, memcpy(label, 0, 3, src=src, dst=dst)).hist
    assert hist.select("label", "memory").rows() == [(label, memory)]


def test_memsets_stand_beside(tmp_path):
    hist = result(tmp_path, memset(0, 3, 64), memcpy("DtoH", 0, 3, 64)).hist
    assert hist.select("label", "memory", "count").rows() == [("DtoH", "pinned", 1), ("memset", "device", 1)]


def test_only_operations_that_start_in_the_window(tmp_path):
    rows = [memcpy("HtoD", 2, 8, 1), memcpy("HtoD", 3, 20, 2), memcpy("HtoD", 8, 9, 4)]
    assert result(tmp_path, *rows, window=Window("explicit", 3, 8)).hist["lo_bytes"].to_list() == [2]


class TestBlocking:
    @pytest.mark.parametrize(
        ("end", "memory", "blocked"),
        [(8, "pageable", 1), (9, "pageable", 1), (7, "pageable", 0), (8, "pinned", 0)],
    )
    def test_a_pageable_side_and_a_call_that_outlasts_its_copy(self, tmp_path, end, memory, blocked):
        """The copy runs from 3 to 8."""
        found = result(tmp_path, api("cudaMemcpyAsync", 0, end, corr=1), memcpy("HtoD", 3, 8, src=memory, corr=1))
        assert (found.blocking_count, found.blocking_ns) == (blocked, blocked * end)
        assert found.hist["blocking_count"].to_list() == [blocked]

    def test_being_pageable_alone_is_not_the_fault(self, tmp_path):
        assert result(tmp_path, memcpy("HtoD", 3, 8, src="pageable")).blocking_count == 0


def test_cuda_was_not_collected(tmp_path):
    with pytest.raises(MissingTableError, match="holds no CUDA copies; capture with --trace=cuda"):
        copies(open_tiny(tmp_path, os_call("poll", 0, 3)))
