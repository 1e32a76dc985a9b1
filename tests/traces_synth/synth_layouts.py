"""Layouts of the generator, made once per test run; presets that are large by nature are cut short."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from traces.synth.build import lay_out
from traces.synth.layout import Layout
from traces.synth.presets import PRESETS, Preset
from traces.synth.truth import build

SHORT = {
    "gemma3-4b-f16-turing": 3,
    "tinyllama-q4km-a100": 2,
    "moe-cpu-experts-3060": 4,
    "slots-32": 24,
    "launch-bound": 12,
    "server-idle-long-prompt": 30,
}
"""Steps of presets that would take long."""

MIXES: dict[str, Preset] = {
    "two GPUs, API rows lost": replace(PRESETS["two-gpus-layer-split"], drop_api=0.05),
    "two GPUs, graph rows lost": replace(
        PRESETS["two-gpus-layer-split"],
        options=replace(PRESETS["two-gpus-layer-split"].options, graph="graph"),
        drop_graphs=0.4,
    ),
    "eight threads, graph rows lost": replace(
        PRESETS["eight-threads"],
        options=replace(PRESETS["eight-threads"].options, graph="graph"),
        drop_graphs=0.4,
        unsorted=True,
    ),
    "two processes, API rows lost": replace(PRESETS["two-processes-one-gpu"], drop_api=0.1, steps=20),
    "demo, no API rows": replace(PRESETS["demo"], drop_api=1.0),
    "demo, old schema, graphs": replace(
        PRESETS["demo"], schema="2023.4", options=replace(PRESETS["demo"].options, graph="graph")
    ),
    "PDL and a second stream": replace(
        PRESETS["second-stream"], pdl=0.4, options=replace(PRESETS["second-stream"].options, second_stream=True)
    ),
}


def preset(name: str) -> Preset:
    """A preset or a mix of options, cut short."""
    chosen = MIXES[name] if name in MIXES else PRESETS[name]
    return replace(chosen, steps=SHORT[name]) if name in SHORT else chosen


@cache
def layout_of(name: str) -> Layout:
    return lay_out(preset(name), seed=7)


@cache
def truth_of(name: str) -> dict[str, Any]:
    return build(layout_of(name), provenance={})
