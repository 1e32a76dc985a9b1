"""Advice: only with a number of this trace, and its experiment, run in the generator, has the sign it promises."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from nsyskit.analysis.advice import advice
from nsyskit.analysis.analyze import Report, analyze
from nsyskit.analysis.limits import ModelLoad
from nsyskit.analysis.trust import TrustNote
from nsyskit.ingest import open_trace
from nsyskit.report.json import document
from nsyskit.trace import Trace
from traces.synth.build import lay_out
from traces.synth.presets import PRESETS, Preset
from traces.synth.programs import Test
from traces.synth.writer import write

Test.__test__ = False

LAUNCH = replace(PRESETS["launch-bound"], steps=24)
HOST = PRESETS["host-bound"]
EXPERTS = PRESETS["cpu-experts"]
STREAMED = replace(EXPERTS, tests=(Test(512, 0),), repetitions=3, n_ubatch=64)
SPLIT = PRESETS["two-gpus-layer-split"]
LONG = replace(PRESETS["bench-depth"], tests=(Test(0, 12, n_depth=1024),))


def graphs(preset):
    return replace(preset, options=replace(preset.options, graph="graph"))


def sampling_on_gpu(preset):
    return replace(preset, options=replace(preset.options, logits=False))


def faster_cpu(preset):
    """More threads, where memory bandwidth grows with them."""
    return replace(preset, host=replace(preset.host, memory_bandwidth=2 * preset.host.memory_bandwidth))


def experts_on_gpu(preset):
    return replace(preset, options=replace(preset.options, experts_on_cpu=False))


def larger_ubatch(preset):
    return replace(preset, n_ubatch=512)


def two_sequences(preset):
    return replace(preset, slots=2, traffic=replace(preset.traffic, count=2, first=2))


def half_the_cache(preset):
    """A quantised cache: attention walks it in half the time."""
    gpu = preset.gpus[0]
    return replace(preset, gpus=(replace(gpu, attention_ns_per_kv=gpu.attention_ns_per_kv / 2),))


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("advice")
    traces, known = {}, {}

    def trace(preset: Preset) -> Trace:
        if preset not in traces:
            path = folder / f"{len(traces)}.sqlite"
            write(lay_out(preset, 1), path, name="advice", seed=1)
            traces[preset] = open_trace(path)
        return traces[preset]

    def of(preset: Preset) -> Report:
        if preset not in known:
            known[preset] = analyze(trace(preset), only=["advice"])
        return known[preset]

    of.trace = trace
    return of


def ns_per_token(report, phase):
    return sum(report.sections["steps"].by_phase[phase].ledger.values())


@pytest.mark.parametrize(
    ("preset", "name", "experiment"),
    [
        (LAUNCH, "graphs_on", graphs),
        (HOST, "backend_sampling", sampling_on_gpu),
        (EXPERTS, "threads", faster_cpu),
        (EXPERTS, "more_on_gpu", experts_on_gpu),
        (STREAMED, "larger_ubatch", larger_ubatch),
        (SPLIT, "split_decode", two_sequences),
        (LONG, "kv_quant", half_the_cache),
    ],
)
def test_the_experiment_has_the_sign_and_keeps_the_bound(analysed, preset, name, experiment):
    before = analysed(preset)
    item = next(item for item in before.sections["advice"].items if item.name == name)
    old, new = ns_per_token(before, item.phase), ns_per_token(analysed(experiment(preset)), item.phase)
    assert new < old
    if name not in {"larger_ubatch", "split_decode"}:  # larger batches also multiply faster: a gain of another kind
        assert old / new <= item.max_speedup * 1.05


DEEP = replace(LONG, options=replace(LONG.options, graph="graph"))
NODE = replace(PRESETS["bench-node"], steps=16)
SLOW_FORMAT = replace(NODE, gpus=(replace(NODE.gpus[0], slow_kernel="mul_mat_vec_q<(ggml_type)12", slow_by=3.0),))
SMALL_UBATCH = replace(PRESETS["bench-depth"], tests=(Test(512, 0),), repetitions=3, n_ubatch=32)


def faster_format(preset):
    """Kernels of the one format as fast as those of the others."""
    return replace(preset, gpus=(replace(preset.gpus[0], slow_by=1.0),))


def half_the_bytes(preset):
    """As reading half as many bytes of weights."""
    return replace(preset, gpus=(replace(preset.gpus[0], bandwidth=2 * preset.gpus[0].bandwidth),))


def load_for(report, *, quant="Q8_0", quant_share=0.5, kv_share=0.0):
    """A model whose weights take a quarter of a token's time to read, ``quant_share`` of them in one format."""
    bandwidth = report.meta.gpus[0].memory_bandwidth
    decode = report.sections["steps"].by_phase.get("decode")
    weights = round((sum(decode.ledger.values()) if decode else 1e6) / 1e9 * bandwidth / 4)
    kv = round(weights * kv_share / 1024)
    return ModelLoad(weights, {quant: round(quant_share * weights)}, kv_bytes_per_token=kv, body_weights=1_000_000_000)


@pytest.mark.parametrize(
    ("preset", "name", "experiment", "load"),
    [
        (SLOW_FORMAT, "format_q4_k", faster_format, {"quant": "Q4_K"}),
        (DEEP, "kv_quant", half_the_cache, {"kv_share": 0.5}),
        (SMALL_UBATCH, "fuller_ubatch", larger_ubatch, {}),
    ],
)
def test_experiments_of_the_limits(analysed, preset, name, experiment, load):
    trace = analysed.trace(preset)
    found = analyze(trace, only=["advice"], load=load_for(analysed(preset), **load))
    item = next(item for item in found.sections["advice"].items if item.name == name)
    old, new = (ns_per_token(analysed(one), item.phase) for one in (preset, experiment(preset)))
    assert new < old
    assert old / new <= item.max_speedup * 1.05
    body = document(found)
    for evidence in item.evidence:
        assert resolved(body, evidence.path) == evidence.value
    assert item.refuted_by


def test_near_the_floor_only_fewer_bytes_help(analysed):
    preset = replace(PRESETS["bench-graph"], steps=16)
    before = analysed(preset)
    measured = ns_per_token(before, "decode")
    weights = round(0.7 * measured / 1e9 * before.meta.gpus[0].memory_bandwidth)
    found = analyze(analysed.trace(preset), only=["advice"], load=ModelLoad(weights, {}))
    item = next(item for item in found.sections["advice"].items if item.name == "fewer_bytes")
    assert item.evidence[0].value == pytest.approx(0.7, rel=0.05)
    assert item.max_speedup == pytest.approx(1 / 0.3, rel=0.15)
    assert ns_per_token(analysed(half_the_bytes(preset)), "decode") < measured
    without = analyze(analysed.trace(preset), only=["advice"], load=ModelLoad(weights // 10, {}))
    assert "fewer_bytes" not in {item.name for item in without.sections["advice"].items}


def resolved(body, path):
    """The value at a path of the document; numbers are places in lists."""
    for key in path.split("."):
        body = body[int(key)] if key.isdigit() else body[key]
    return body


def test_every_number_stands_in_the_document(analysed):
    for preset in (LAUNCH, HOST, EXPERTS, SPLIT):
        body = document(analysed(preset))
        assert body["advice"]["items"]
        for item in body["advice"]["items"]:
            assert item["refuted_by"]
            for evidence in item["evidence"]:
                assert resolved(body, evidence["path"]) == evidence["value"]


def test_items_are_ranked_by_what_they_can_give(analysed):
    gains = [item.max_gain_ns for item in analysed(EXPERTS).sections["advice"].items]
    assert gains == sorted(gains, reverse=True)


def test_a_gpu_that_is_always_busy_gets_no_advice_about_the_host(analysed):
    found = analysed(replace(PRESETS["bench-graph"], steps=16)).sections["advice"]
    assert found.items == ()
    assert "large enough" in found.withheld


def test_no_advice_without_steps_or_trust(analysed):
    assert advice(None).withheld == "no advice: no llama.cpp steps were found in this trace"
    steps = analysed(LAUNCH).sections["steps"]
    broken = advice(steps, trust=[TrustNote("error", "kernels_missing", "no kernels")])
    assert (broken.items, broken.withheld) == ((), "no advice: no kernels")
