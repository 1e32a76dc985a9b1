"""The start-up ledger: parts that follow each other, against the schedule, and what a log says."""

from __future__ import annotations

from itertools import pairwise

import pytest
from synthetic import synthesize

from nsyskit import analyze, open_trace
from nsyskit.analysis.startup import startup
from nsyskit.errors import MissingTableError
from nsyskit.report.text import render_text


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("loaded"), "gemma3-4b-f16-turing", "--steps", "3")


def test_parts_follow_each_other(loaded):
    found = startup(loaded.trace)
    rows = found.spans.rows(named=True)
    assert [row["name"] for row in rows] == ["program", "driver", "upload", "prepare", "first_token"]
    assert all(one["start_ns"] + one["dur_ns"] == two["start_ns"] for one, two in pairwise(rows))
    assert found.spans["dur_ns"].sum() == found.window.dur_ns
    assert (found.spans["api_ns"] <= found.spans["dur_ns"]).all()


def test_the_weights_and_the_first_token(loaded):
    rows = {row["name"]: row for row in startup(loaded.trace).spans.iter_rows(named=True)}
    weights = [row for row in loaded.truth["copies"] if row["purpose"] == "weights"]
    assert rows["upload"]["copy_bytes"] == sum(row["bytes"] for row in weights)
    assert rows["upload"]["copy_ns"] == sum(row["total_ns"] for row in weights)
    first = loaded.truth["steps"][0]
    assert rows["first_token"]["start_ns"] == first["begin_ns"]
    assert rows["first_token"]["dur_ns"] == first["forward_end_ns"] - first["begin_ns"]


def test_a_trace_that_begins_later(tmp_path):
    trace = synthesize(tmp_path, "bench-node", "--steps", "2").trace
    with pytest.raises(MissingTableError, match="from its start"):
        startup(trace)
    assert analyze(trace, only=["startup"]).sections["startup"] is None


def test_a_log(tmp_path):
    log = (
        "0.00.017.212 I srv    load_model: loading model 'tiny.gguf'\n"
        "0.02.034.594 I srv  llama_server: model loaded\n"
        "llama_perf_context_print:        load time =     810.50 ms\n"
    )
    found = startup(synthesize(tmp_path, "bench-node", "--steps", "2").trace, texts=[log])
    assert found.milestones.rows() == [("loading the model", 17.212), ("model loaded", 2034.594), ("load time", 810.5)]
    assert found.window is None
    assert found.spans.is_empty()


def test_a_real_server_without_a_gpu(real):
    report = analyze(open_trace(real("cpu-llama-server")), only=["startup"])
    rows = report.sections["startup"].milestones.rows()
    assert rows[:4] == [
        ("loading the model", 17.212), ("model loaded", 34.594), ("listening", 34.648), ("first request", 377.006),
    ]  # fmt: skip
    assert "model loaded at 34.6 ms" in render_text(report, width=120)


def test_in_text(loaded):
    shown = render_text(analyze(loaded.trace, only=["startup"]), width=110)
    assert "loading the weights onto the GPU" in shown
