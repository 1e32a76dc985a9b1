"""The device ledger: every part of busy, every cause of idle, on traces whose answer can be counted."""

from __future__ import annotations

from itertools import combinations

import pytest
from tiny_trace import (
    PID,
    TID,
    Row,
    api,
    cuda_device,
    gpu,
    graph,
    kernel,
    memcpy,
    memset,
    open_tiny,
    os_call,
    overhead,
    string,
)

from nsyskit.analysis.devices import DeviceLedger, devices
from nsyskit.errors import MissingTableError
from nsyskit.trace import Window

OTHER = 12  # another thread of the process
DRIVES = [api("cudaLaunchKernel_v7000", 0, 3, corr=1), kernel("mul", 3, 8, corr=1)]
"""A thread that launches until 3 and a kernel from 3 to 8: what happens after 8 is the test's business."""


def ledgers(tmp_path, *rows: Row | list[Row], window: tuple[int, int]) -> tuple[DeviceLedger, ...]:
    return devices(open_tiny(tmp_path, *rows), window=Window("explicit", *window)).devices


def idle(tmp_path, *rows: Row | list[Row], window: tuple[int, int]) -> dict[str, int]:
    """Causes that took time, of the one GPU there is."""
    (ledger,) = ledgers(tmp_path, *rows, window=window)
    assert sum(ledger.idle.values()) == ledger.idle_ns
    return {cause: ns for cause, ns in ledger.idle.items() if ns}


class TestBusy:
    def test_its_four_parts(self, tmp_path):
        """Kernel 0–5, graph 3–8, copy 7–10, memset 9–13."""
        (ledger,) = ledgers(
            tmp_path, kernel("k", 0, 5), graph(3, 8), memcpy("HtoD", 7, 10), memset(9, 13), window=(0, 20)
        )
        parts = (ledger.kernel_ns, ledger.graph_ns, ledger.memcpy_ns, ledger.memset_ns)
        assert parts == (5, 3, 2, 3)
        assert (ledger.busy_ns, ledger.idle_ns, ledger.busy_share) == (13, 7, 0.65)

    def test_kernels_of_several_streams_count_once_and_overlap_tells_the_rest(self, tmp_path):
        (ledger,) = ledgers(
            tmp_path,
            kernel("a", 0, 5, stream=7),
            kernel("b", 3, 8, stream=13),
            kernel("c", 3, 4, stream=14),
            window=(0, 8),
        )
        assert (ledger.kernel_ns, ledger.kernel_sum_ns, ledger.overlap_ns) == (8, 11, 3)

    def test_a_graph_row_is_never_kernel_time(self, tmp_path):
        (ledger,) = ledgers(tmp_path, graph(0, 8), kernel("a", 3, 5), window=(0, 8))
        assert (ledger.kernel_ns, ledger.graph_ns, ledger.overlap_ns) == (2, 6, 0)

    def test_rows_are_cut_at_the_window(self, tmp_path):
        (ledger,) = ledgers(tmp_path, kernel("a", 0, 5), kernel("b", 8, 20), window=(3, 13))
        assert (ledger.kernel_ns, ledger.kernel_sum_ns, ledger.idle_ns) == (7, 7, 3)

    def test_an_empty_row_takes_no_time(self, tmp_path):
        (ledger,) = ledgers(tmp_path, kernel("a", 3, 3), kernel("b", 5, 8), window=(0, 8))
        assert (ledger.busy_ns, ledger.idle_ns) == (3, 5)

    def test_without_a_window_from_the_first_to_the_last_operation(self, tmp_path):
        result = devices(open_tiny(tmp_path, api("cudaFree", 0, 3), kernel("a", 5, 8), kernel("b", 10, 13)))
        assert result.window == Window("gpu", 5, 13)
        assert (result.devices[0].busy_ns, result.devices[0].idle_ns) == (6, 2)


class TestCauses:
    def test_submit_then_dispatch(self, tmp_path):
        """Launch call 0–3, kernel 5–8."""
        rows = [api("cudaLaunchKernel_v7000", 0, 3, corr=1), kernel("k", 5, 8, corr=1)]
        assert idle(tmp_path, *rows, window=(0, 8)) == {"submit": 3, "dispatch": 2}

    @pytest.mark.parametrize(
        ("call", "cause"),
        [
            ("cudaStreamSynchronize_v3020", "sync"), ("cuCtxSynchronize", "sync"), ("cudaMemcpy_v3020", "sync"),
            ("cudaMemcpyAsync_v3020", "submit"), ("cudaGraphInstantiate_v12000", "cuda"), ("cuModuleLoadData", "cuda"),
            ("cudaMalloc_v3020", "cuda"), ("cudaStreamEndCapture_v10000", "cuda"),
        ],
    )  # fmt: skip
    def test_inside_a_call_of_a_class(self, tmp_path, call, cause):
        assert idle(tmp_path, *DRIVES, api(call, 10, 13), window=(3, 16)) == {cause: 3, "host": 5}

    @pytest.mark.parametrize(("call", "cause"), [("poll", "blocked"), ("sem_wait", "blocked"), ("read", "os")])
    def test_inside_a_call_of_the_operating_system(self, tmp_path, call, cause):
        assert idle(tmp_path, *DRIVES, os_call(call, 10, 13), window=(3, 16)) == {cause: 3, "host": 5}

    def test_nothing_at_all_is_the_users_code(self, tmp_path):
        assert idle(tmp_path, *DRIVES, window=(3, 13)) == {"host": 5}

    def test_a_blocking_copy_is_sync_whatever_its_name(self, tmp_path):
        """Pageable, and its call ends with the copy: 8–13 the call, 11–13 the copy."""
        copy = [api("cudaMemcpyAsync_v3020", 8, 13, corr=2), memcpy("DtoH", 11, 13, dst="pageable", corr=2)]
        assert idle(tmp_path, *DRIVES, *copy, window=(3, 13)) == {"sync": 3}

    def test_a_copy_that_returned_early_did_not_block(self, tmp_path):
        copy = [api("cudaMemcpyAsync_v3020", 8, 10, corr=2), memcpy("DtoH", 11, 13, dst="pageable", corr=2)]
        assert idle(tmp_path, *DRIVES, *copy, window=(3, 13)) == {"submit": 2, "dispatch": 1}

    @pytest.mark.parametrize("call", [api("cudaMalloc", 8, 13, tid=OTHER), os_call("poll", 8, 13, tid=OTHER)])
    def test_threads_that_drive_nothing_have_no_say(self, tmp_path, call):
        assert idle(tmp_path, *DRIVES, call, window=(3, 13)) == {"host": 5}

    def test_a_thread_drives_only_by_what_starts_in_the_window(self, tmp_path):
        early = [api("cudaLaunchKernel", 0, 1, corr=5, tid=OTHER), kernel("early", 1, 2, corr=5)]
        rows = [*early, *DRIVES, os_call("poll", 8, 13, tid=OTHER)]
        assert idle(tmp_path, *rows, window=(3, 13)) == {"host": 5}
        (tmp_path / "again").mkdir()
        assert idle(tmp_path / "again", *rows, window=(1, 13)) == {"submit": 1, "blocked": 5}

    def test_every_driver_thread_counts(self, tmp_path):
        second = [api("cudaLaunchKernel", 3, 4, corr=2, tid=OTHER), kernel("k2", 4, 8, corr=2)]
        rows = [*DRIVES, *second, os_call("poll", 8, 10), os_call("poll", 9, 13, tid=OTHER)]
        assert idle(tmp_path, *rows, window=(3, 16)) == {"blocked": 5, "host": 3}

    def test_backtrace_duplicates_explain_nothing(self, tmp_path):
        assert idle(tmp_path, *DRIVES, api("cudaMalloc", 8, 13, eventClass=67), window=(3, 13)) == {"host": 5}


class TestProfiler:
    def test_on_a_driver_thread_whatever_it_is_called(self, tmp_path):
        assert idle(tmp_path, *DRIVES, overhead("cuProfilerX", 10, 13), window=(3, 16)) == {"profiler": 3, "host": 5}

    @pytest.mark.parametrize("name", ["CUPTI Buffer flush", "Activity overhead", "BUFFER request"])
    def test_anywhere_in_the_process_when_it_stalls_all_of_it(self, tmp_path, name):
        rows = [*DRIVES, overhead(name, 10, 13, tid=OTHER)]
        assert idle(tmp_path, *rows, window=(3, 16)) == {"profiler": 3, "host": 5}

    @pytest.mark.parametrize(
        "row", [overhead("cuProfilerX", 10, 13, tid=OTHER), overhead("Buffer flush", 10, 13, pid=99, tid=99)]
    )
    def test_elsewhere_it_does_not_count(self, tmp_path, row):
        assert idle(tmp_path, *DRIVES, row, window=(3, 16)) == {"host": 8}


class TestUnknown:
    def test_without_any_api_row(self, tmp_path):
        assert idle(tmp_path, kernel("a", 0, 3), kernel("b", 8, 13), window=(0, 16)) == {"unknown": 8}

    def test_a_graph_launch_without_any_row_until_the_next_sync_of_its_thread_has_ended(self, tmp_path):
        rows = [*DRIVES, api("cudaGraphLaunch_v10000", 8, 9, corr=2), api("cudaStreamSynchronize", 10, 13, corr=3)]
        assert idle(tmp_path, *rows, window=(3, 16)) == {"unknown": 5, "host": 3}

    def test_without_a_later_sync_to_the_end_of_the_trace(self, tmp_path):
        rows = [*DRIVES, api("cudaGraphLaunch_v10000", 8, 9, corr=2), api("cudaFree", 15, 16, corr=3)]
        assert idle(tmp_path, *rows, window=(3, 20)) == {"unknown": 8, "host": 4}

    @pytest.mark.parametrize("ran", [graph(9, 11, corr=2), kernel("node", 9, 11, corr=2, node=5)])
    def test_a_graph_launch_that_left_rows_is_known(self, tmp_path, ran):
        rows = [*DRIVES, api("cudaGraphLaunch_v10000", 8, 9, corr=2), ran, api("cudaStreamSynchronize", 11, 13)]
        assert idle(tmp_path, *rows, window=(3, 16)) == {"submit": 1, "sync": 2, "host": 3}

    def test_of_another_process_it_is_no_matter(self, tmp_path):
        rows = [*DRIVES, api("cudaGraphLaunch_v10000", 8, 9, corr=2, pid=99)]
        assert idle(tmp_path, *rows, window=(3, 13)) == {"host": 5}

    def test_before_an_operation_without_a_call(self, tmp_path):
        """The stretch 8–13 ends at an orphan; a driver's own call explains 9–11 of it."""
        rows = [*DRIVES, api("cudaMalloc", 9, 11), kernel("orphan", 13, 15, corr=77)]
        assert idle(tmp_path, *rows, window=(3, 16)) == {"unknown": 3, "cuda": 2, "host": 1}


class TestPeer:
    TWO = (
        api("cudaLaunchKernel", 0, 1, corr=1), kernel("a", 1, 5, corr=1, device=0),
        api("cudaLaunchKernel", 1, 2, corr=2), kernel("b", 8, 13, corr=2, device=1),
    )  # fmt: skip

    def test_handed_over_while_another_gpu_of_the_process_is_busy(self, tmp_path):
        """B waits from 2 to 8; GPU 0 works until 5."""
        by_device = {ledger.use.device: ledger for ledger in ledgers(tmp_path, *self.TWO, window=(0, 13))}
        first, second = ({c: ns for c, ns in by_device[number].idle.items() if ns} for number in (0, 1))
        assert second == {"peer": 3, "dispatch": 3, "submit": 2}
        assert first == {"submit": 1, "host": 8}

    def test_the_gpu_of_another_process_is_no_peer(self, tmp_path):
        rows = [
            api("cudaLaunchKernel", 0, 1, corr=1, pid=99, tid=99), kernel("a", 1, 5, corr=1, device=0, pid=99),
            *self.TWO[2:],
        ]  # fmt: skip
        found = {ledger.use.pids: ledger.idle for ledger in ledgers(tmp_path, *rows, window=(1, 13))}
        assert {cause: ns for cause, ns in found[(PID,)].items() if ns} == {"submit": 1, "dispatch": 6}


# Every cause over 8–13, later ones under earlier ones.
LAYERS = {
    "unknown": [api("cudaGraphLaunch_v10000", 8, 8, corr=50), api("cudaStreamSynchronize", 8, 13, corr=51, tid=TID)],
    "dispatch": [api("cudaLaunchKernel", 7, 8, corr=52), kernel("late", 13, 16, corr=52)],
    "submit": [api("cudaMemsetAsync", 8, 13, corr=53)],
    "sync": [api("cudaDeviceSynchronize", 8, 13, corr=54)],
    "cuda": [api("cudaMalloc", 8, 13, corr=55)],
    "profiler": [overhead("Buffer flush", 8, 13)],
    "blocked": [os_call("poll", 8, 13)],
    "os": [os_call("read", 8, 13)],
}


@pytest.mark.parametrize(("first", "second"), list(combinations(LAYERS, 2)))
def test_of_two_causes_at_one_instant_the_first_counts(tmp_path, first, second):
    assert idle(tmp_path, *DRIVES, *LAYERS[second], *LAYERS[first], window=(3, 13)) == {first: 5}


class TestWhichGpu:
    def test_two_processes_on_one_gpu_are_one_ledger(self, tmp_path):
        rows = [
            gpu(4, "Tesla T4"), gpu(5, "Tesla T4"), cuda_device(4, 0, pid=3), cuda_device(4, 1, pid=5),
            kernel("a", 0, 3, pid=3, device=0), kernel("b", 2, 5, pid=5, device=1),
        ]  # fmt: skip
        (ledger,) = ledgers(tmp_path, *rows, window=(0, 8))
        assert (ledger.use.gpu, ledger.use.name, ledger.use.pids) == (4, "Tesla T4", (3, 5))
        assert (ledger.busy_ns, ledger.overlap_ns) == (5, 1)

    def test_where_the_file_does_not_say_each_process_has_its_own(self, tmp_path):
        rows = [kernel("a", 0, 3, pid=3), kernel("b", 0, 5, pid=5)]
        found = ledgers(tmp_path, *rows, window=(0, 8))
        assert [(ledger.use.gpu, ledger.use.members, ledger.busy_ns) for ledger in found] == [
            (None, ((5, 0),), 5), (None, ((3, 0),), 3),
        ]  # fmt: skip

    def test_most_busy_first(self, tmp_path):
        rows = [kernel("a", 0, 3, device=0), kernel("b", 0, 8, device=1)]
        assert [ledger.use.device for ledger in ledgers(tmp_path, *rows, window=(0, 8))] == [1, 0]


def test_no_gpu_work_is_no_ledger(tmp_path):
    assert ledgers(tmp_path, api("cudaFree", 0, 3), window=(0, 8)) == ()


def test_cuda_was_not_collected(tmp_path):
    with pytest.raises(MissingTableError, match="holds no CUDA rows; capture with --trace=cuda"):
        devices(open_tiny(tmp_path, string(1, "x")))
