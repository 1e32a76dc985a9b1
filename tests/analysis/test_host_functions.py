"""What the host did while the GPU idled."""

from __future__ import annotations

import pytest
from tiny_trace import Row, api, kernel, open_tiny, os_call, os_chain, sample, switch

from nsyskit.analysis.host_functions import DeviceHostFunctions, host_functions
from nsyskit.errors import MissingTableError
from nsyskit.ingest import open_trace
from nsyskit.trace import Window

DRIVES = (api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 3, 8, corr=1))
"""The GPU works from 3 to 8 and idles for the host after it."""


def of(tmp_path, *rows: Row | list[Row], window: tuple[int, int] = (3, 30)) -> DeviceHostFunctions:
    (found,) = host_functions(open_tiny(tmp_path, *DRIVES, *rows), window=Window("explicit", *window)).devices
    return found


def test_samples_of_driver_threads_in_idle_time(tmp_path):
    """One over the busy GPU, one of another thread: two of the three that count stand in sampling."""
    found = of(
        tmp_path, sample(5, "busy", number=1), sample(10, "foreign", number=2, tid=99),
        sample(10, "sample_top_k", "main", number=3), sample(13, "sample_top_k", "main", number=4),
        sample(20, "tokenize", "main", number=5),
    )  # fmt: skip
    assert found.functions.select("cause", "function", "module", "samples", "share").rows() == [
        ("host", "sample_top_k", "libllama.so", 2, 2 / 3), ("host", "tokenize", "libllama.so", 1, 1 / 3),
    ]  # fmt: skip
    assert found.callers.select("frames", "samples").rows() == [
        (["sample_top_k", "main"], 2),
        (["tokenize", "main"], 1),
    ]


def test_the_innermost_function_with_a_name_counts(tmp_path):
    found = of(tmp_path, sample(10, "0x7f00", "[vdso]", "llama_sample", number=1), sample(11, "0x7f00", number=2))
    assert sorted(found.functions["function"].to_list()) == ["[unresolved]", "llama_sample"]


def test_waits_over_idle_time_with_their_chains(tmp_path):
    """Poll from 5 to 13: 5 of its 8 ns lie over the idle GPU."""
    found = of(tmp_path, os_call("poll", 5, 13, chain=1), os_chain(1, "poll", "wait_for_work"), os_call("read", 20, 23))
    assert found.waits.select("cause", "name", "frames", "total_ns", "count").rows() == [
        ("blocked", "poll", ["poll", "wait_for_work"], 5, 1), ("os", "read", None, 3, 1),
    ]  # fmt: skip


def test_running_against_descheduled(tmp_path):
    """Idle from 8 to 30; on a CPU from 0 to 10 and from 20 to 25."""
    switches = [switch(0, runs=True), switch(10, runs=False), switch(20, runs=True), switch(25, runs=False)]
    found = of(tmp_path, *switches)
    assert (found.running_ns, found.descheduled_ns) == (7, 15)


def test_without_context_switches_nobody_knows(tmp_path):
    found = of(tmp_path, sample(10, "f", number=1))
    assert (found.running_ns, found.descheduled_ns) == (None, None)


def test_nothing_to_explain_with(tmp_path):
    with pytest.raises(MissingTableError, match="CPU samples, OS calls or context switches; capture with --sample"):
        host_functions(open_tiny(tmp_path, *DRIVES))


def test_a_real_gpu(real):
    """The T4's trace holds samples and context switches: they explain its idle time."""
    (found,) = host_functions(open_trace(real("t4-power-iteration"))).devices
    assert found.running_ns + found.descheduled_ns > 0
    assert found.functions["samples"].sum() > 0
    assert all(not name.startswith("/") for name in found.functions["module"])
