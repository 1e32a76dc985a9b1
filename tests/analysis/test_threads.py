"""The thread ledger: six parts, each over a busy and over an idle GPU, that sum to the window."""

from __future__ import annotations

from itertools import combinations

import pytest
from tiny_trace import PID, TID, Row, api, kernel, memcpy, open_tiny, os_call, string, thread_name

from nsyskit.analysis.threads import PARTS, ThreadLedger, threads
from nsyskit.errors import MissingTableError
from nsyskit.trace import Window


def ledgers(tmp_path, *rows: Row | list[Row], window: tuple[int, int]) -> tuple[ThreadLedger, ...]:
    found = threads(open_tiny(tmp_path, *rows), window=Window("explicit", *window)).threads
    for thread in found:
        assert sum(thread.busy.values()) + sum(thread.idle.values()) == window[1] - window[0]
    return found


def halves(thread: ThreadLedger) -> dict[str, tuple[int, int]]:
    """Part -> (over a busy GPU, over an idle one), of the parts that took time."""
    return {part: (thread.busy[part], thread.idle[part]) for part in PARTS if thread.part_ns(part)}


def test_every_part_and_both_halves(tmp_path):
    """The GPU works from 5 to 13."""
    (thread,) = ledgers(
        tmp_path,
        api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 5, 13, corr=1), api("cudaStreamSynchronize", 3, 10),
        api("cudaMalloc", 10, 12), os_call("poll", 12, 15), os_call("read", 15, 18), thread_name("server"),
        window=(0, 20),
    )  # fmt: skip
    assert (thread.pid, thread.tid, thread.name) == (PID, TID, "server")
    assert halves(thread) == {
        "sync": (5, 2), "submit": (0, 3), "cuda": (2, 0), "blocked": (1, 2), "os": (0, 3), "host": (0, 2),
    }  # fmt: skip


LAYERS = {
    "sync": api("cudaDeviceSynchronize", 8, 13, corr=9),
    "submit": api("cudaMemsetAsync", 8, 13, corr=9),
    "cuda": api("cudaMalloc", 8, 13, corr=9),
    "blocked": os_call("poll", 8, 13),
    "os": os_call("read", 8, 13),
}


@pytest.mark.parametrize(("first", "second"), list(combinations(LAYERS, 2)))
def test_of_two_parts_at_one_instant_the_first_counts(tmp_path, first, second):
    rows = [api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 3, 8, corr=1), LAYERS[second], LAYERS[first]]
    (thread,) = ledgers(tmp_path, *rows, window=(3, 16))
    assert halves(thread) == {first: (0, 5), "host": (5, 3)}


def test_nested_calls_count_once(tmp_path):
    rows = [
        api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 3, 5, corr=1), os_call("poll", 5, 10), os_call("poll", 6, 8),
        os_call("poll", 8, 13),
    ]  # fmt: skip
    (thread,) = ledgers(tmp_path, *rows, window=(3, 16))
    assert halves(thread) == {"blocked": (0, 8), "host": (2, 3)}


def test_a_blocking_copy_is_sync(tmp_path):
    rows = [api("cudaMemcpyAsync", 0, 8, corr=1), memcpy("DtoH", 3, 8, dst="pageable", corr=1)]
    (thread,) = ledgers(tmp_path, *rows, window=(0, 8))
    assert halves(thread) == {"sync": (5, 3)}


def test_busy_means_a_gpu_that_the_thread_feeds(tmp_path):
    """Thread 11 feeds GPU 0 (3–5), thread 12 GPU 1 (3–13); both sit in sync until 13."""
    rows = [
        api("cudaLaunchKernel", 0, 3, corr=1, tid=11), kernel("a", 3, 5, corr=1, device=0),
        api("cudaLaunchKernel", 0, 3, corr=2, tid=12), kernel("b", 3, 13, corr=2, device=1),
        api("cudaStreamSynchronize", 3, 13, tid=11), api("cudaStreamSynchronize", 3, 13, tid=12),
    ]  # fmt: skip
    first, second = ledgers(tmp_path, *rows, window=(0, 13))
    assert halves(first) == {"sync": (2, 8), "submit": (0, 3)}
    assert halves(second) == {"sync": (10, 0), "submit": (0, 3)}


def test_only_driver_threads_have_a_ledger(tmp_path):
    rows = [api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 3, 8, corr=1), os_call("poll", 0, 8, tid=99)]
    assert [thread.tid for thread in ledgers(tmp_path, *rows, window=(0, 8))] == [TID]
    (tmp_path / "b").mkdir()
    assert ledgers(tmp_path / "b", *rows, window=(8, 13)) == (), "nothing starts in that window"


def test_the_last_of_a_threads_names_counts(tmp_path):
    rows = [
        api("cudaLaunchKernel", 0, 3, corr=1),
        kernel("k", 3, 8, corr=1),
        thread_name("python"),
        thread_name("main"),
    ]
    assert [thread.name for thread in ledgers(tmp_path, *rows, window=(0, 8))] == ["main"]


def test_cuda_was_not_collected(tmp_path):
    with pytest.raises(MissingTableError, match="holds no CUDA rows; capture with --trace=cuda"):
        threads(open_tiny(tmp_path, string(1, "x")))
