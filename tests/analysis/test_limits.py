"""Limits: what a token reads against the memory's speed, what a prompt computes against the cores."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest
from synthetic import synthesize
from tiny_gguf import write_tiny_gguf

from nsyskit import analyze
from nsyskit.analysis.limits import ModelLoad, limits, load_of, peak_rate
from nsyskit.analysis.step_costs import steps
from nsyskit.errors import MissingTableError
from nsyskit.ggml.gguf_file import bytes_per_token, kv_bytes_per_token, read_model, weights_per_token
from nsyskit.report.words import limit_sentences
from nsyskit.units import human_bytes


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("bench"), "bench-node", "--steps", "6")


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    return read_model(write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", layers=4))


class TestLoad:
    def test_everything_on_the_gpu(self, facts):
        load = load_of(facts)
        assert load.bytes_per_token == bytes_per_token(facts)
        assert load.body_weights + load.output_weights == weights_per_token(facts)
        assert load.output_weights == 256 * 260  # width times vocabulary
        assert load.kv_bytes_per_token == kv_bytes_per_token(facts)
        assert load.left_out is None

    def test_formats_without_norms(self, facts):
        norms = sum(tensor.bytes for tensor in facts.tensors if tensor.role == "norms")
        assert sum(load_of(facts).by_quant.values()) == bytes_per_token(facts) - norms

    @pytest.mark.parametrize(("ngl", "layers", "output"), [(99, 4, True), (5, 4, True), (4, 4, False), (1, 1, False)])
    def test_layers_on_the_cpu(self, facts, ngl, layers, output):
        load = load_of(facts, ["llama-cli", "-ngl", str(ngl)])
        assert load.body_weights == load_of(facts).body_weights * layers // 4
        assert (load.output_weights > 0) == output
        assert (load.left_out is None) == output

    @pytest.mark.parametrize(
        ("flags", "kept"), [([], 4), (["--cpu-moe"], 0), (["-ncmoe", "3"], 1), (["-ot", "x=CPU"], 4)]
    )
    def test_experts_on_the_cpu(self, tmp_path, flags, kept):
        moe = read_model(
            write_tiny_gguf(tmp_path / "moe.gguf", layers=4, arch="qwen3moe", experts=8, experts_used=2)
        )  # fmt: skip
        whole = load_of(moe)
        experts = sum(tensor.bytes for tensor in moe.tensors if tensor.role.endswith("_exps")) * 2 // 8
        load = load_of(moe, ["llama-server", *flags])
        assert load.bytes_per_token == whole.bytes_per_token - experts * (4 - kept) // 4
        assert (load.left_out is None) == (not flags)

    def test_the_cache(self, facts):
        assert load_of(facts, ["llama-cli", "-ctk", "q8_0", "-ctv", "q4_0"]).kv_bytes_per_token == 4 * 128 * 13 // 8
        assert load_of(facts, ["llama-cli", "-ctk", "q8_0", "-ctv", "q4_0"]).kv_types == "q8_0/q4_0"
        assert load_of(facts, ["llama-cli", "-ctk", "nonsense"]).kv_types == "f16"
        assert load_of(facts, ["llama-cli", "-ngl", "3"]).kv_bytes_per_token == kv_bytes_per_token(facts) * 3 // 4

    def test_a_sliding_window_bounds_what_is_read(self):
        load = ModelLoad(500, {}, kv_bytes_per_token=10, sliding_window=4)
        assert [load.kv_bytes(depth) for depth in (3, 4, 900)] == [30, 40, 40]
        assert ModelLoad(500, {}).kv_bytes(900) is None


class TestLimits:
    def test_the_floor_of_the_synthetic_model(self, bench):
        """The generator takes the bytes from the same shapes, and lets no kernel be faster than the memory."""
        size = bench.truth["facts"]["weights_read_bytes"]
        found = limits(bench.trace, load=ModelLoad(size, {}))
        cost = steps(bench.trace).by_phase["decode"]
        assert found.memory_bandwidth == bench.trace.meta.gpus[0].memory_bandwidth
        assert found.floor_ms == pytest.approx(size / found.memory_bandwidth * 1e3)
        assert found.measured_ms == pytest.approx(cost.ms_per_token["p50"], rel=0.02)
        assert 0.3 < found.bandwidth_share < 1
        assert found.max_speedup == pytest.approx(found.measured_ms / found.floor_ms)
        assert found.prefill is None

    def test_the_cache_at_its_depth(self, bench):
        """Six tokens from an empty cache, repeated, and the warm-up's one, which is outside of the window."""
        size, each = bench.truth["facts"]["weights_read_bytes"], bench.truth["facts"]["kv_bytes_per_token"]
        found = limits(bench.trace, load=ModelLoad(size, {}, kv_bytes_per_token=each))
        single = steps(bench.trace).steps.filter(phase="decode").drop_nulls("period_ns")
        truth = {step["begin_ns"]: step["n_kv"] for step in bench.truth["steps"]}
        assert found.depth == median(truth[begin] for begin in single["begin_ns"])
        assert found.kv_bytes == each * found.depth
        assert found.floor_ms == pytest.approx((size + found.kv_bytes) / found.memory_bandwidth * 1e3)
        told = limit_sentences(found)
        assert f"{found.depth:,.0f} tokens in the median" in told[2]
        assert f"{human_bytes(found.kv_bytes)} of its cache" in told[0]

    def test_a_depth_that_nothing_tells(self, tmp_path):
        trace = synthesize(tmp_path, "speculative", "--rounds", "2").trace
        found = limits(trace, load=ModelLoad(500, {}, kv_bytes_per_token=100))
        assert (found.depth, found.kv_bytes) == (None, None)
        assert found.floor_ms == pytest.approx(500 / found.memory_bandwidth * 1e3)
        assert "depth unknown, so the cache is not in the floor" in limit_sentences(found)[2]

    def test_rates_of_the_formats(self, bench):
        found = limits(bench.trace, load=ModelLoad(500, {"Q4_K": 400_000_000, "Q6_K": 100_000_000, "Q8_0": 1}))
        rows = {row["quant"]: row for row in found.by_quant.iter_rows(named=True)}
        assert set(rows) == {"Q4_K", "Q6_K"}
        for row in rows.values():
            assert row["gb_per_s"] == pytest.approx(row["bytes_per_token"] / row["ns_per_token"])
            assert row["share_of_peak"] == pytest.approx(row["gb_per_s"] / found.memory_bandwidth * 1e9)

    def test_prompts(self, bench):
        load = ModelLoad(500, {"F16": 500}, body_weights=1000, output_weights=10)
        found = limits(bench.trace, load=load).prefill
        cost = steps(bench.trace).by_phase["prefill"]
        assert found.tflops == pytest.approx(2 * cost.tokens_per_s * (1000 + 10 / 512) / 1e12)
        assert found.peak_tflops is None  # an RTX 3060 is not in the table

    def test_no_steps(self, real):
        from nsyskit import open_trace

        with pytest.raises(MissingTableError, match="steps"):
            limits(open_trace(real("t4-power-iteration")), load=ModelLoad(1, {}))

    def test_a_section_only_with_a_model(self, bench, facts):
        assert "limits" not in analyze(bench.trace, only=["steps"]).sections
        assert analyze(bench.trace, only=["limits"]).sections["limits"] is None
        assert analyze(bench.trace, only=["limits"], load=load_of(facts)).sections["limits"].floor_ms > 0

    def test_a_gpu_without_a_known_bandwidth(self, bench):
        trace = replace(bench.trace, meta=replace(bench.trace.meta, gpus=()))
        found = limits(trace, load=ModelLoad(500, {"Q4_K": 500}))
        assert (found.floor_ms, found.bandwidth_share, found.max_speedup) == (None, None, None)
        assert found.by_quant["share_of_peak"].to_list() == [None]


@pytest.mark.parametrize(
    ("name", "quantised", "rate"),
    [
        ("NVIDIA A100-SXM4-80GB", False, 312), ("NVIDIA A100-SXM4-80GB", True, 624),
        ("NVIDIA H100 PCIe", False, 756), ("NVIDIA H100 80GB HBM3", False, 989.4),
        ("NVIDIA GeForce RTX 4090", True, 660.6), ("NVIDIA GeForce RTX 4090 Laptop GPU", True, None),
        ("Tesla V100-SXM2-16GB", True, None), ("Tesla T4", False, 65), ("NVIDIA L40S", False, 362.05),
        ("NVIDIA RTX A4000", False, None), ("NVIDIA GeForce RTX 3060", False, None),
    ],
)  # fmt: skip
def test_peaks(name, quantised, rate):
    found = peak_rate(name, quantised=quantised)
    assert (found and found[0]) == rate
    assert found is None or "NVIDIA" in found[1]
