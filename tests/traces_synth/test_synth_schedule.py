"""The schedule is possible: calls of a thread follow each other, streams are in order, nothing runs unasked."""

from __future__ import annotations

import numpy as np
import pytest
from synth_layouts import layout_of

from traces.synth import world as w
from traces.synth.layout import has_call
from traces.synth.tape import take


def in_order(spans):
    """Sorted spans that do not overlap."""
    order = np.lexsort((spans["end"], spans["start"]))
    return bool((spans["start"][order][1:] >= spans["end"][order][:-1]).all())


def test_rows_end_after_they_start(layout):
    for table in (layout.ops, layout.api, layout.syncs, layout.osrt, layout.overheads):
        assert (table["end"] >= table["start"]).all()
        assert (table["start"] > 0).all()


def test_a_thread_does_one_thing_at_a_time(layout):
    own = {name: np.concatenate([layout.api[name], layout.osrt[name], layout.overheads[name]]) for name in
           ("start", "end", "thread")}  # fmt: skip
    for thread in np.unique(own["thread"]):
        assert in_order(take(own, own["thread"] == thread))


def test_a_stream_runs_in_order(layout):
    if layout.world.pdl:
        pytest.skip("programmatic dependent launch overlaps by design")
    ops = layout.ops
    queue = (ops["proc"] * 64 + ops["device"]) * 1024 + ops["stream"]
    for stream in np.unique(queue):
        assert in_order(take(ops, queue == stream))


def test_dependent_launch_overlaps_little():
    ops = layout_of("pdl-hopper").ops
    kernels = take(ops, ops["type"] == w.KERNEL)
    order = np.argsort(kernels["start"], kind="stable")
    start, end = kernels["start"][order], kernels["end"][order]
    early = start[1:] < end[:-1]
    assert 0.3 < early.mean() < 0.7
    assert (end[1:] >= end[:-1]).all()


def test_nothing_runs_before_its_call(layout):
    ops = take(layout.ops, has_call(layout.ops))
    assert (ops["start"] > ops["api_start"]).all()


def test_a_copy_to_pageable_memory_blocks(layout):
    ops = layout.ops
    down = (ops["type"] == w.MEMCPY) & (ops["dst"] == w.PAGEABLE) & has_call(ops)
    assert (ops["api_end"][down] >= ops["end"][down]).all()


def test_a_wait_outlasts_what_it_waits_for(layout):
    """No wait for a stream returns while something handed over before it still runs."""
    api, ops = layout.api, take(layout.ops, has_call(layout.ops))
    for at in np.flatnonzero((api["role"] == w.R_SYNC) & (api["stream"] >= 0))[:200].tolist():
        mine = (ops["proc"] == api["proc"][at]) & (ops["device"] == api["device"][at])
        mine &= (ops["stream"] == api["stream"][at]) & (ops["api_end"] <= api["start"][at])
        if mine.any():
            assert ops["end"][mine].max() <= api["end"][at]


def test_correlation_ids_are_a_process_own():
    api = layout_of("two-processes").api
    first, second = (set(api["corr"][api["proc"] == process].tolist()) for process in (0, 1))
    assert len(first & second) > 1000
    assert len(first) == (api["proc"] == 0).sum()
