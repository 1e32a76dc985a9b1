"""Pairs whose true difference is known: right sign, size and cause; equal runs are not called different."""

from dataclasses import replace
from fractions import Fraction

import pytest
from runs import (
    GRAPH,
    SERVER,
    SMALL,
    TINY,
    busier_host,
    graphs_off,
    made,
    one_slot,
    one_slower_kernel,
    run,
    slower_gpu,
    slower_kernels,
    uniformly_slower,
)  # fmt: skip

from nsyskit.compare.compare import compare
from nsyskit.compare.noise import NoiseModel


def changed(found, prefix=""):
    return {line.name for line in found.lines if line.changed and line.name.startswith(prefix)}


@pytest.mark.parametrize("preset", [SMALL, GRAPH, TINY], ids=["node", "graph", "eager"])
def test_equal_runs_do_not_differ(preset):
    for seed in (1, 3, 5):
        found = compare([run(preset, seed)], [run(preset, seed + 1)])
        assert found.verdict == "no change", found.sentence
        assert [line.path for line in found.lines() if line.changed] == []


@pytest.mark.parametrize("change", [None, slower_kernels, busier_host, graphs_off])
def test_parts_sum_exactly_to_the_difference(change):
    for found in compare([run(SMALL, 1)], [run(SMALL, 2, change)]).phases:
        assert sum((part.diff for part in found.parts), Fraction()) == found.raw_diff
        for side, raw in ((1, found.raw_base), (2, found.raw_candidate)):
            assert sum((row[side] for row in found.ledgers), Fraction()) == raw


def test_a_kernel_three_percent_slower():
    found = compare([run(SMALL, 1)], [run(SMALL, 2, slower_kernels)]).phase("decode")
    assert found.cause == "kernels"
    assert changed(found, "categories.") == {"categories.matmul_quant"}
    assert all("mul_mat_vec_q" in name for name in changed(found, "kernels."))
    line = next(line for line in found.lines if line.name == "categories.matmul_quant")
    assert line.verdict == "slower"
    # 2.25 of 2.50 ms are memory traffic, of which 3 %
    assert line.beyond_clock / line.base == pytest.approx(0.027, abs=0.005)


def test_of_all_kernels_one_three_percent_slower():
    """By its name, with one run a side: the clock, which differs too, is told apart."""
    for seed in (1, 3):
        found = compare([run(SMALL, seed)], [run(SMALL, seed + 1, one_slower_kernel)]).phase("decode")
        assert found.cause == "kernels"
        (name,) = changed(found, "kernels.")
        assert name.startswith("kernels.mul_mat_vec_q<(ggml_type)14")
        line = next(line for line in found.lines if line.name == name)
        assert line.verdict == "slower"
        assert line.beyond_clock / line.base == pytest.approx(0.03, abs=0.008)


@pytest.mark.parametrize("first", [1, 101])
def test_all_kernels_three_percent_slower_show_with_three_runs_a_side(first):
    base = [run(SMALL, first + 10 * at) for at in range(3)]
    other = [run(SMALL, first + 10 * at + 1, uniformly_slower) for at in range(3)]
    found = compare(base, other)
    assert found.verdict == "slower"
    assert found.phase("decode").cause == "clock"
    assert found.phase("decode").clock == pytest.approx(1.03, abs=0.015)


def evenly(ns):
    """Five kernels, each a fifth of the step."""
    kernels = {f"{what}.{name}": value for name in "abcde" for what, value in (("kernel", ns // 5), ("calls", 1))}
    return made([{"ledger.kernel": ns, **kernels}] * 20)


def test_one_run_a_side_cannot_tell_a_slower_build_from_a_slower_clock():
    one = compare([evenly(1000)], [evenly(1025)])
    assert one.verdict == "no change"
    (reason,) = [reason for reason in one.reasons if reason.code == "uniform_shift"]
    assert "all kernels alike differ by +2.5 %" in reason.message
    assert "--repeat 3" in reason.message
    three = compare([evenly(1000)] * 3, [evenly(1025)] * 3)
    assert three.verdict == "slower"
    assert {"uniform_shift", "few_runs"}.isdisjoint(reason.code for reason in three.reasons)
    same = compare([evenly(1000)], [evenly(1015)])
    assert "uniform_shift" not in {reason.code for reason in same.reasons}


def test_a_slower_kernel_shows_in_the_total_with_repetitions():
    base, other = (
        [run(SMALL, 10 * at + 1) for at in range(3)],
        [run(SMALL, 10 * at + 2, slower_gpu) for at in range(3)],
    )
    found = compare(base, other)
    assert found.verdict == "slower"
    assert found.phase("decode").total.share == pytest.approx(0.08, abs=0.03)
    assert "few_runs" not in {reason.code for reason in found.reasons}


def test_twenty_microseconds_of_the_host():
    found = compare([run(SMALL, 1)], [run(SMALL, 2, busier_host)]).phase("decode")
    assert found.cause == "host"
    assert changed(found) == {"ledger.host"}
    host = next(line for line in found.lines if line.name == "ledger.host")
    assert host.verdict == "slower"
    assert host.diff == pytest.approx(20_000, abs=4_000)
    assert found.total.verdict == "no change"  # half a percent of 4 ms


def test_the_host_shows_in_the_total_where_steps_are_short():
    found = compare([run(TINY, 1)], [run(TINY, 2, busier_host)]).phase("decode")
    part = next(part for part in found.parts if part.name == "host")
    assert float(part.diff) == pytest.approx(20_000, abs=6_000)
    assert found.cause == "host"


def test_graphs_off():
    found = compare([run(SMALL, 1)], [run(SMALL, 2, graphs_off)]).phase("decode")
    assert found.cause == "graphs"
    assert found.total.verdict == "faster"  # node-level tracing, which goes with graphs, costs more
    verdicts = {line.name.removesuffix("_per_token"): line.verdict for line in found.lines}
    assert [verdicts[name] for name in ("graph_launches", "launches", "kernels")] == ["fewer", "more", "no change"]


def test_another_batch():
    found = compare([run(SERVER, 1, one_slot)], [run(SERVER, 2)])
    decode = found.phase("decode")
    assert decode.total.verdict == "faster"
    assert decode.cause == "batch"
    assert "1 to 2 tokens a step" in decode.sentence
    assert "other_batch" in {reason.code for reason in found.reasons}


def test_a_shift_between_kernels_and_whole_graphs_is_no_change():
    kernels = made([{"ledger.kernel": 90, "ledger.host": 10}] * 40)
    graphs = made([{"ledger.graph": 90, "ledger.host": 10}] * 40)
    found = compare([kernels], [graphs])
    assert found.verdict == "no change"
    assert not any(line.changed for line in found.lines())
    assert all(part.diff == 0 for part in found.phases[0].parts)


def test_load_is_told_apart_from_speed():
    """The same costs at each batch, in another mix: nothing changed but the load."""
    one, two = {"ledger.kernel": 100}, {"n_tokens": 2, "ledger.kernel": 120}
    found = compare([made([one] * 30 + [two] * 30)], [made([one] * 20 + [two] * 40)]).phase("decode")
    assert found.total.diff == 0
    assert found.total.verdict == "no change"
    parts = {part.name: part.diff for part in found.parts if part.diff}
    assert parts == {"batch": found.raw_diff}
    assert found.raw_diff == Fraction(20 * 100 + 40 * 120, 100) - Fraction(30 * 100 + 30 * 120, 90)


def test_context_is_told_apart_from_speed():
    short, long = {"ledger.kernel": 100, "bytes_input": 512}, {"ledger.kernel": 140, "bytes_input": 1024}
    found = compare([made([short] * 30 + [long] * 30)], [made([short] * 20 + [long] * 40)]).phase("decode")
    assert {part.name for part in found.parts if part.diff} == {"context"}
    assert found.total.verdict == "no change"


def test_below_the_floor_nothing_is_called():
    """Without any noise, 1.9 % is still below the floor of 2 %, and 2.1 % is not."""
    sure = NoiseModel(gpu_run=0, host_run=0, kernel_run=0)
    base = [made([{"ledger.kernel": 1000}] * 20)]
    for share, verdict in ((19, "no change"), (21, "slower")):
        assert compare(base, [made([{"ledger.kernel": 1000 + share}] * 20)], noise=sure).verdict == verdict


def test_equal_input_gives_an_equal_result():
    pair = [run(SMALL, 1)], [run(SMALL, 2, slower_kernels)]
    assert compare(*pair) == compare(*pair)


def test_graph_health_is_counted_per_token():
    decode = compare([run(SMALL, 1)], [run(SMALL, 1)]).phase("decode")
    lines = {line.name: line.base for line in decode.lines}
    assert lines["graph_launches_per_token"] > 0.9
    for name in ("captures_per_token", "instantiations_per_token", "updates_per_token", "destroys_per_token"):
        assert 0 <= lines[name] < 0.1


def test_a_trace_without_steps_is_refused_with_the_reason():
    stepless = replace(made(STEPS), phases={}, without_steps="this trace holds no llama.cpp steps (why)")
    for pair in ((stepless, made(STEPS)), (made(STEPS), stepless), (stepless, stepless)):
        found = compare([pair[0]], [pair[1]])
        assert (found.comparable, found.phases) == ("no", ())
        assert {reason.code for reason in found.reasons if reason.level == "refused"} == {"no_steps"}
        assert "no llama.cpp steps (why)" in found.sentence


def test_few_steps_are_not_judged():
    found = compare([made([{"ledger.kernel": 100}] * 7)], [made([{"ledger.kernel": 200}] * 7)]).phase("decode")
    assert found.total.verdict == "too few steps"


def test_new_and_vanished_kernels():
    base = made([{"ledger.kernel": 100, "kernel.old": 100, "calls.old": 1}] * 9)
    other = made([{"ledger.kernel": 100, "kernel.new": 100, "calls.new": 2}] * 9)
    found = compare([base], [other]).phase("decode")
    assert (found.new_kernels, found.vanished_kernels) == ((("new", 100.0),), (("old", 100.0),))


STEPS = [{"ledger.kernel": 100}] * 9


@pytest.mark.parametrize(
    ("base", "candidate", "code"),
    [
        (made(STEPS, n_vocab="32000"), made(STEPS, n_vocab="128256"), "other_model"),
        (made(STEPS, model_type="llama 1B Q4_0"), made(STEPS, model_type="qwen2 1B Q4_0"), "other_model"),
        (made(STEPS), made(STEPS, errors=("a ledger does not sum",)), "trust"),
        (made(STEPS), made(STEPS, phase="prefill"), "other_phases"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(base, candidate, code):
    found = compare([base], [candidate])
    assert found.comparable == "no"
    assert found.phases == ()
    assert found.verdict == "not comparable"
    assert found.reasons[0].code == code


def test_another_quantisation_is_marked():
    base, other = made(STEPS, model_type="llama 1B Q4_K - Medium"), made(STEPS, model_type="llama 1B Q8_0")
    found = compare([base], [other])
    assert found.comparable == "marked"
    assert "other_quant" in {reason.code for reason in found.reasons}


def test_anyway_compares_what_is_refused():
    found = compare([made(STEPS, n_vocab="1")], [made(STEPS, n_vocab="2")], anyway=True)
    assert found.comparable == "marked"
    assert found.phase("decode").total.verdict == "no change"


def test_setup_differences_come_first_and_in_order():
    one = made(STEPS, n_ubatch="512", build="1 (a)", gpu="A")
    other = made(STEPS, n_ubatch="256", build="2 (b)", gpu="A")
    found = compare([one], [other])
    assert [(d.name, d.base, d.candidate) for d in found.setup] == [
        ("build", "1 (a)", "2 (b)"),
        ("n_ubatch", "512", "256"),
    ]
    assert found.shared_setup == (("gpu", "A"),)


def test_attention_is_not_judged_over_other_contexts():
    attention = {"ledger.kernel": 100, "category.attention": 60, "category.norm": 40}
    short, long = attention | {"bytes_input": 512}, attention | {"bytes_input": 2048}
    long |= {"ledger.kernel": 140, "category.attention": 100}
    found = compare([made([short] * 30)], [made([long] * 30)])
    lines = {line.name: (line.verdict, line.note) for line in found.phases[0].lines}
    assert lines["categories.attention"] == (None, "another context")
    assert lines["categories.norm"] == ("no change", None)
    assert "other_context" in {reason.code for reason in found.reasons}
