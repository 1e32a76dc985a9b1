"""Depth: tokens in context of every decode step against the schedule, and what they cost."""

from __future__ import annotations

import json
from collections import Counter

import jsonschema
import polars as pl
import pytest
from synthetic import PRESETS, synthesize

from nsyskit import analyze
from nsyskit.analysis.depth import depth
from nsyskit.analysis.positions import positions
from nsyskit.analysis.program import kept_texts
from nsyskit.analysis.step_costs import LEDGER_PARTS
from nsyskit.analysis.steps import find_steps
from nsyskit.analysis.windows import window_all
from nsyskit.errors import MissingTableError
from nsyskit.ggml.outputs import parse_output
from nsyskit.report.figures import figure
from nsyskit.report.html import render_html
from nsyskit.report.json import document, json_schema
from nsyskit.report.text import render_text


def beyond_truth(case, found) -> Counter[int]:
    """By how much the tokens in context exceed those of the schedule, over the decode steps."""
    truth = {(step["pid"], step["tid"], step["begin_ns"]): step["n_kv"] for step in case.truth["steps"]}
    steps = find_steps(case.trace).steps.join(found.rows, on="index", how="inner")
    return Counter(row["total"] - truth[row["pid"], row["tid"], row["begin_ns"]] for row in steps.iter_rows(named=True))


@pytest.mark.parametrize(
    ("recipe", "basis"),
    [
        (("bench-node", "--steps", "20"), "program"), (("bench-graph",), "program"),
        (("launch-bound", "--steps", "6"), "program"), (("cpu-experts", "--steps", "6"), "program"),
        (("second-stream", "--steps", "4"), "program"),
    ],
    ids=lambda value: value[0],
)  # fmt: skip
def test_tests_of_llama_bench(tmp_path, recipe, basis):
    case = synthesize(tmp_path, *recipe)
    found = positions(case.trace)
    assert found.basis == basis
    assert beyond_truth(case, found) == {0: case.truth["phases"]["decode"]["count"]}
    assert found.checked == found.rows.height  # every step's mask has the size that follows


def test_a_filled_cache(tmp_path):
    """The warm-up of the test runs on an empty cache, which the schedule does not model."""
    case = synthesize(tmp_path, "bench-depth", "--steps", "16")
    assert beyond_truth(case, positions(case.trace)) == {0: 32, -1024: 1}


@pytest.mark.parametrize(
    ("recipe", "basis"),
    [
        (("demo",), "program"), (("graph-update-failed",), "program"), (("m-rope",), "program"),
        (("two-processes",), "program"), (("slots-32",), "program"), (("no-osrt",), "program"),
        (("server-idle-long-prompt",), "program"), (("gemma3-4b-f16-turing", "--steps", "40"), "prompt"),
    ],
    ids=lambda value: value[0],
)  # fmt: skip
def test_requests_of_llama_server(tmp_path, recipe, basis):
    """The schedule looks at one cell more than it has tokens."""
    case = synthesize(tmp_path, *recipe)
    found = positions(case.trace)
    assert found.basis == basis
    assert set(beyond_truth(case, found)) == {-1}
    assert found.rows.height > 0.9 * case.truth["phases"]["decode"]["count"]
    assert found.checked == found.rows.height


def test_where_the_depth_is_unknown(tmp_path):
    case = synthesize(tmp_path, "speculative", "--rounds", "4")
    found = depth(case.trace)
    assert found.basis == "since_prefill"
    assert found.checked == 0
    rows = positions(case.trace).rows
    decode = find_steps(case.trace).steps.filter(pl.col("phase") == "decode")
    assert rows["total"].to_list() == list(range(1, decode.height + 1))  # its prompts come before all of them
    assert "unknown: counted from the last prompt" in render_text(analyze(case.trace, only=["depth"]), width=200)


def test_what_a_prompt_found_in_the_cache():
    log = (
        "0.00.399.155 I slot print_timing: id  0 | task 0 | prompt eval time =       7.66 ms /    39 tokens "
        "(    0.20 ms per token,  5090.72 tokens per second)\n"
        "0.00.399.411 I slot      release: id  0 | task 0 | stop processing: n_tokens = 86, truncated = 0\n"
    )
    (one,) = parse_output(log)
    assert one.extra["n_context"] == 86


def test_a_cached_prompt_counts(tmp_path):
    """Task 1 is said to hold 500 tokens more in the end than it computed."""
    made = synthesize(tmp_path, "demo")
    trace = made.trace
    log = "\n".join(text for _, text in kept_texts(trace))
    deeper = log.replace("task 1 | stop processing: n_tokens = 128", "task 1 | stop processing: n_tokens = 628")
    plain, cached = (positions(trace, (text,)).rows for text in (log, deeper))
    more = Counter((cached["total"] - plain["total"]).to_list())
    own = [step for step in made.truth["steps"] if step["phase"] == "decode" and 1 in step["requests"]]
    assert more == {500: len(own), 0: made.truth["phases"]["decode"]["count"] - len(own)}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("deep"), "launch-bound", "--steps", "1000")


class TestGrowth:
    def test_bins_hold_every_step(self, case):
        found = depth(case.trace, window=window_all(case.trace))
        assert found.bins["steps"].sum() == found.known - found.left_out
        assert found.known == case.truth["phases"]["decode"]["count"]
        assert found.left_out < 0.05 * found.known
        assert ((found.bins["hi"] - found.bins["lo"]) == 128).all()
        assert found.bins["attention_share"].is_sorted()

    def test_what_attention_takes(self, case):
        """The generator's attention reads the cache and walks it cell by cell, of which it takes 256 at a time."""
        preset = PRESETS["launch-bound"]
        gpu, model = preset.gpus[0], preset.model
        cell = gpu.attention_ns_per_kv + 4e9 * model.n_head_kv * model.head_dim / (gpu.bandwidth * gpu.efficiency)
        found = depth(case.trace).growth
        attention = found.row(by_predicate=(pl.col("part") == "attention"), named=True)
        assert attention["ns_per_1k"] == pytest.approx(1_000 * model.n_layer * cell, rel=0.1)
        assert attention["error_ns"] < 0.1 * attention["ns_per_1k"]

    def test_parts_sum_to_the_whole(self, case):
        rows = depth(case.trace).growth
        whole = rows.filter(pl.col("kind") == "step")["ns_per_1k"].item()
        ledger = rows.filter(pl.col("kind") == "ledger")
        assert ledger["ns_per_1k"].sum() == pytest.approx(whole, rel=1e-6)
        assert set(ledger["part"]) <= set(LEDGER_PARTS)

    def test_in_text_json_and_html(self, case):
        report = analyze(case.trace, only=["depth"])
        body = json.loads(json.dumps(document(report)))
        jsonschema.Draft202012Validator(json_schema()).validate(body)
        assert body["depth"]["basis"] == "program"
        shown = render_text(report, width=200)
        assert "Decode steps against depth" in shown
        assert "Per 1,000 more tokens in context a step of 1 takes +" in shown
        drawn = figure(report.sections["depth"])
        assert [one.name for one in drawn.data] == ["step, batch of 1", "attention, batch of 1"]
        assert list(drawn.data[0].y) == report.sections["depth"].bins["ms_p50"].to_list()
        assert 'id="depth"' in render_html(report)


def test_hidden_kernels(tmp_path):
    found = depth(synthesize(tmp_path, "bench-graph").trace)
    assert found.bins["attention_ns"].null_count() == found.bins.height
    assert "attention" not in {one.name.split(",")[0] for one in figure(found).data}


def test_too_short_to_tell(tmp_path):
    trace = synthesize(tmp_path, "bench-node", "--steps", "8").trace
    assert depth(trace).growth.is_empty()
    assert "no growth is told" in render_text(analyze(trace, only=["depth"]), width=200)


def test_no_decode_steps(tmp_path):
    trace = synthesize(tmp_path, "slots-32", "--steps", "2").trace
    with pytest.raises(MissingTableError, match="decode steps"):
        depth(trace)
    assert analyze(trace, only=["depth"]).sections["depth"] is None
