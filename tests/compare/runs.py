"""Synthetic runs for the tests of comparing: presets whose true difference is known."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import polars as pl

from nsyskit.analysis.step_costs import COUNTS, LEDGER_PARTS
from nsyskit.compare.sample import PhaseSample, RunSample, sample_run
from nsyskit.ingest import open_trace
from traces.synth.build import lay_out
from traces.synth.presets import PRESETS, Preset
from traces.synth.programs import Test
from traces.synth.writer import write

Test.__test__ = False

SMALL = replace(PRESETS["bench-node"], steps=32)
TINY = replace(PRESETS["launch-bound"], steps=40)
GRAPH = replace(PRESETS["bench-graph"], steps=32)
SERVER = replace(
    PRESETS["demo"], traffic=replace(PRESETS["demo"].traffic, count=2, every_ms=0, n_gen=40, spread=0.0, first=2)
)


def slower_kernels(preset: Preset) -> Preset:
    """Matrix-vector products 3 % slower."""
    gpu = preset.gpus[0]
    return replace(preset, gpus=(replace(gpu, efficiency=gpu.efficiency / 1.03),))


def one_slower_kernel(preset: Preset) -> Preset:
    """Of all kernels, the one over Q6_K weights 3 % slower."""
    return replace(preset, gpus=(replace(preset.gpus[0], slow_kernel="mul_mat_vec_q<(ggml_type)14", slow_by=1.03),))


def uniformly_slower(preset: Preset) -> Preset:
    """Every kernel 3 % slower."""
    return replace(preset, gpus=(replace(preset.gpus[0], slow_kernel="(", slow_by=1.03),))


def busier_host(preset: Preset) -> Preset:
    """20 µs more of the host's own work per step."""
    return replace(preset, host=replace(preset.host, prepare_ns=preset.host.prepare_ns + 20_000))


def graphs_off(preset: Preset) -> Preset:
    return replace(preset, options=replace(preset.options, graph="eager"))


def one_slot(preset: Preset) -> Preset:
    return replace(preset, slots=1)


def slower_gpu(preset: Preset) -> Preset:
    """Everything on the GPU 10 % slower."""
    gpu = preset.gpus[0]
    slow = replace(
        gpu, efficiency=gpu.efficiency / 1.1, small_ns=gpu.small_ns * 1.1,
        attention_ns_per_kv=gpu.attention_ns_per_kv * 1.1,
    )  # fmt: skip
    return replace(preset, gpus=(slow,))


def save(preset: Preset, seed: int, path: Path) -> Path:
    write(lay_out(preset, seed), path, name=path.stem, seed=seed)
    return path


@cache
def run(preset: Preset, seed: int, change: Callable[[Preset], Preset] | None = None) -> RunSample:
    """One run of a preset, changed or not."""
    with tempfile.TemporaryDirectory() as folder:
        path = save(change(preset) if change else preset, seed, Path(folder) / "trace.sqlite")
        return sample_run(open_trace(path))


def made(
    rows: list[dict[str, int]], *, phase: str = "decode", name: str = "made", errors: tuple[str, ...] = (), **setup: str
) -> RunSample:
    """A run written down by hand: what a row does not say is 0, its period is the sum of its ledger."""
    empty = dict.fromkeys(["n_tokens", "ms_per_token", *COUNTS, "bytes_input"], 0)
    empty |= dict.fromkeys([f"ledger.{part}" for part in LEDGER_PARTS], 0)
    full = [empty | {"n_tokens": 1} | row for row in rows]
    for row in full:
        row["ms_per_token"] = sum(value for key, value in row.items() if key.startswith("ledger."))
    return RunSample(
        name=name, setup=setup, errors=errors, warnings=(), window="steady", window_ns=1,
        phases={phase: PhaseSample(phase, pl.DataFrame(full))},
    )  # fmt: skip
