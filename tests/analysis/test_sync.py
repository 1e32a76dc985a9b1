"""Sync share, and what the waiting was."""

from __future__ import annotations

from unittest import mock

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_trace import WHOLE_CONTEXT, Row, api, awaited, kernel, memcpy, open_tiny, os_call

from nsyskit.analysis import sync as module
from nsyskit.analysis.sync import SyncResult, classified_syncs, sync
from nsyskit.errors import MissingTableError
from nsyskit.ingest import open_trace
from nsyskit.trace import Window


def result(tmp_path, *rows: Row | list[Row], window: tuple[int, int] | None = None) -> SyncResult:
    return sync(open_tiny(tmp_path, *rows), window=Window("explicit", *window) if window else None)


class TestShares:
    ROWS = (
        api("cudaLaunchKernel", 0, 2, corr=1), kernel("k", 2, 10, corr=1),
        api("cudaStreamSynchronize_v3020", 2, 10, corr=2), api("cudaMemcpy_v3020", 10, 15, corr=3),
        memcpy("DtoH", 12, 14, corr=3), api("cudaMalloc", 15, 20, corr=4),
    )  # fmt: skip

    def test_of_all_api_time(self, tmp_path):
        """8 of 20 ns synchronize, 5 more copy and block."""
        found = result(tmp_path, *self.ROWS)
        assert (found.calls, found.total_ns) == (1, 8)
        assert (found.share_of_api, found.sync_copy_share) == (0.4, 0.65)

    def test_by_api(self, tmp_path):
        columns = ["name", "calls", "total_ns", "share_of_api", "class"]
        assert result(tmp_path, *self.ROWS).by_api.select(columns).rows() == [
            ("cudaStreamSynchronize", 1, 8, 0.4, "sync"), ("cudaMalloc", 1, 5, 0.25, "cuda"),
            ("cudaMemcpy", 1, 5, 0.25, "sync"), ("cudaLaunchKernel", 1, 2, 0.1, "submit"),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "name", ["cudaDeviceSynchronize", "cudaEventSynchronize_v3020", "cuCtxSynchronize", "cuStreamSynchronize"]
    )
    def test_what_counts_as_synchronizing(self, tmp_path, name):
        assert result(tmp_path, api(name, 0, 3), api("cudaFree", 3, 8)).share_of_api == 0.375

    @pytest.mark.parametrize("name", ["cudaStreamWaitEvent", "cudaStreamQuery", "cudaEventQuery", "cudaEventRecord"])
    def test_what_does_not(self, tmp_path, name):
        found = result(tmp_path, api(name, 0, 3), api("cudaFree", 3, 8))
        assert (found.share_of_api, found.sync_copy_share) == (0.0, 0.0)

    def test_a_window_takes_whole_calls_that_start_inside(self, tmp_path):
        """5 of 10 ns: the copy and the allocation start at or after 10."""
        found = result(tmp_path, *self.ROWS, window=(10, 16))
        assert (found.share_of_api, found.sync_copy_share) == (0.0, 0.5)

    def test_without_calls_no_share(self, tmp_path):
        found = result(tmp_path, kernel("k", 0, 3))
        assert (found.share_of_api, found.sync_copy_share, found.wait_share) == (None, None, None)

    def test_backtrace_duplicates_take_no_part(self, tmp_path):
        twice = api("cudaStreamSynchronize", 0, 3, corr=1, eventClass=67)
        assert (
            result(tmp_path, api("cudaStreamSynchronize", 0, 3, corr=1), twice, api("cudaFree", 3, 8)).share_of_api
            == 0.375
        )


class TestWaiting:
    def test_over_a_busy_and_over_an_idle_gpu(self, tmp_path):
        """In sync from 3 to 13, the GPU works from 5 to 8."""
        found = result(
            tmp_path, api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 5, 8, corr=1),
            api("cudaStreamSynchronize", 3, 13, corr=2), window=(0, 20),
        )  # fmt: skip
        assert (found.wait_ns, found.idle_ns, found.wait_share) == (3, 7, 0.3)

    def test_no_share_below_one_percent_of_the_window(self, tmp_path):
        rows = [api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 3, 8, corr=1), api("cudaStreamSynchronize", 3, 8)]
        assert result(tmp_path, *rows, window=(0, 500)).wait_share == 1.0
        (tmp_path / "wide").mkdir()
        wide = result(tmp_path / "wide", *rows, window=(0, 501))
        assert (wide.wait_ns, wide.wait_share) == (5, None)

    def test_threads_that_feed_no_gpu_wait_for_nothing(self, tmp_path):
        rows = [
            api("cudaLaunchKernel", 0, 3, corr=1),
            kernel("k", 3, 8, corr=1),
            api("cudaStreamSynchronize", 3, 8, tid=99),
        ]
        found = result(tmp_path, *rows, window=(0, 8))
        assert (found.wait_ns, found.idle_ns, found.by_class["calls"].sum()) == (0, 0, 0)
        assert found.calls == 1


def classes(tmp_path, *rows: Row | list[Row]) -> list[str]:
    """The class of each synchronizing call of driver threads, in time order."""
    return classified_syncs(open_tiny(tmp_path, *rows), Window("explicit", 0, 1000))["sync_class"].to_list()


class TestClasses:
    """Thread 11 has launched a kernel that runs from 5 to 13, on stream 7 of context 1."""

    LAUNCHED = (api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 5, 13, corr=1, stream=7, contextId=1))

    def test_no_wait_when_nothing_was_unfinished(self, tmp_path):
        assert classes(tmp_path, *self.LAUNCHED, api("cudaStreamSynchronize", 13, 20, corr=2)) == ["no_wait"]

    def test_gpu_wait_when_the_gpu_was_busy_for_at_least_half_of_it(self, tmp_path):
        """5–13 is busy: 8 of 16."""
        assert classes(tmp_path, *self.LAUNCHED, api("cudaStreamSynchronize", 4, 20, corr=2)) == ["gpu_wait"]

    def test_host_bound_when_it_was_busy_for_less(self, tmp_path):
        """8 of 17."""
        assert classes(tmp_path, *self.LAUNCHED, api("cudaStreamSynchronize", 4, 21, corr=2)) == ["host_bound"]

    def test_upload_when_only_copies_to_the_device_were_unfinished(self, tmp_path):
        rows = [api("cudaMemcpyAsync", 0, 3, corr=1), memcpy("HtoD", 5, 13, corr=1)]
        assert classes(tmp_path, *rows, api("cudaStreamSynchronize", 4, 13, corr=2)) == ["upload"]

    @pytest.mark.parametrize("label", ["DtoH", "DtoD"])
    def test_other_copies_are_work(self, tmp_path, label):
        rows = [api("cudaMemcpyAsync", 0, 3, corr=1), memcpy(label, 5, 13, corr=1)]
        assert classes(tmp_path, *rows, api("cudaStreamSynchronize", 4, 13, corr=2)) == ["gpu_wait"]

    @pytest.mark.parametrize(
        ("stream", "context", "expected"),
        [(7, 1, "gpu_wait"), (13, 1, "no_wait"), (WHOLE_CONTEXT, 1, "gpu_wait"), (WHOLE_CONTEXT, 2, "no_wait")],
    )
    def test_the_synchronization_table_tells_what_was_awaited(self, tmp_path, stream, context, expected):
        waits = awaited(2, stream=stream, contextId=context)
        assert classes(tmp_path, *self.LAUNCHED, api("cudaStreamSynchronize", 4, 13, corr=2), waits) == [expected]

    def test_it_is_joined_within_the_process(self, tmp_path):
        foreign = awaited(2, stream=13, pid=99)
        assert classes(tmp_path, *self.LAUNCHED, api("cudaStreamSynchronize", 4, 13, corr=2), foreign) == ["gpu_wait"]

    def test_what_is_handed_over_later_is_not_awaited(self, tmp_path):
        later = [api("cudaLaunchKernel", 14, 15, corr=3), kernel("k2", 15, 30, corr=3)]
        assert classes(tmp_path, *self.LAUNCHED, api("cudaStreamSynchronize", 13, 20, corr=2), *later) == ["no_wait"]

    def test_a_blocking_copy_waits_for_itself(self, tmp_path):
        """Pageable, to the host: 4–13 the call, 8–13 the copy."""
        copy = [api("cudaMemcpyAsync", 4, 13, corr=2), memcpy("DtoH", 8, 13, dst="pageable", corr=2)]
        assert classes(tmp_path, *copy) == ["gpu_wait"]

    def test_a_blocking_copy_to_the_device_is_an_upload(self, tmp_path):
        copy = [api("cudaMemcpyAsync", 4, 13, corr=2), memcpy("HtoD", 8, 13, src="pageable", corr=2)]
        assert classes(tmp_path, *copy) == ["upload"]

    def test_copies_are_told_apart_from_synchronize_functions(self, tmp_path):
        copy = [api("cudaMemcpyAsync", 20, 30, corr=2), memcpy("DtoH", 22, 30, dst="pageable", corr=2)]
        rows = [*self.LAUNCHED, api("cudaStreamSynchronize", 4, 13, corr=3), *copy]
        found = result(tmp_path, *rows, window=(0, 100))
        assert {row["class"]: (row["calls"], row["total_ns"]) for row in found.by_class.iter_rows(named=True)} == {
            "no_wait": (0, 0), "upload": (0, 0), "gpu_wait": (1, 9), "host_bound": (0, 0),
        }  # fmt: skip
        copies = {row["class"]: (row["calls"], row["total_ns"]) for row in found.copies_by_class.iter_rows(named=True)}
        assert copies["gpu_wait"] == (1, 10)


def test_cuda_was_not_collected(tmp_path):
    with pytest.raises(MissingTableError, match="holds no CUDA API calls; capture with --trace=cuda"):
        sync(open_tiny(tmp_path, os_call("poll", 0, 3)))


def test_the_main_path_on_a_real_gpu(real):
    """97.5 % of the T4's API time is pageable copies to the host that block over a busy GPU; nothing synchronizes."""
    found = sync(open_trace(real("t4-power-iteration")))
    assert found.share_of_api < 0.001
    assert found.sync_copy_share == pytest.approx(0.975, abs=0.002)
    assert found.wait_share > 0.99


SPAN = st.tuples(st.integers(0, 9), st.integers(0, 5), st.booleans())


@given(st.lists(SPAN, max_size=10), st.lists(st.integers(-2, 16), max_size=6), st.sampled_from([2, 3, 99]))
def test_what_was_handed_over_is_searched_a_piece_at_a_time(spans, instants, piece_rows):
    """In order where the file lists it so; everything else is put in order first."""
    rows = [(at, at + delay, at + 2 * delay, among) for at, delay, among in spans]
    schema = {"start_ns": pl.Int64, "call_end_ns": pl.Int64, "end_ns": pl.Int64, "among": pl.Boolean}
    by = pl.Series(instants, dtype=pl.Int64)

    def expected(at: int) -> int | None:
        return max((end for _, over, end, among in rows if among and over <= at), default=None)

    for order in (rows, sorted(rows, key=lambda row: row[1])):
        ops = pl.DataFrame(order, schema=schema, orient="row")
        with mock.patch.object(module, "PIECE_ROWS", piece_rows):
            for asked in (by, by.sort()):
                wanted = [expected(at) for at in asked]
                assert module._reach(ops, pl.col("among"), asked).to_list() == wanted
                found = module._reach_in_order(ops, pl.col("among"), asked)
                assert found is None or found.to_list() == wanted
    assert found is not None
