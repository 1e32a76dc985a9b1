"""One step in detail: its parts are those of the table of steps and of the truth."""

from __future__ import annotations

import json

import jsonschema
import pytest
from click.testing import CliRunner
from synthetic import synthesize

from nsyskit import analyze
from nsyskit.analysis.step_detail import step_detail
from nsyskit.cli import cli
from nsyskit.errors import UsageError
from nsyskit.report.json import document, json_schema
from nsyskit.report.text import render_text


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("bench"), "bench-node", "--steps", "5")


def test_every_step_adds_up(bench):
    for true in bench.truth["steps"]:
        found = step_detail(bench.trace, true["index"])
        assert sum(found.ledger.values()) == true["end_ns"] - true["begin_ns"]
        assert found.kernels["count"].sum() == true["kernels"]
        assert found.categories["total_ns"].sum() == found.kernels["total_ns"].sum()
        assert found.copies["count"].sum() == true["copies"]
        moved = found.copies.group_by("purpose").agg(bytes=found.copies["bytes"].sum()).height
        assert moved == len([size for size in true["bytes"].values() if size])
        assert (
            found.calls.filter(found.calls["name"].str.starts_with("cudaGraphLaunch"))["count"].sum()
            == (true["graph_launches"])
        )
        own = found.calls["total_ns"].sum()
        assert 0 < own <= found.window.dur_ns


def test_against_its_like(bench):
    decode = [true["index"] for true in bench.truth["steps"] if true["phase"] == "decode"]
    times = sorted(found for index in decode if (found := step_detail(bench.trace, index).times))
    assert times[0] < 1 < times[-1]


def test_a_step_that_is_none(bench):
    with pytest.raises(UsageError, match="steps are 0 to"):
        step_detail(bench.trace, 10_000)


def test_in_text_and_json(bench):
    report = analyze(bench.trace, only=["steps"], step=4)
    jsonschema.Draft202012Validator(json_schema()).validate(json.loads(json.dumps(document(report))))
    shown = render_text(report, width=130)
    assert "\nStep 4: decode" in shown
    assert "Its thread's calls" in shown
    assert "to the next" in shown


def test_on_the_command_line(bench):
    result = CliRunner().invoke(cli, ["analyze", str(bench.path), "--step", "4"])
    assert result.exit_code == 0
    assert "Step 4: decode" in result.stdout


def test_a_trace_without_steps(real):
    result = CliRunner().invoke(cli, ["analyze", str(real("cpu-llama-bench")), "--step", "1"])
    assert result.exit_code == 4
    assert "llama.cpp steps" in result.stderr
