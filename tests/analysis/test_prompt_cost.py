"""What a prompt costs the other slots, against the schedule's own count of who generates when."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import polars as pl
import pytest
from synthetic import synthesize

from nsyskit.analysis.prompt_cost import prompt_cost
from nsyskit.analysis.step_costs import step_rows, steps
from nsyskit.analysis.windows import window_all
from nsyskit.report.words import prompt_sentence
from nsyskit.trace import Trace


def batches(truth):
    """By the schedule, for batches with both: begin -> sequences that generate, prompt tokens, time to the next one.

    A batch goes on with further pieces of its prompt.
    """
    found = {}
    rows = truth["steps"]
    for at, step in enumerate(rows):
        if step["phase"] != "mixed":
            continue
        last = at
        while not rows[last]["last_of_request"] and rows[last + 1]["phase"] == "prefill":
            last += 1
        own = rows[at : last + 1]
        if any(one["last_of_request"] for one in own):
            continue
        tokens = sum(one["n_tokens"] for one in own) - step["n_generating"]
        found[step["begin_ns"]] = (step["n_generating"], tokens, own[-1]["end_ns"] - step["begin_ns"])
    return found


@pytest.mark.parametrize(
    "recipe",
    [
        ("slots-32",), ("slots-32", "--seed", "5", "--steps", "60"), ("slots-32", "--slots", "4", "--steps", "60"),
        ("demo",), ("server-idle-long-prompt", "--slots", "3"), ("no-osrt",),
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("told", [True, False])
def test_batches_with_a_prompt(tmp_path, recipe, told):
    """With the program's output the count is exact; without it, it may be off where a slot ends as another begins."""
    case = synthesize(tmp_path, *recipe)
    trace = case.trace if told else without_output(case.trace)
    true = batches(case.truth)
    cost = steps(trace, window=window_all(trace)).prompts
    if not true:
        assert cost is None
        return
    rows = cost.chunks.join(step_rows(trace).select("index", "begin_ns"), on="index", how="left")
    found = {
        begin: counts
        for begin, *counts in rows.select("begin_ns", "generating", "prompt_tokens", "interval_ns").iter_rows()
    }
    assert found.keys() == true.keys()
    assert {begin: counts[2] for begin, counts in found.items()} == {begin: each[2] for begin, each in true.items()}
    exact = sum(tuple(counts) == true[begin] for begin, counts in found.items())
    assert exact == len(true) if cost.counted else exact >= 0.5 * len(true)
    if told and recipe[0] != "slots-32":  # the replay ends with the last request that printed its numbers
        assert cost.counted


def without_output(trace: Trace) -> Trace:
    return replace(trace, tables={**trace.tables, "streams_text": trace.tables["streams_text"].clear()})


def test_what_a_token_waits(tmp_path):
    """One slot generates when the other's prompt comes: its usual period is that of steps of one token."""
    case = synthesize(tmp_path, "demo")
    cost = steps(case.trace).prompts
    rows = case.truth["steps"]
    alone = [one["end_ns"] - one["begin_ns"] for one in rows if one["phase"] == "decode" and one["n_tokens"] == 1]
    steady = case.truth["windows"]["steady"]["start_ns"]
    alone = [
        one["end_ns"] - one["begin_ns"] for one in rows
        if one["phase"] == "decode" and one["n_tokens"] == 1 and one["begin_ns"] >= steady
        and not one["last_of_request"]
    ]  # fmt: skip
    extra = [interval - median(alone) for _, _, interval in batches(case.truth).values()]
    assert cost.chunks["extra_ns"].to_list() == extra
    assert cost.affected == len(extra) == 2
    assert cost.extra_ms["max"] == pytest.approx(max(extra) / 1e6)
    tokens = sum(tokens for _, tokens, _ in batches(case.truth).values())
    assert cost.us_per_prompt_token == pytest.approx(sum(extra) / tokens / 1e3)
    assert f"delayed 2 of {cost.tokens} generated tokens" in prompt_sentence(cost)


def test_a_long_prompt_holds_several_steps_up(tmp_path):
    case = synthesize(tmp_path, "server-idle-long-prompt", "--slots", "3")
    cost = steps(case.trace, window=window_all(case.trace)).prompts
    assert (cost.chunks["prompt_tokens"] > 512).any()


def test_named_among_the_slowest(tmp_path):
    case = synthesize(tmp_path, "demo")
    slowest = steps(case.trace).slowest
    named = slowest.filter(pl.col("cause").str.starts_with("another slot's prompt"))
    assert named["phase"].to_list() == ["mixed"] * 2
    cost = steps(case.trace).prompts.chunks.sort("interval_ns", descending=True)
    row = cost.row(0, named=True)
    assert named["times"].max() == pytest.approx(row["interval_ns"] / row["usual_ns"])
    assert f"({row['prompt_tokens']} tokens): +{round(row['extra_ns'] / 1e6, 3)} ms for 1" in named["cause"][0]
    assert slowest.height == 5


def test_one_slot_has_none(tmp_path):
    case = synthesize(tmp_path, "demo", "--slots", "1")
    found = steps(case.trace)
    assert found.prompts is None
    assert not found.slowest["cause"].str.contains("another slot").any()
    assert prompt_cost(case.trace, found.steps) is None
