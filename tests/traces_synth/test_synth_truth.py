"""The truth is exact: every partition sums to its whole, to the nanosecond, for every preset and mix of options."""

from __future__ import annotations

from itertools import pairwise

from synth_layouts import layout_of

from traces.synth.truth import BUSY, CAUSES, PARTS


def test_every_partition_sums_to_its_whole(truth):
    for window in truth["windows"].values():
        length = window["end_ns"] - window["start_ns"]
        for device in window["devices"]:
            assert device["window_ns"] == length
            assert device["busy_ns"] + device["idle_ns"] == length
            assert sum(device[f"{kind}_ns"] for kind in BUSY) == device["busy_ns"]
            assert sum(device["idle"][cause] for cause in CAUSES) == device["idle_ns"]
            assert sum(gap["total_ns"] for gap in device["gap_hist"]) == device["idle_ns"]
            assert device["overlap_ns"] >= 0
        for thread in window["threads"]:
            assert sum(thread[f"{part}_{half}_ns"] for part in PARTS for half in ("busy", "idle")) == length


def test_sums_agree_with_each_other(truth):
    rows = truth["rows"]
    assert sum(row["count"] for row in truth["kernels"]) == rows["kernels"]
    assert sum(row["total_ns"] for row in truth["kernels"]) == sum(row["total_ns"] for row in truth["categories"])
    assert sum(row["count"] for row in truth["copies"]) == rows["memcpys"]
    assert sum(row["count"] for row in truth["api"]) == rows["api_calls"]
    for window in truth["windows"].values():
        sync = window["sync"]
        assert sum(one["calls"] for one in sync["by_class"].values()) == sync["calls"]
        assert sum(one["total_ns"] for one in sync["by_class"].values()) == sync["total_ns"]
        waited = sum(row["sync_busy_ns"] + row["sync_idle_ns"] for row in window["threads"])
        assert sync["wait_ns"] + sync["idle_ns"] >= waited  # threads that feed nothing may wait too
        assert sync["wait_ns"] == sum(row["sync_busy_ns"] for row in window["threads"])


def test_steps_are_in_order_and_their_ledgers_sum_to_them(truth):
    steps = truth["steps"]
    seen = truth["windows"]["all"]  # may cut the first and the last step when the rows of their calls are lost
    assert steps
    for step in steps:
        assert step["begin_ns"] < step["forward_end_ns"] <= step["end_ns"]
        if "ledger" in step:
            assert sum(step["ledger"].values()) == min(seen["end_ns"], step["end_ns"]) - max(
                seen["start_ns"], step["begin_ns"]
            )
    for tid in {(step["pid"], step["tid"]) for step in steps}:
        mine = [step for step in steps if (step["pid"], step["tid"]) == tid]
        assert all(a["end_ns"] <= b["begin_ns"] for a, b in pairwise(mine))


def test_phases_follow_from_tokens_and_outputs(layout):
    for step in layout.world.steps:
        assert 0 <= step.n_outputs <= step.n_tokens
        assert (step.phase == "decode") == (step.n_outputs == step.n_tokens)


def test_what_the_program_prints_matches_the_steps():
    layout = layout_of("host-bound")
    first = layout.program[0]
    steps = [step for step in layout.world.steps if first["task"] in step.requests]
    decode = [step for step in steps if step.phase == "decode"]
    assert sum(step.n_tokens for step in steps if step.phase == "prefill") == first["n_prompt"]
    assert len(decode) == first["n_gen"] - 1  # the first token comes from the prompt's step
    periods = sum(step.end - step.begin for step in decode[:-1])
    assert abs(periods / (len(decode) - 1) - first["gen_ns"] / (first["n_gen"] - 1)) < 0.05 * first["gen_ns"]
