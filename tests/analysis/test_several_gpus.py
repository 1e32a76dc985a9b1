"""Several GPUs of one trace: by hand, against the generator's truth, and against plain Python over rows."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from itertools import pairwise

import polars as pl
import pytest
from synthetic import Synthetic, synthesize
from tiny_trace import api, cuda_device, gpu, kernel, memcpy, open_tiny

from nsyskit.analysis.devices import devices
from nsyskit.analysis.several_gpus import OUTSIDE, SeveralGpusResult, several_gpus
from nsyskit.errors import MissingTableError
from nsyskit.ingest import open_trace
from nsyskit.report.figures import figure
from nsyskit.report.json import section
from nsyskit.report.several_gpus import busy_sentence, copy_rows, wait_rows
from nsyskit.trace import Window

WORK = ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE")
TWO = {
    "layers over two GPUs": ("two-gpus-layer-split", "--seed", "3"),
    "tables of 2023": ("two-gpus-layer-split", "--schema", "2023.4", "--seed", "5"),
    "whole graphs": ("two-gpus-layer-split", "--graph", "graph"),
    "eight threads": ("eight-threads", "--steps", "3"),
    "two processes": ("two-processes",),
    "rows lost": ("two-gpus-layer-split", "--drop-api", "0.01"),
}


@pytest.fixture(scope="module", params=TWO)
def two(request, tmp_path_factory) -> Synthetic:
    preset, *options = TWO[request.param]
    return synthesize(tmp_path_factory.mktemp("two"), preset, *options)


def ordinals(synthetic: Synthetic) -> dict[int, int]:
    """CUDA ordinal -> GPU, which holds in a process that hides none; tables of 2023 tell no more."""
    with closing(sqlite3.connect(f"file:{synthetic.path}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT cuDevice, id FROM TARGET_INFO_GPU"))


def numbers(synthetic: Synthetic, result: SeveralGpusResult) -> list[int]:
    """The number in the truth of each GPU of a result."""
    return [ordinals(synthetic)[use.device] if use.gpu is None else use.gpu for use in result.uses]


def rows_by_gpu(synthetic: Synthetic) -> dict[int, list[tuple[int, int]]]:
    """Straight from the file: when which physical GPU worked."""
    found: dict[int, list[tuple[int, int]]] = {}
    by_ordinal = ordinals(synthetic)
    with closing(sqlite3.connect(f"file:{synthetic.path}?mode=ro", uri=True)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        known = (
            connection.execute("SELECT * FROM TARGET_INFO_CUDA_DEVICE") if "TARGET_INFO_CUDA_DEVICE" in tables else ()
        )
        physical = {(pid, cuda): gpu for gpu, cuda, pid in known}
        for kind in WORK:
            table = f"CUPTI_ACTIVITY_KIND_{kind}"
            if table in tables:
                query = f"SELECT start, end, (globalPid >> 24) & 16777215, deviceId FROM {table}"
                for start, end, pid, device in connection.execute(query):
                    found.setdefault(physical.get((pid, device), by_ordinal.get(device)), []).append((start, end))
    return found


def by_set(found: Mapping[int, Iterable[tuple[int, int]]], start: int, end: int) -> Counter[frozenset[int]]:
    """Walk over all boundaries and ask who is open between two of them."""
    changes: dict[int, Counter[int]] = {start: Counter(), end: Counter()}
    for key, rows in found.items():
        for begin, stop in rows:
            if begin < end and stop > start:
                changes.setdefault(max(begin, start), Counter())[key] += 1
                changes.setdefault(min(stop, end), Counter())[key] -= 1
    lasts: Counter[frozenset[int]] = Counter()
    depth: Counter[int] = Counter()
    for at, following in pairwise(sorted(changes)):
        for key, change in changes[at].items():
            depth[key] += change
        lasts[frozenset(key for key, deep in depth.items() if deep)] += following - at
    return lasts


def test_busy_gpus_against_plain_python_and_the_truth(two):
    found = rows_by_gpu(two)
    for window, true in two.windows:
        result = several_gpus(two.trace, window=window)
        lasts = by_set(found, window.start_ns, window.end_ns)
        gpus = numbers(two, result)
        told = {frozenset(gpus[place] for place in places): ns for places, ns in result.busy_sets.iter_rows()}
        assert told == {key: ns for key, ns in lasts.items() if ns}
        counts = dict(result.busy_count.select("busy_gpus", "ns").iter_rows())
        assert sum(counts.values()) == window.dur_ns
        assert sum(n * ns for n, ns in counts.items()) == sum(device["busy_ns"] for device in true["devices"])
        assert set(counts) == {0, 1, 2}


def test_waits_against_the_truth(two):
    for window, true in two.windows:
        result = several_gpus(two.trace, window=window)
        peer = {device["gpu"]: device["idle"]["peer"] for device in true["devices"]}
        idle = by_set(rows_by_gpu(two), window.start_ns, window.end_ns)
        gpus = numbers(two, result)
        for waiting, other, peer_ns, idle_ns in result.waits.iter_rows():
            assert peer_ns == peer[gpus[waiting]]
            assert idle_ns == idle[frozenset({gpus[other]})]
        share_a_process = {use.pids for use in result.uses}
        assert result.waits.height == (2 if len(share_a_process) == 1 else 0)


def test_work_sums_to_the_ledgers(two):
    for window, true in two.windows:
        result = several_gpus(two.trace, window=window)
        truth = {device["gpu"]: device for device in true["devices"]}
        for row in result.work.iter_rows(named=True):
            device = truth[numbers(two, result)[row["place"]]]
            for part in ("busy_ns", "kernel_ns", "graph_ns"):
                assert row[part] == device[part]
        assert result.work["share"].sum() == pytest.approx(1)


def test_copies_against_the_truth(two):
    window, _ = two.windows[0]
    result = several_gpus(two.trace, window=window)
    truth = [copy for copy in two.truth["copies"] if copy["label"] == "PtoP"]
    for column in ("count", "bytes", "total_ns"):
        assert result.copies[column].sum() == sum(copy[column] for copy in truth)
    assert set(result.copies["purpose"]) <= {"split"}
    for row in result.copies.iter_rows(named=True):
        assert {row["source"], row["target"]} == {0, 1}
        assert row["gb_per_s"] == pytest.approx(row["bytes"] / row["total_ns"])


def test_steps_hold_what_they_handed_over(two):
    """All work handed over inside steps belongs to exactly one; a step lists every GPU."""
    window, _ = two.windows[0]
    result = several_gpus(two.trace, window=window)
    assert result.steps.height == 2 * result.steps["index"].n_unique()
    alone = len({(step["pid"], step["tid"]) for step in two.truth["steps"]}) == 1  # else steps of threads overlap
    for place, part in enumerate(result.steps.partition_by("place")):
        assert not alone or part["busy_ns"].sum() <= result.work["busy_ns"][place]
        assert part["kernel_ns"].sum() <= part["busy_ns"].sum()
    for phase, imbalance in result.imbalance.items():
        assert imbalance.steps == result.steps.filter(pl.col("phase") == phase)["index"].n_unique()
        if imbalance.p50 is not None:
            assert 1 <= imbalance.p50 <= imbalance.max <= 2


def test_partitions_of_real_traces(real_trace):
    trace = open_trace(real_trace)
    try:
        result = several_gpus(trace)
    except MissingTableError:
        ledgers = devices(trace).devices if trace.meta.sources["cuda"] else ()
        assert len(ledgers) < 2
        return
    assert result.busy_count["ns"].sum() == result.busy_sets["ns"].sum() == result.window.dur_ns


def test_by_hand(tmp_path):
    """GPU 7 is device 0 and works in [10, 20); GPU 8 gets its kernel at 6 and begins it at 18, up to 30."""
    trace = open_tiny(
        tmp_path,
        *(gpu(7, "left"), gpu(8, "right"), cuda_device(7, 0), cuda_device(8, 1)),
        api("cudaLaunchKernel", 2, 4, corr=1),
        kernel("a", 10, 20, corr=1, device=0),
        api("cudaLaunchKernel", 4, 6, corr=2),
        kernel("b", 18, 30, corr=2, device=1),
        api("cudaMemcpyPeerAsync", 6, 7, corr=3),
        memcpy("PtoP", 16, 18, 4_000, corr=3, device=0, srcDeviceId=0, dstDeviceId=1),
    )
    result = several_gpus(trace, window=Window("explicit", 0, 40))
    assert [use.gpu for use in result.uses] == [7, 8]
    assert result.busy_count.rows() == [(0, 20, 0.5), (1, 18, 0.45), (2, 2, 0.05)]
    assert [(row["places"], row["ns"]) for row in result.busy_sets.to_dicts()] == [
        ([], 20), ([1], 10), ([0], 8), ([0, 1], 2)
    ]  # fmt: skip
    # device 1 waits with work in hand from 10 on; device 0 idles from 20 to 30 with nothing in hand
    assert result.waits.rows() == [(0, 1, 0, 10), (1, 0, 8, 8)]
    assert result.copies.rows() == [(0, 1, "other", OUTSIDE, 1, 4_000, 2, 2_000.0)]
    assert result.steps.is_empty()
    assert result.imbalance == {}
    assert busy_sentence(result) == "GPUs at work at a time: none 50.0 %, one 45.0 %, two 5.0 %"
    assert wait_rows(result)[1] == {"pair": "GPU 8 idle, GPU 7 busy", "idle_ns": 8, "share": 0.2, "peer_ns": 8}
    assert copy_rows(result)[0]["pair"].startswith("GPU 7 → GPU 8 (")
    assert section(result)["gpus"][1] == {"gpu": 8, "name": "right", "device": 1, "processes": [10]}
    assert [bar.name for bar in figure(result).data] == ["only GPU 8", "only GPU 7", "GPU 7 + GPU 8", "none"]


def test_one_gpu_is_no_lack(tmp_path):
    trace = open_tiny(tmp_path, api("cudaLaunchKernel", 0, 3, corr=1), kernel("a", 5, 13, corr=1))
    with pytest.raises(MissingTableError, match="nothing is missing if the run used one"):
        several_gpus(trace)
