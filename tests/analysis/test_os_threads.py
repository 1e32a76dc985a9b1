"""OS runtime calls thread by thread, and the chains above the waits."""

from __future__ import annotations

import pytest
from tiny_trace import TID, api, kernel, open_tiny, os_call, os_chain, string, thread_name

from nsyskit.analysis.os_threads import osrt_by_thread
from nsyskit.errors import MissingTableError
from nsyskit.ingest import open_trace
from nsyskit.trace import Window

HTTP = 99
ROWS = (
    api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 3, 8, corr=1), thread_name("llama-server"),
    os_call("poll", 0, 5, chain=1), os_call("poll", 3, 8, chain=2), os_call("read", 10, 13),
    os_chain(1, "poll", "wait_for_work", "main"), os_chain(2, "poll", "wait_for_work", "main"),
    os_call("accept4", 0, 50, tid=HTTP), thread_name("http", tid=HTTP),
)  # fmt: skip


def test_drivers_first_whatever_others_waited(tmp_path):
    found = osrt_by_thread(open_tiny(tmp_path, *ROWS)).threads
    assert [(thread.tid, thread.name, thread.driver) for thread in found] == [
        (TID, "llama-server", True), (HTTP, "http", False),
    ]  # fmt: skip


def test_time_is_a_union_and_calls_are_sums(tmp_path):
    """Poll 0–5 and 3–8 overlap: 8 ns of the thread's, 10 ns of calls."""
    driver, _ = osrt_by_thread(open_tiny(tmp_path, *ROWS)).threads
    assert (driver.total_ns, driver.span_ns) == (11, 13)
    assert driver.calls.rows() == [("poll", "blocked", 10, 2), ("read", "os", 3, 1)]


def test_chains_of_the_same_functions_are_one(tmp_path):
    driver, _ = osrt_by_thread(open_tiny(tmp_path, *ROWS)).threads
    assert driver.chains.rows() == [(["poll", "wait_for_work", "main"], 10, 2)]


def test_a_window_takes_whole_calls_that_start_inside(tmp_path):
    (thread,) = osrt_by_thread(open_tiny(tmp_path, *ROWS), window=Window("explicit", 3, 10)).threads
    assert (thread.total_ns, thread.calls.height) == (5, 1)


def test_os_runtime_was_not_collected(tmp_path):
    with pytest.raises(MissingTableError, match="holds no OS runtime calls; capture with --trace=osrt"):
        osrt_by_thread(open_tiny(tmp_path, string(1, "x")))


def test_who_sits_in_waits_of_a_real_server(real):
    """llama-server's workers wait for tasks: the chain above the wait names them."""
    found = osrt_by_thread(open_trace(real("cpu-llama-server"))).threads
    frames = {frame for thread in found for chain in thread.chains["frames"] for frame in chain}
    assert any("worker_loop" in frame or "server_queue" in frame or "decode" in frame for frame in frames)
