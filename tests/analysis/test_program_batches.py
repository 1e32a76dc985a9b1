"""llama-batched-bench and llama-perplexity: the trace's own figure beside the printed one, against the schedule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic import synthesize

from nsyskit.analysis.positions import positions
from nsyskit.analysis.program import kept_texts, program
from nsyskit.analysis.steps import find_steps


@pytest.fixture(scope="module")
def batched(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("batched"), "batched-bench")


@pytest.fixture(scope="module")
def perplexity(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("perplexity"), "perplexity")


def test_rows_of_batched_bench(batched):
    """What the program measured, to the nanosecond in the truth; the trace lacks only the work around a step."""
    rows = program(batched.trace).rows
    assert [row.numbers.label for row in rows[:4]] == ["pp128", "tg12@d128", "pp128+tg12", "pp128@b4"]
    assert len(rows) == 9
    assert {row.matched for row in rows} == {"steps"}
    for row, true in zip(rows[::3], batched.truth["program"], strict=True):
        assert row.trace_tokens_per_s == pytest.approx(true["speed_pp"], rel=0.02)
    for row, true in zip(rows[1::3], batched.truth["program"], strict=True):
        assert row.trace_tokens_per_s == pytest.approx(true["speed_tg"], rel=0.002)
    for row, true in zip(rows[2::3], batched.truth["program"], strict=True):
        assert row.trace_tokens_per_s == pytest.approx(true["speed"], rel=0.005)
    assert not any(row.differs for row in rows)


def test_rows_that_are_not_of_these_steps(batched):
    text = "\n".join(text for _, text in kept_texts(batched.trace))
    other = text.replace('"tg": 12', '"tg": 13')
    assert {row.matched for row in program(batched.trace, texts=[other]).rows} == {None}
    torn = text.replace('"speed_tg"', '"speed_of"', 1)  # a row without one of its three measurements
    assert {row.matched for row in program(batched.trace, texts=[torn]).rows} == {None}


def test_depths_of_batched_bench(batched):
    found = positions(batched.trace)
    truth = {step["begin_ns"]: step["n_kv"] for step in batched.truth["steps"]}
    steps = find_steps(batched.trace).steps.join(found.rows, on="index", how="inner")
    assert steps.height == 12 + 12 + 8
    assert steps["total"].to_list() == [truth[begin] for begin in steps["begin_ns"]]
    assert found.basis == "program"
    assert found.checked == steps.height


def test_a_pass_of_perplexity(perplexity):
    (row,) = [row for row in program(perplexity.trace).rows if row.numbers.label.startswith("pass")]
    true = perplexity.truth["program"][0]["first_ns"]
    assert row.numbers.label == "pass 4x512"
    assert row.trace_tokens_per_s == pytest.approx(2048 / true * 1e9, rel=0.002)
    assert row.matched == "steps"
    assert row.slack_ms == 5
    assert not row.differs


def test_a_pass_that_took_longer_by_the_program(perplexity):
    text = "\n".join(text for _, text in kept_texts(perplexity.trace))
    slower = text.replace("0.36 seconds per pass", "0.50 seconds per pass")
    (row,) = [row for row in program(perplexity.trace, texts=[slower]).rows if row.numbers.label.startswith("pass")]
    assert row.difference == pytest.approx(0.5 / 0.3556 - 1, rel=0.01)
    assert row.differs


def test_perf_lines_of_perplexity(perplexity):
    """All of its tokens are prompts, whatever a step gives back."""
    steps = find_steps(perplexity.trace).steps
    tokens = int(steps["n_tokens"].sum()) - 2
    took = (steps["forward_end_ns"] - steps["begin_ns"])[1:].sum() / 1e6
    line = (
        "perplexity: calculating perplexity over 12 chunks, n_ctx=512, batch_size=2048, n_seq=4\n"
        f"llama_perf_context_print: prompt eval time = {took:10.2f} ms / {tokens:5d} tokens "
        f"({took / tokens:8.2f} ms per token, {tokens / took * 1e3:8.2f} tokens per second)\n"
    )
    (row,) = program(perplexity.trace, texts=[line]).rows
    assert row.numbers.tool == "llama-perplexity"
    assert row.difference == pytest.approx(0, abs=0.001)


def test_no_batch_of_theirs_is_mixed(batched, perplexity):
    for case in (batched, perplexity):
        assert "mixed" not in set(find_steps(case.trace).steps["phase"])
        assert case.truth["phases"].keys() == set(find_steps(case.trace).steps["phase"])


def test_without_steps(perplexity):
    empty = {name: frame.clear() for name, frame in perplexity.trace.tables.items() if name == "memcpys"}
    trace = replace(perplexity.trace, tables={**perplexity.trace.tables, **empty})
    assert {row.matched for row in program(trace).rows} == {None}
