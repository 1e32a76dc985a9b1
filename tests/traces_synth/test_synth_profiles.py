"""The three published profiles: the shape comes out within stated tolerances."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest

from traces.synth.build import lay_out
from traces.synth.presets import PRESETS
from traces.synth.truth import Facts, api_facts, copy_facts, device_ledger, kernel_facts, windows

# Of the whole-file run, laid out but not written.


@cache
def facts_of(name: str) -> Facts:
    return Facts(lay_out(PRESETS[name], seed=1))


def shares(rows, key="name"):
    total = sum(row["total_ns"] for row in rows)
    found: dict[str, float] = {}
    for row in rows:
        found[row[key]] = found.get(row[key], 0.0) + row["total_ns"] / total
    return found


def near(value, published, tolerance):
    assert abs(value / published - 1) <= tolerance, f"{value:.4g} against {published:.4g} published"


def test_gemma3_4b_f16_on_turing():
    facts = facts_of("gemma3-4b-f16-turing")
    calls = {row["name"]: row for row in api_facts(facts)}
    api = shares(calls.values())
    near(api["cudaStreamSynchronize_v3020"], 0.812, 0.03)
    near(api["cudaMemcpyAsync_v3020"], 0.100, 0.10)
    near(api["cudaLaunchKernel_v7000"], 0.077, 0.10)
    near(calls["cudaStreamSynchronize_v3020"]["total_ns"], 18.784e9, 0.05)
    near(calls["cudaLaunchKernel_v7000"]["count"], 1_055_137, 0.01)
    near(calls["cudaMemcpyAsync_v3020"]["count"], 6_810, 0.01)
    near(calls["cudaStreamSynchronize_v3020"]["count"], 13_185, 0.10)
    kernels = shares(kernel_facts(facts)[0], "short")
    near(kernels["mul_mat_vec"], 0.862, 0.02)
    near(kernels["flash_attn_ext_f16"], 0.050, 0.15)
    near(kernels["rms_norm_f32"], 0.021, 0.15)
    near(kernels["flash_attn_stream_k_fixup"], 0.012, 0.15)
    logits = next(row for row in copy_facts(facts) if row["purpose"] == "logits")
    near(logits["total_ns"] / logits["count"], 319e3, 0.05)


def test_tinyllama_q4_k_m_on_a100():
    facts = facts_of("tinyllama-q4km-a100")
    near(shares(api_facts(facts))["cudaStreamSynchronize_v3020"], 0.786, 0.06)
    kernels = shares(kernel_facts(facts)[0], "short")
    assert sum(share for name, share in kernels.items() if name.startswith("mul_mat")) > 0.5
    assert 0.07 < sum(share for name, share in kernels.items() if name.startswith("flash_attn")) < 0.15
    osrt = facts.layout.osrt
    names = facts.layout.world.strings
    waits = (osrt["name"] == names.id("sem_wait")) | (osrt["name"] == names.id("poll"))
    took = osrt["end"] - osrt["start"]
    near(took[waits].sum() / took.sum(), 0.80, 0.05)


def test_moe_with_experts_on_the_cpu():
    facts = facts_of("moe-cpu-experts-3060")
    calls = {row["name"]: row for row in api_facts(facts)}
    tokens = len(facts.layout.world.steps)
    near(shares(calls.values())["cudaStreamSynchronize_v3020"], 0.855, 0.05)
    near(calls["cudaStreamSynchronize_v3020"]["count"] / tokens, 380, 0.05)
    near(calls["cudaGraphLaunch_v10000"]["count"] / tokens, 49.8, 0.06)
    ledger = device_ledger(facts, 0, windows(facts)["steady"])
    steady = tokens - 2
    near(ledger["busy_ns"] / steady / 1e6, 27.6, 0.05)
    near(ledger["window_ns"] / steady / 1e6, 84.9, 0.05)
    assert ledger["idle"]["host"] > 0.85 * ledger["idle_ns"]


@pytest.mark.parametrize("name", ["gemma3-4b-f16-turing", "moe-cpu-experts-3060"])
def test_durations_are_correlated_from_step_to_step(name):
    """A slow drift and moods: neighbouring steps resemble each other more than distant ones."""
    periods = [step.end - step.begin for step in facts_of(name).layout.world.steps if step.phase == "decode"][3:-1]
    near_by = sum(abs(a - b) for a, b in pairwise(periods)) / (len(periods) - 1)
    half = len(periods) // 2
    apart = sum(abs(a - b) for a, b in zip(periods, periods[half:], strict=False)) / (len(periods) - half)
    assert near_by < apart
