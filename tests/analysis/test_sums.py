"""The rules that make sums equal to nsys's, one small trace each. Whole files are held in test_sums_oracle.py."""

from __future__ import annotations

import pytest
from tiny_trace import api, kernel, memcpy, memset, nvtx, open_tiny, os_call, string

from nsyskit.analysis import sums
from nsyskit.errors import MissingTableError
from nsyskit.trace import Window


def rows(result: sums.SumResult, *columns: str) -> list[tuple[object, ...]]:
    return result.rows.select(columns).rows()


def test_every_figure_of_a_row(tmp_path):
    """3 + 5 + 10 = 18 of 20 ns."""
    trace = open_tiny(
        tmp_path, kernel("mul", 0, 3), kernel("mul", 10, 15), kernel("mul", 20, 30), kernel("add", 40, 42)
    )
    mul, add = sums.kernel_sum(trace).rows.iter_rows(named=True)
    assert {name: mul[name] for name in sums.DURATION_COLUMNS if name != "stddev_ns"} == {
        "name": "mul", "time_share": 0.9, "total_ns": 18, "count": 3, "avg_ns": 6.0, "med_ns": 5.0, "min_ns": 3,
        "max_ns": 10,
    }  # fmt: skip
    assert mul["stddev_ns"] == pytest.approx(13**0.5)  # squares 9 + 1 + 16, over n − 1
    assert (add["name"], add["time_share"], add["stddev_ns"]) == ("add", 0.1, 0.0)


def test_p99_of_a_kernel_is_an_observed_duration(tmp_path):
    """Of 200 durations 1, 2, … 200 the nearest to rank 0.99 · 199 = 197.01 is 198."""
    trace = open_tiny(tmp_path, *(kernel("mul", 0, length) for length in range(1, 201)), kernel("add", 0, 3))
    assert rows(sums.kernel_sum(trace), "name", "p99_ns") == [("mul", 198), ("add", 3)]


def test_the_median_of_an_even_count_is_the_mean_of_the_middle_two(tmp_path):
    trace = open_tiny(tmp_path, *(kernel("mul", 0, length) for length in (3, 5, 8, 13)))
    assert rows(sums.kernel_sum(trace), "med_ns") == [(6.5,)]


def test_the_spread_of_one_is_zero_and_not_nothing(tmp_path):
    trace = open_tiny(tmp_path, kernel("mul", 0, 3), memcpy("HtoD", 0, 3), api("cudaFree", 0, 3))
    results = [sums.kernel_sum(trace), sums.mem_time_sum(trace), sums.api_sum(trace)]
    assert [rows(result, "stddev_ns") for result in results] == [[(0.0,)]] * 3
    assert rows(sums.mem_size_sum(trace), "stddev_bytes") == [(0.0,)]


class TestApi:
    def test_two_ids_that_print_one_name_stay_two_rows(self, tmp_path):
        trace = open_tiny(
            tmp_path, api("cudaMalloc_v3020", 0, 3), api("cudaMalloc_v4000", 5, 10), api("cudaMalloc_v4000", 10, 13)
        )
        assert rows(sums.api_sum(trace), "name", "total_ns", "count") == [("cudaMalloc", 8, 2), ("cudaMalloc", 3, 1)]

    @pytest.mark.parametrize(
        ("stored", "printed"),
        [
            ("cudaLaunchKernel_v7000", "cudaLaunchKernel"), ("cudaGraphLaunch_v10000", "cudaGraphLaunch_v10000"),
            ("cuMemAlloc_v2", "cuMemAlloc_v2"), ("cudaMemcpyAsync_ptsz_v7000", "cudaMemcpyAsync_ptsz"),
            ("cudaStreamSynchronize_v3020_ptsz", "cudaStreamSynchronize_v3020_ptsz"),
        ],
    )  # fmt: skip
    def test_names_lose_a_version_of_four_digits(self, tmp_path, stored, printed):
        assert rows(sums.api_sum(open_tiny(tmp_path, api(stored, 0, 3))), "name") == [(printed,)]

    def test_backtrace_duplicates_count(self, tmp_path):
        trace = open_tiny(tmp_path, api("cudaFree", 0, 3, corr=1), api("cudaFree", 0, 3, corr=1, eventClass=67))
        assert rows(sums.api_sum(trace), "total_ns", "count") == [(6, 2)]

    def test_all_processes_together(self, tmp_path):
        trace = open_tiny(tmp_path, api("cudaFree", 0, 3, pid=3), api("cudaFree", 0, 5, pid=5))
        assert rows(sums.api_sum(trace), "total_ns", "count") == [(8, 2)]

    def test_a_name_that_the_file_does_not_explain(self, tmp_path):
        assert rows(sums.api_sum(open_tiny(tmp_path, api("", 0, 3, nameId=77))), "name") == [("[unknown name 77]",)]


def test_os_calls_group_by_id_and_keep_their_names(tmp_path):
    trace = open_tiny(tmp_path, os_call("poll", 0, 3), os_call("poll", 5, 10), os_call("read_v1234", 0, 1))
    assert rows(sums.osrt_sum(trace), "name", "total_ns", "count") == [("poll", 8, 2), ("read_v1234", 1, 1)]


def test_kernels_group_by_the_string(tmp_path):
    """A report merged from several holds one string under two ids."""
    trace = open_tiny(
        tmp_path, string(3, "mul"), string(5, "mul"),
        kernel("", 0, 3, demangledName=3, shortName=3), kernel("", 5, 10, demangledName=5, shortName=5),
    )  # fmt: skip
    assert rows(sums.kernel_sum(trace), "name", "total_ns", "count") == [("mul", 8, 2)]


def test_kernels_of_one_short_name_stay_apart(tmp_path):
    trace = open_tiny(tmp_path, kernel("mul<int>", 0, 3, short="mul"), kernel("mul<float>", 0, 5, short="mul"))
    assert rows(sums.kernel_sum(trace), "name", "total_ns") == [("mul<float>", 5), ("mul<int>", 3)]


class TestCopies:
    def test_by_label_with_memsets_beside(self, tmp_path):
        trace = open_tiny(
            tmp_path, memcpy("HtoD", 0, 3, 64), memcpy("HtoD", 5, 10, 16), memcpy("DtoH", 0, 2, 8), memset(0, 10, 5)
        )
        assert rows(sums.mem_time_sum(trace), "name", "total_ns", "count") == [
            ("memset", 10, 1), ("HtoD", 8, 2), ("DtoH", 2, 1),
        ]  # fmt: skip
        sizes = rows(sums.mem_size_sum(trace), "name", "total_bytes", "count", "avg_bytes", "min_bytes", "max_bytes")
        assert sizes == [
            ("HtoD", 80, 2, 40.0, 16, 64), ("DtoH", 8, 1, 8.0, 8, 8), ("memset", 5, 1, 5.0, 5, 5),
        ]  # fmt: skip

    def test_the_four_directions_of_arrays_are_one_label(self, tmp_path):
        trace = open_tiny(tmp_path, memcpy("HtoA", 0, 3), memcpy("AtoD", 0, 5))
        assert rows(sums.mem_time_sum(trace), "name", "total_ns", "count") == [("array", 8, 2)]


def test_nvtx_by_style_and_text(tmp_path):
    trace = open_tiny(
        tmp_path,
        nvtx("step", 0, 3),
        nvtx("step", 5, 10),
        nvtx("step", 0, 2, style="StartEnd"),
        nvtx("x", 1, None, style="mark"),
    )
    assert rows(sums.nvtx_sum(trace), "style", "name", "total_ns", "count") == [
        ("PushPop", "step", 8, 2), ("StartEnd", "step", 2, 1),
    ]  # fmt: skip


class TestExec:
    def test_every_part_of_a_pair(self, tmp_path):
        """Call 0–3, kernel 5–13: waits 2 in the queue, 13 in all."""
        trace = open_tiny(tmp_path, api("cudaLaunchKernel_v7000", 0, 3, corr=1), kernel("mul", 5, 13, corr=1))
        (row,) = sums.kern_exec_sum(trace).rows.iter_rows(named=True)
        assert [row[name] for name in ("pid", "tid", "device", "api", "kernel", "count", "queue_count")] == [
            10, 11, 0, "cudaLaunchKernel", "mul", 1, 1,
        ]  # fmt: skip
        assert [row[f"{part}_avg_ns"] for part in ("total", "api", "queue", "kernel")] == [13.0, 3.0, 2.0, 8.0]

    def test_a_kernel_that_starts_before_its_call_returns_was_not_queued(self, tmp_path):
        trace = open_tiny(tmp_path, api("cudaLaunchKernel", 0, 8, corr=1), kernel("mul", 5, 6, corr=1))
        (row,) = sums.kern_exec_sum(trace).rows.iter_rows(named=True)
        assert row["queue_count"] == 0
        assert [row[f"queue_{name}_ns"] for name in sums.EXEC_STATISTICS] == [None, None, None, None, 0.0]
        assert row["total_max_ns"] == 8, "to the later of both ends"

    def test_only_queued_pairs_enter_the_queue_figures(self, tmp_path):
        trace = open_tiny(
            tmp_path, api("cudaLaunchKernel", 0, 3, corr=1), kernel("mul", 8, 9, corr=1),
            api("cudaLaunchKernel", 10, 15, corr=2), kernel("mul", 12, 13, corr=2),
        )  # fmt: skip
        (row,) = sums.kern_exec_sum(trace).rows.iter_rows(named=True)
        assert (row["count"], row["queue_count"], row["queue_avg_ns"]) == (2, 1, 5.0)

    def test_duplicated_ids_multiply(self, tmp_path):
        trace = open_tiny(
            tmp_path, api("cudaLaunchKernel", 0, 3, corr=1), api("cudaLaunchKernel", 0, 3, corr=1, eventClass=67),
            kernel("mul", 5, 8, corr=1), kernel("mul", 8, 13, corr=1),
        )  # fmt: skip
        assert rows(sums.kern_exec_sum(trace), "count") == [(4,)]

    def test_the_same_id_in_two_processes_pairs_within_each(self, tmp_path):
        trace = open_tiny(
            tmp_path, api("cudaLaunchKernel", 0, 3, corr=1, pid=3), api("cudaLaunchKernel", 0, 5, corr=1, pid=5),
            kernel("mul", 8, 9, corr=1, pid=3), kernel("mul", 8, 10, corr=1, pid=5),
        )  # fmt: skip
        assert rows(sums.kern_exec_sum(trace), "pid", "count", "api_avg_ns", "kernel_avg_ns") == [
            (5, 1, 5.0, 2.0), (3, 1, 3.0, 1.0),
        ]  # fmt: skip

    def test_rows_without_a_partner_or_an_id_pair_with_nothing(self, tmp_path):
        trace = open_tiny(tmp_path, api("cudaLaunchKernel", 0, 3), kernel("mul", 5, 8), kernel("mul", 5, 8, corr=9))
        assert sums.kern_exec_sum(trace).rows.is_empty()


class TestWindows:
    """Whole rows that start inside."""

    def test_the_row_at_the_start_counts_whole_and_the_one_at_the_end_does_not(self, tmp_path):
        trace = open_tiny(
            tmp_path, kernel("before", 2, 8), kernel("first", 3, 5), kernel("last", 7, 20), kernel("after", 8, 9)
        )
        assert rows(sums.kernel_sum(trace, window=Window("explicit", 3, 8)), "name", "total_ns", "time_share") == [
            ("last", 13, 13 / 15), ("first", 2, 2 / 15),
        ]  # fmt: skip

    def test_pairs_are_those_whose_call_starts_inside(self, tmp_path):
        trace = open_tiny(
            tmp_path, api("cudaLaunchKernel", 0, 3, corr=1), kernel("mul", 20, 21, corr=1),
            api("cudaLaunchKernel", 8, 9, corr=2), kernel("mul", 21, 22, corr=2),
        )  # fmt: skip
        assert rows(sums.kern_exec_sum(trace, window=Window("explicit", 0, 5)), "count", "api_avg_ns") == [(1, 3.0)]

    @pytest.mark.parametrize(
        "analysis",
        [
            sums.api_sum,
            sums.osrt_sum,
            sums.kernel_sum,
            sums.mem_time_sum,
            sums.mem_size_sum,
            sums.nvtx_sum,
            sums.kern_exec_sum,
        ],
    )
    def test_a_window_without_rows(self, tmp_path, analysis):
        trace = open_tiny(
            tmp_path, api("cudaFree", 0, 3, corr=1), os_call("poll", 0, 3), kernel("k", 0, 3, corr=1),
            memcpy("HtoD", 0, 3), nvtx("x", 0, 3),
        )  # fmt: skip
        whole, empty = analysis(trace), analysis(trace, window=Window("explicit", 5, 8))
        assert (whole.rows.height, empty.rows.height) == (1, 0)
        assert empty.rows.schema == whole.rows.schema


class TestOrder:
    def test_by_total_then_by_name(self, tmp_path):
        trace = open_tiny(tmp_path, kernel("b", 0, 3), kernel("a", 0, 3), kernel("c", 0, 5))
        assert rows(sums.kernel_sum(trace), "name") == [("c",), ("a",), ("b",)]

    def test_shares_are_of_the_listed_rows_even_when_none_took_time(self, tmp_path):
        trace = open_tiny(tmp_path, kernel("a", 3, 3), kernel("b", 5, 5))
        assert rows(sums.kernel_sum(trace), "name", "time_share") == [("a", 0.0), ("b", 0.0)]


@pytest.mark.parametrize(
    ("analysis", "message"),
    [
        (sums.api_sum, "this trace holds no CUDA API calls; capture with --trace=cuda"),
        (sums.kernel_sum, "this trace holds no CUDA kernels; capture with --trace=cuda"),
        (sums.kern_exec_sum, "this trace holds no CUDA kernels; capture with --trace=cuda"),
        (sums.mem_time_sum, "this trace holds no CUDA memory operations; capture with --trace=cuda"),
        (sums.mem_size_sum, "this trace holds no CUDA memory operations; capture with --trace=cuda"),
        (sums.osrt_sum, "this trace holds no OS runtime calls; capture with --trace=osrt"),
        (sums.nvtx_sum, "this trace holds no NVTX ranges; capture with --trace=nvtx"),
    ],
)
def test_what_was_not_collected_is_no_empty_table(tmp_path, analysis, message):
    with pytest.raises(MissingTableError) as caught:
        analysis(open_tiny(tmp_path, string(1, "x")))
    assert str(caught.value) == message


def test_a_source_that_was_collected_without_rows_is_an_empty_table(tmp_path):
    trace = open_tiny(tmp_path, api("cudaFree", 0, 3))
    assert sums.kernel_sum(trace).rows.is_empty()
    assert sums.mem_size_sum(trace).rows.is_empty()
