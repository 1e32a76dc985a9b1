"""Launch pairs and the health of CUDA graphs."""

from __future__ import annotations

import pytest
from tiny_trace import Row, api, graph, kernel, open_tiny, os_call

from nsyskit.analysis.launch import LaunchResult, Quantiles, launch
from nsyskit.errors import MissingTableError
from nsyskit.trace import Window

WIDE = Window("explicit", 0, 1000)


def result(tmp_path, *rows: Row | list[Row], window: Window = WIDE) -> LaunchResult:
    return launch(open_tiny(tmp_path, *rows), window=window)


class TestPairs:
    def test_one_pair(self, tmp_path):
        """Call 0–3, kernel 5–13."""
        found = result(tmp_path, api("cudaLaunchKernel_v7000", 0, 3, corr=1), kernel("k", 5, 13, corr=1))
        assert (found.pairs, found.launches) == (1, 1)
        assert found.api_ns == Quantiles(3, 3, 3, 3.0)
        assert found.queue_ns == Quantiles(2, 2, 2, 2.0)
        assert found.kern_ns == Quantiles(8, 8, 8, 8.0)
        assert found.total_ns == Quantiles(13, 13, 13, 13.0)

    def test_a_kernel_that_begins_within_its_call_has_no_queue_time(self, tmp_path):
        found = result(tmp_path, api("cudaLaunchKernel", 0, 8, corr=1), kernel("k", 5, 6, corr=1))
        assert found.queue_ns == Quantiles(None, None, None, None)
        assert found.total_ns.p50 == 8

    def test_quantiles_are_values_that_occurred(self, tmp_path):
        rows = [
            row for number in range(1, 101)
            for row in (api("cudaLaunchKernel", 1000 * number, 1000 * number + number, corr=number),
                        kernel("k", 1000 * number + 500, 1000 * number + 503, corr=number))
        ]  # fmt: skip
        found = result(tmp_path, *rows, window=Window("explicit", 0, 200_000))
        assert found.api_ns.mean == 50.5
        assert abs(found.api_ns.p50 - 50) <= 1
        assert abs(found.api_ns.p90 - 90) <= 1
        assert abs(found.api_ns.p99 - 99) <= 1

    def test_share_of_kernels_shorter_than_their_own_call(self, tmp_path):
        rows = [
            row for number, length in enumerate((1, 2, 3, 8))
            for row in (api("cudaLaunchKernel", 20 * number, 20 * number + 3, corr=number),
                        kernel("k", 20 * number + 5, 20 * number + 5 + length, corr=number))
        ]  # fmt: skip
        assert result(tmp_path, *rows).shorter_than_launch_share == 0.5

    def test_by_process_and_id(self, tmp_path):
        found = result(tmp_path, api("cudaLaunchKernel", 0, 3, corr=1, pid=3), kernel("k", 5, 8, corr=1, pid=5))
        assert (found.pairs, found.orphans) == (0, 1)

    def test_later_nodes_of_a_replay_have_no_launch_latency(self, tmp_path):
        rows = [api("cudaGraphLaunch_v10000", 0, 3, corr=1)]
        rows += [kernel("a", 5, 8, corr=1, node=1), kernel("b", 8, 13, corr=1, node=2)]
        found = result(tmp_path, *rows)
        assert found.pairs == 2
        assert found.queue_ns == Quantiles(2, 2, 2, 2.0)

    def test_the_window_takes_pairs_whose_call_starts_inside(self, tmp_path):
        rows = [
            api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 20, 21, corr=1),
            api("cudaLaunchKernel", 8, 13, corr=2), kernel("k", 21, 22, corr=2),
        ]  # fmt: skip
        found = result(tmp_path, *rows, window=Window("explicit", 0, 8))
        assert (found.pairs, found.launches, found.api_ns.p50) == (1, 1, 3)


class TestCapture:
    RECORDING = (
        api("cudaStreamBeginCapture_v10000", 0, 1), api("cudaLaunchKernel_v7000", 2, 3, corr=1),
        api("cudaLaunchKernelExC_v11060", 3, 5, corr=2), api("cudaStreamEndCapture_v10000", 8, 9),
    )  # fmt: skip

    def test_launches_that_only_record_are_left_out_and_counted(self, tmp_path):
        after = [api("cudaLaunchKernel", 10, 13, corr=3), kernel("k", 15, 16, corr=3)]
        found = result(tmp_path, *self.RECORDING, *after)
        assert (found.launches, found.excluded_capture, found.pairs) == (1, 2, 1)

    def test_a_capture_is_its_threads_own(self, tmp_path):
        other = api("cudaLaunchKernel", 2, 3, corr=9, tid=99)
        found = result(tmp_path, *self.RECORDING, other)
        assert (found.launches, found.excluded_capture) == (1, 2)


class TestGraphs:
    def test_calls_of_each_kind(self, tmp_path):
        found = result(
            tmp_path, api("cudaStreamEndCapture_v10000", 0, 1), api("cudaGraphInstantiate_v12000", 1, 2),
            api("cudaGraphExecUpdate_v10020", 2, 3), api("cudaGraphLaunch_v10000", 3, 5, corr=1),
            api("cuGraphLaunch", 5, 8, corr=2), api("cudaGraphExecDestroy_v10000", 8, 9), graph(5, 8, corr=1),
        ).graph  # fmt: skip
        kinds = (found.launches, found.captures, found.instantiations, found.updates, found.destroys)
        assert kinds == (2, 1, 1, 1, 1)
        assert (found.recorded, found.coverage, found.node_level) == (1, 0.5, False)

    def test_node_rows_cover_a_launch_once(self, tmp_path):
        rows = [
            api("cudaGraphLaunch", 0, 3, corr=1),
            kernel("a", 5, 8, corr=1, node=1),
            kernel("b", 8, 9, corr=1, node=2),
        ]
        found = result(tmp_path, *rows).graph
        assert (found.coverage, found.node_level) == (1.0, True)

    def test_without_launches_no_coverage(self, tmp_path):
        assert result(tmp_path, api("cudaFree", 0, 3)).graph.coverage is None

    def test_whole_rows_and_node_rows_are_told_apart(self, tmp_path):
        found = result(
            tmp_path, api("cudaGraphLaunch", 0, 3, corr=1), api("cudaGraphLaunch", 3, 5, corr=2),
            api("cudaGraphLaunch", 5, 8, corr=3), graph(5, 8, corr=1), kernel("k", 8, 9, corr=2),
        ).graph  # fmt: skip
        assert (found.launches, found.recorded, found.whole) == (3, 2, 1)

    def test_a_graph_launch_is_no_kernel_launch(self, tmp_path):
        assert result(tmp_path, api("cudaGraphLaunch", 0, 3, corr=1), graph(5, 8, corr=1)).launches == 0


def test_orphans_are_operations_of_the_window_without_a_call(tmp_path):
    rows = [api("cudaFree", 0, 3), kernel("a", 3, 5, corr=8), kernel("b", 8, 9)]
    assert result(tmp_path, *rows).orphans == 2
    (tmp_path / "b").mkdir()
    assert result(tmp_path / "b", *rows, window=Window("explicit", 0, 8)).orphans == 1


def test_cuda_was_not_collected(tmp_path):
    with pytest.raises(MissingTableError, match="holds no CUDA launches; capture with --trace=cuda"):
        launch(open_tiny(tmp_path, os_call("poll", 0, 3)))
