"""Layers by the order of kernels: as many as the model has, or none and the reason."""

from __future__ import annotations

import json

import jsonschema
import polars as pl
import pytest
from synthetic import synthesize

from nsyskit import analyze
from nsyskit.analysis.hotspots import category_sum
from nsyskit.analysis.layers import layers
from nsyskit.analysis.step_costs import steps
from nsyskit.errors import MissingTableError
from nsyskit.report.json import document, json_schema
from nsyskit.report.text import render_text


@pytest.mark.parametrize(
    "recipe",
    [
        ("bench-node", "--steps", "5"), ("cpu-experts", "--steps", "6"), ("launch-bound", "--steps", "6"),
        ("pdl-hopper", "--steps", "4"), ("gemma3-4b-f16-turing", "--steps", "8"), ("host-bound", "--steps", "8"),
        ("moe-cpu-experts-3060", "--steps", "4"), ("demo",), ("two-processes", "--steps", "12"),
    ],
    ids=lambda recipe: recipe[0],
)  # fmt: skip
def test_as_many_as_the_model_has(tmp_path, recipe):
    case = synthesize(tmp_path, *recipe)
    found = layers(case.trace)
    assert found.why_none is None
    assert found.count == case.truth["facts"]["n_layer"] == found.layers.height
    assert found.kernels_per_layer == found.positions.height
    assert 0.95 < found.covered <= 1
    assert found.positions["kernel_ns"].sum() * found.count == pytest.approx(found.layers["kernel_ns"].sum())
    cost = steps(case.trace).by_phase["decode"]
    if not found.layers["span_ns"].is_null().any() and recipe[0] == "bench-node":
        assert found.layers["kernel_ns"].sum() < sum(cost.categories.values())
        assert found.layers["span_ns"].sum() > found.layers["kernel_ns"].sum()
    known = set(category_sum(case.trace).rows["category"])
    assert set(found.positions["category"]) <= known


def test_each_gpu_has_its_own(tmp_path):
    case = synthesize(tmp_path, "two-gpus-layer-split", "--steps", "6")
    assert layers(case.trace, expected=32).count == 16


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (("m-rope", "--steps", "10"), "hidden in CUDA graphs"),
        (("speculative", "--rounds", "2"), "steps differ"),
    ],
)
def test_why_there_are_none(tmp_path, recipe, why):
    found = layers(synthesize(tmp_path, *recipe).trace)
    assert found.count is None
    assert found.layers.is_empty()
    assert why in found.why_none


def test_a_model_with_another_count(tmp_path):
    found = layers(synthesize(tmp_path, "launch-bound", "--steps", "4").trace, expected=7)
    assert found.why_none == "6 repetitions, but the model has 7 layers"


def test_no_decode_steps(tmp_path):
    trace = synthesize(tmp_path, "slots-32", "--steps", "2").trace
    with pytest.raises(MissingTableError, match="decode steps"):
        layers(trace)


def test_in_text_and_json(tmp_path):
    report = analyze(synthesize(tmp_path, "launch-bound", "--steps", "4").trace, only=["layers"])
    jsonschema.Draft202012Validator(json_schema()).validate(json.loads(json.dumps(document(report))))
    shown = render_text(report, width=110)
    assert "6 layers of 22 kernels" in shown
    assert "The mean layer, kernel by kernel" in shown
    assert isinstance(report.sections["layers"].layers, pl.DataFrame)
