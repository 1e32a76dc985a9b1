"""Ids in great numbers, as damaged files have them: refused in one line, or answered as for a few, and soon."""

import random
import time

import polars as pl
import pytest
from tiny_trace import TID, api, awaited, kernel, open_tiny, os_call

from nsyskit.analysis import gpus, os_threads, sync
from nsyskit.analysis.analyze import analyze
from nsyskit.analysis.faults import clocks
from nsyskit.analysis.hotspots import MOST_NAMES, kernel_facts
from nsyskit.analysis.os_threads import osrt_by_thread
from nsyskit.errors import TraceFormatError

SOON_S = 20


def work(count, *, kernels=None, calls=None, waits=None):
    """So many launches of a kernel, each waited for; the functions give columns of row N."""
    rows = []
    for n in range(count):
        at, own = 100 * n, (kernels or (lambda _: {}))(n)
        more = (calls or (lambda _: {}))(n)
        rows += [
            api("cudaLaunchKernel", at, at + 3, corr=2 * n, **more), kernel("k", at + 5, at + 60, corr=2 * n, **own),
            api("cudaStreamSynchronize", at + 4, at + 70, corr=2 * n + 1, **more),
            awaited(2 * n + 1, **(waits or (lambda _: {}))(n)),
        ]  # fmt: skip
    return rows


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (work(1000, calls=lambda n: {"tid": 100 + n}), "1,000 threads fed a GPU"),
        (work(1000, kernels=lambda n: {"device": n}), "1,000 GPUs did work"),
    ],
)
def test_refused(tmp_path, rows, said):
    trace = open_tiny(tmp_path, *rows)
    with pytest.raises(TraceFormatError, match=said):
        analyze(trace, only=["verdict"])


def test_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "MOST_GPUS", 3)
    trace = open_tiny(tmp_path, *work(9, kernels=lambda n: {"device": n % 3}))
    assert len(analyze(trace, only=["devices"]).sections["devices"].devices) == 3


def test_more_names_than_any_program_has(tmp_path, monkeypatch):
    assert MOST_NAMES == 50_000
    monkeypatch.setattr("nsyskit.analysis.hotspots.MOST_NAMES", 2)
    trace = open_tiny(tmp_path, *(kernel(f"k{n}", 10 * n, 10 * n + 3) for n in range(3)))
    with pytest.raises(TraceFormatError, match="3 kernels of different names"):
        kernel_facts(trace)


@pytest.mark.parametrize("column", ["stream", "context"])
def test_every_wait_on_a_place_of_its_own(tmp_path, column):
    own = {"stream": lambda n: {"stream": n + 1}, "context": lambda n: {"context": n + 1}}[column]
    began = time.monotonic()
    trace = open_tiny(tmp_path, *work(1500, kernels=own, waits=own))
    counts = dict(sync.sync(trace).by_class.select("class", "calls").iter_rows())
    # the first wait began before the window, which begins with the first kernel
    assert counts == {"no_wait": 0, "upload": 0, "gpu_wait": 1499, "host_bound": 0}
    assert clocks(trace).late == 0
    assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize("seed", range(5))
def test_all_places_at_once_as_one_by_one(seed):
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    ops = pl.DataFrame(
        [(rng.randrange(2), rng.randrange(3), rng.randrange(3), at, rng.randrange(60))
         for at in sorted(rng.randrange(40) for _ in range(60))],
        schema={"pid": pl.Int32, "context": pl.UInt32, "stream": pl.Int64, "call_end_ns": pl.Int64, "end_ns": pl.Int64},
        orient="row",
    ).with_columns(start_ns="call_end_ns")  # fmt: skip
    syncs = pl.DataFrame(
        [(rng.randrange(2), rng.choice([None, 0, 1, 2, 9]), rng.choice([None, 0, 1, 2]), rng.randrange(40), by)
         for by in (rng.randrange(-1, 45) for _ in range(80))],
        schema={"pid": pl.Int32, "context": pl.Int64, "stream": pl.Int64, "start_ns": pl.Int64, "by": pl.Int64},
        orient="row",
    ).with_row_index("row")  # fmt: skip
    both = [
        dict(pl.concat(way(syncs, ops, pl.lit(value=True))).iter_rows())
        for way in (sync._place_by_place, sync._all_places)
    ]
    assert both[0] == both[1]
    assert len(set(both[0].values())) == 2


def test_more_threads_than_anybody_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(os_threads, "_MAX_THREADS", 3)
    waits = [os_call("poll", 100 * n, 100 * n + n, tid=100 + n) for n in range(1, 9)]
    found = osrt_by_thread(open_tiny(tmp_path, *work(1), *waits, os_call("poll", 2000, 2001)))
    assert [(thread.tid, thread.total_ns) for thread in found.threads] == [(TID, 1), (108, 8), (107, 7)]
    assert found.more == 6
