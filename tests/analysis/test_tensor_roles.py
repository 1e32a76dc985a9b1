"""Matrix kernels by tensor, against the generator's knowledge of what each kernel multiplies with."""

from __future__ import annotations

import json
from collections import defaultdict

import jsonschema
import polars as pl
import pytest
from click.testing import CliRunner
from synthetic import PRESETS, synthesize
from synthetic_gguf import write_header
from tiny_gguf import write_tiny_gguf
from tiny_trace import api, exporter, kernel, open_tiny

from nsyskit import analyze
from nsyskit.analysis.limits import load_of
from nsyskit.analysis.roles import _Kernel, _named, _Sequence, roles
from nsyskit.analysis.windows import window_all
from nsyskit.cli import cli
from nsyskit.errors import MissingTableError
from nsyskit.ggml.decode_order import ATTENTION, orders, unknown_roles
from nsyskit.ggml.gguf_file import read_model
from nsyskit.report.figures import figure
from nsyskit.report.html import render_html
from nsyskit.report.json import document, json_schema
from nsyskit.report.text import render_text
from nsyskit.trace import Window

RECIPES = [
    ("bench-node", "--steps", "6"), ("demo",), ("cpu-experts", "--steps", "6"), ("two-gpus-layer-split",),
    ("gemma3-4b-f16-turing", "--steps", "6"), ("pdl-hopper", "--steps", "4"), ("host-bound",),
    ("launch-bound", "--steps", "6"), ("slots-32", "--steps", "80"), ("unified-memory",), ("two-processes",),
]  # fmt: skip


def load_for(folder, preset, *, types=None, drop=()):
    """What is known of a preset's model from the header of its file."""
    return load_of(read_model(write_header(folder / "model.gguf", PRESETS[preset].model, types=types, drop=drop)))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("bench"), "bench-node", "--steps", "4")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown")
    case = synthesize(folder, "launch-bound", "--steps", "4")
    return analyze(case.trace, only=["roles"], load=load_for(folder, "launch-bound"))


def one_step(case, wanted):
    """The window of the first step of a kind."""
    step = next(step for step in case.truth["steps"] if wanted(step))
    return Window("explicit", step["begin_ns"], step["begin_ns"] + 1)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe[0])
def test_every_kernel_has_its_tensor(tmp_path, recipe):
    """Roles that equal shapes leave undecided are told together; sums agree to the nanosecond, bytes to the byte."""
    case = synthesize(tmp_path, *recipe)
    found = roles(case.trace, window=window_all(case.trace), load=load_for(tmp_path, recipe[0]))
    assert found.why_none is None
    truth = {row["role"]: row for row in case.truth["roles"] if row["n_tokens"] == found.batch}
    assert sorted(part for role in found.roles["role"] for part in role.split(", ")) == sorted(truth)
    for row in found.roles.iter_rows(named=True):
        parts = [truth[role] for role in row["role"].split(", ")]
        assert row["ns"] * found.steps == pytest.approx(sum(part["total_ns"] for part in parts), abs=1)
        assert row["bytes"] * found.steps == sum(part["bytes"] for part in parts)
        assert row["kernels"] * found.steps == sum(part["count"] for part in parts)
    by_layer: defaultdict[int, int] = defaultdict(int)
    for row in truth.values():
        for layer, total in row["layers"].items():
            by_layer[int(layer)] += total
    assert {row["layer"]: round(row["ns"] * found.steps) for row in found.layers.iter_rows(named=True)} == {
        layer: total for layer, total in by_layer.items() if layer >= 0
    }


def test_together_they_are_all_matrices(tmp_path):
    case = synthesize(tmp_path, "bench-node", "--steps", "6")
    found = roles(case.trace, load=load_for(tmp_path, "bench-node"))
    assert found.roles["share"].sum() == pytest.approx(1)
    assert found.roles["ns"].sum() == pytest.approx(found.cells["ns"].sum())
    assert found.roles["bytes"].sum() == case.truth["facts"]["weights_read_bytes"] - 22 * 2 * 2048 * 4 - 2048 * 4
    row = found.roles.row(0, named=True)
    assert row["gb_per_s"] == pytest.approx(row["bytes"] / row["ns"])
    assert row["share_of_peak"] == pytest.approx(row["gb_per_s"] * 1e9 / found.memory_bandwidth)


class TestWhyNot:
    """Any disagreement is told, and nothing shown."""

    def why(self, bench, load, window=None):
        found = roles(bench.trace, load=load, window=window)
        assert found.roles.is_empty()
        assert found.cells.is_empty()
        assert found.steps == 0
        return found.why_none

    def test_another_format(self, bench, tmp_path):
        load = load_for(tmp_path, "bench-node", types={"ffn_down": "Q5_K"})
        assert self.why(bench, load) == (
            "kernel 7 of a step is a product with Q6_K where ffn_down of layer 0 (Q5_K, 2,048 rows) is due"
        )

    def test_another_layer_count(self, bench, tmp_path):
        gone = tuple(f"blk.21.{role}.weight" for role in ("attn_q", "attn_k", "attn_v", "attn_output"))
        assert "is due" in self.why(bench, load_for(tmp_path, "bench-node", drop=gone))

    def test_another_model_of_the_same_formats(self, bench, tmp_path):
        """8 B in place of 1.1 B: the same formats in the same order, but other numbers of rows."""
        load = load_for(tmp_path, "two-gpus-layer-split")
        assert self.why(bench, load) == (
            "kernel 2 of a step is a product with Q4_K of 256 blocks where attn_k of layer 0 (Q4_K, 1,024 rows) is due"
        )

    def test_two_streams(self, tmp_path):
        case = synthesize(tmp_path, "second-stream", "--steps", "6")
        assert "is due" in self.why(case, load_for(tmp_path, "second-stream"))

    def test_two_models(self, tmp_path):
        case = synthesize(tmp_path, "speculative", "--rounds", "3")
        assert "product with Q8_0 where attn_q" in self.why(case, load_for(tmp_path, "speculative"))

    def test_hidden_kernels(self, tmp_path):
        """All steps but the first of a repetition, which runs without a graph."""
        case = synthesize(tmp_path, "bench-graph")
        later = one_step(case, lambda step: step["phase"] == "decode" and step["graph_rows"])
        assert "hidden in CUDA graphs" in self.why(case, load_for(tmp_path, "bench-graph"), later)

    def test_large_batches_only(self, tmp_path):
        case = synthesize(tmp_path, "slots-32", "--steps", "30")
        large = one_step(case, lambda step: step["phase"] == "decode" and step["n_tokens"] > 8)
        why = self.why(case, load_for(tmp_path, "slots-32"), large)
        assert why == "no decode step of up to 8 tokens in this window"

    def test_without_a_model_or_steps(self, bench, tmp_path):
        with pytest.raises(MissingTableError, match="tensors of the model"):
            roles(bench.trace)
        rows = (exporter(), api("cudaLaunchKernel", 0, 3, corr=1), kernel("void k<int>(int)", 5, 8, corr=1))
        with pytest.raises(MissingTableError, match="decode steps"):
            roles(open_tiny(tmp_path, *rows), load=load_for(tmp_path, "bench-node"))


def test_lost_rows_are_left_out(tmp_path):
    case = synthesize(tmp_path, "bench-node", "--steps", "20", "--drop-api", "0.001")
    found = roles(case.trace, window=window_all(case.trace), load=load_for(tmp_path, "bench-node"))
    assert found.why_none is None
    assert found.steps + found.others <= case.truth["phases"]["decode"]["count"]


class TestOrders:
    def test_of_a_dense_model(self, tmp_path):
        facts = read_model(write_tiny_gguf(tmp_path / "m.gguf", layers=1))
        found = orders(facts, facts.tensors)
        named = [" ".join(one.role.removeprefix("attn_") for one in order) for order in found]
        assert "q k v attention output ffn_gate ffn_up ffn_down output" in named
        assert "q v k kq attention kqv output ffn_gate + ffn_up ffn_down output" in named
        assert len(named) == len(set(named)) == 2 * 2 * 3  # V first, flash attention, gate and up in three ways

    def test_of_experts(self, tmp_path):
        moe = write_tiny_gguf(
            tmp_path / "m.gguf", layers=1, arch="qwen2moe", experts=8, experts_used=2, shared_ffn=256
        )  # fmt: skip
        facts = read_model(moe)
        named = {tuple(one.role for one in order) for order in orders(facts, facts.tensors)}
        head = ("attn_q", "attn_k", "attn_v", ATTENTION, "attn_output", "ffn_gate_inp")
        routed = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
        shared = ("ffn_gate_inp_shexp", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", "output")
        assert (*head, *routed, *shared) in named
        assert (*head, *shared) in named  # experts on the CPU
        assert (*head, ATTENTION, *routed, *shared) in named  # the router's softmax
        down = next(one for one in orders(facts, facts.tensors)[-1] if one.role == "ffn_down_exps")
        assert down.bytes == 2 * 256 * 512 * 2  # two experts in use, F16

    def test_what_has_no_known_place(self, tmp_path):
        facts = read_model(write_tiny_gguf(tmp_path / "m.gguf", layers=1))
        odd = type(facts.tensors[0])("blk.0.ssm_in.weight", "ssm_in", 0, "F16", (4, 4), 32)
        assert unknown_roles(facts.tensors) == []
        assert unknown_roles([*facts.tensors, odd]) == ["ssm_in"]


class TestMatching:
    """Kernels made up from an order of the model, with one of them changed or left out."""

    @pytest.fixture
    def candidates(self, tmp_path):
        facts = read_model(write_tiny_gguf(tmp_path / "m.gguf", layers=2))
        return orders(facts, facts.tensors)

    def kernels(self, order):
        return _Sequence(
            tuple(
                None if one.role == ATTENTION else _Kernel(7, one.type or "F16", one.rows and one.rows // 2)
                for one in order
            )
        )  # fmt: skip

    def test_without_flash_attention(self, candidates):
        """K and V are of one shape: two orders fit, and tell them together; nothing else is undecided."""
        plain = next(one for one in candidates if "kq" in {matrix.role for matrix in one} and len(one) == 2 * 10 + 1)
        named = _named(self.kernels(plain), candidates)
        assert [one.role for one in named[:7]] == [
            "attn_q", "attn_k, attn_v", "attn_k, attn_v", "kq", ATTENTION, "kqv", "attn_output",
        ]  # fmt: skip
        assert [one.role for one in named[7:10]] == ["ffn_gate, ffn_up", "ffn_gate, ffn_up", "ffn_down"]

    def test_one_kernel_too_few(self, candidates):
        order = candidates[0]
        why = _named(self.kernels(order[:-1]), [order])
        assert why == f"a step has {len(order) - 1} products and attentions, the model {len(order)}"

    def test_one_kernel_of_another_grid(self, candidates):
        order = candidates[0]
        kernels = self.kernels(order).kernels
        odd = _Sequence((*kernels[:-1], _Kernel(7, "F16", 3)))
        assert _named(odd, [order]).endswith("a product with F16 of 3 blocks where output (F16, 260 rows) is due")


class TestShown:
    def test_in_text_and_json(self, report):
        jsonschema.Draft202012Validator(json_schema()).validate(json.loads(json.dumps(document(report))))
        shown = render_text(report, width=110)
        assert "Matrices by tensor, mean of" in shown
        assert "attn_k, attn_v (Q8_0)" in shown

    def test_in_html(self, report):
        drawn = figure(report.sections["roles"])
        cells = report.sections["roles"].cells.filter(pl.col("layer").is_not_null())
        assert sum(sum(one.y) for one in drawn.data) == pytest.approx(cells["ns"].sum() / 1e3)
        assert "Matrices by layer and tensor" in render_html(report)

    def test_why_not(self, tmp_path):
        case = synthesize(tmp_path, "second-stream", "--steps", "3")
        report = analyze(case.trace, only=["roles"], load=load_for(tmp_path, "second-stream"))
        assert "Tensors are not told apart: kernel 9 of a step" in render_text(report, width=200)
        assert "Tensors are not told apart: kernel 9 of a step" in render_html(report)

    def test_on_the_command_line(self, tmp_path):
        case = synthesize(tmp_path, "launch-bound", "--steps", "4")
        model = write_header(tmp_path / "model.gguf", PRESETS["launch-bound"].model)
        without = CliRunner().invoke(cli, ["analyze", str(case.path), "-a", "roles"])
        assert without.exit_code == 2
        assert "give --model FILE.gguf" in without.output
        done = CliRunner().invoke(cli, ["analyze", str(case.path), "-a", "roles", "--model", str(model)])
        assert done.exit_code == 0
        assert "Matrices by tensor" in done.output
