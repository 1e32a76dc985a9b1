"""Gates: what they read, what they decide, and what they exit with."""

import pytest
from runs import SMALL, graphs_off, made, run, slower_kernels

from nsyskit.compare.compare import compare
from nsyskit.compare.gate import check, exit_code, parse_gate, read_gates
from nsyskit.compare.noise import NoiseModel
from nsyskit.errors import UsageError

SURE = NoiseModel(gpu_run=0, host_run=0, kernel_run=0)


def outcome(base, candidate, text):
    results = check(compare([base], [candidate]), [parse_gate(text)])
    return [result.outcome for result in results], exit_code(results)


def steps(kernel=1000, launches=1, count=20):
    return made([{"ledger.kernel": kernel, "launches": launches}] * count)


def test_counts_are_exact():
    assert outcome(steps(), steps(), "launches_per_token<=+0") == (["passed"], 0)
    assert outcome(steps(), steps(launches=2), "launches_per_token<=+0") == (["violated"], 1)
    assert outcome(steps(), steps(launches=2), "decode.launches_per_token<=+1") == (["passed"], 0)
    assert outcome(steps(), steps(launches=2), "launches_per_token<=1") == (["violated"], 1)
    assert outcome(steps(launches=2), steps(), "launches_per_token>=2") == (["violated"], 1)


def replays(launches, recorded, count=40):
    """Steps that replay a graph after so many launches of their own; ``recorded`` others launch 300 kernels."""
    replayed = {"ledger.kernel": 1000, "launches": launches, "graph_launches": 1}
    recording = {"ledger.kernel": 1000, "launches": 300, "captures": 1, "graph_launches": 1}
    return made([recording if at < recorded else replayed for at in range(count)])


def test_launches_where_some_steps_record_graphs():
    """One recording more is an accident of the window; one launch more in every other step is not."""
    gate = "launches_per_token<=+0"
    assert outcome(replays(2, 1), replays(2, 1), gate) == (["passed"], 0)
    assert outcome(replays(2, 1), replays(2, 2), gate) == (["within noise"], 0)
    assert outcome(replays(2, 0), replays(2, 1), gate) == (["within noise"], 0)
    assert outcome(replays(2, 1), replays(3, 1), gate) == (["violated"], 1)
    assert outcome(replays(2, 2), replays(3, 1), gate) == (["violated"], 1)  # fewer in all, one more where it counts
    assert outcome(replays(2, 1), replays(2, 20), gate) == (["violated"], 1)
    assert outcome(replays(3, 1), replays(2, 1), gate) == (["passed"], 0)


def test_times_are_decided_beyond_noise():
    assert outcome(steps(), steps(1300), "decode.ms_per_token<=+3%") == (["violated"], 1)
    assert outcome(steps(), steps(1035), "decode.ms_per_token<=+3%") == (["within noise"], 0)
    assert outcome(steps(), steps(1035), "decode.ms_per_token<=+5%") == (["passed"], 0)
    assert outcome(steps(), steps(1300), "ms_per_token<=+10ns") == (["violated"], 1)
    assert outcome(steps(), steps(1300), "ms_per_token<=1.4us") == (["passed"], 0)


def test_a_gate_on_a_kernel_fires_beyond_the_clock():
    pair = run(SMALL, 1), run(SMALL, 2, slower_kernels)
    assert outcome(*pair, "decode.categories.matmul_quant<=+1%") == (["violated"], 1)
    assert outcome(*pair, "decode.categories.attention<=+2%")[1] == 0
    assert outcome(*pair, "decode.ms_per_token<=+10%") == (["passed"], 0)


def test_a_gate_on_graphs_fires():
    assert outcome(run(SMALL, 1), run(SMALL, 2, graphs_off), "decode.graph_launches_per_token>=+0") == (["violated"], 1)


def test_what_cannot_be_decided_exits_2():
    assert outcome(steps(), steps(count=3), "decode.ms_per_token<=+3%") == (["undecided"], 2)
    assert outcome(steps(), steps(), "prefill.ms_per_token<=+3%") == (["undecided"], 2)
    refused = made([{"ledger.kernel": 1}] * 9, errors=("broken",))
    assert outcome(steps(), refused, "decode.ms_per_token<=+3%") == (["undecided"], 2)


@pytest.mark.parametrize("text", ["decode.ms_per_token", "ms<3%", "a<=+3 parsecs", "a<=3%", "<=+3%"])
def test_what_is_no_gate(text):
    with pytest.raises(UsageError, match="write for instance"):
        parse_gate(text)


def test_an_unknown_number_names_those_there_are():
    with pytest.raises(UsageError, match="ms_per_token"):
        outcome(steps(), steps(), "decode.speed<=+3%")


def test_a_time_needs_a_unit():
    with pytest.raises(UsageError, match="without a unit"):
        outcome(steps(), steps(), "decode.ms_per_token<=+3")


def test_gates_of_a_file(tmp_path):
    path = tmp_path / "gates.toml"
    path.write_text('[gates]\n"decode.ms_per_token" = "<=+3%"\nlaunches_per_token = "<=+0"\n')
    assert [gate.text for gate in read_gates(path)] == ["decode.ms_per_token<=+3%", "launches_per_token<=+0"]
    path.write_text('gates = ["host<=+5us"]')
    assert [(gate.metric, gate.value) for gate in read_gates(path)] == [("host", 5000.0)]
    path.write_text("gates = 3")
    with pytest.raises(UsageError, match="holds no gates"):
        read_gates(path)
