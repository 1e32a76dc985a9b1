"""How far a run is from what the hardware allows: bytes a token must read against the memory, FLOPs against the cores.

Where nsys collected the GPU's counters, what the memory really did stands beside what it had to.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Any, Final

import polars as pl

from nsyskit.analysis.dram import DramUse, dram_use
from nsyskit.analysis.positions import positions
from nsyskit.analysis.step_costs import busiest, kernel_steps, step_rows
from nsyskit.analysis.steps import find_steps
from nsyskit.analysis.windows import steady_window, window_all
from nsyskit.errors import MissingTableError
from nsyskit.ggml.gguf_file import (
    CACHE_TYPES,
    ModelFacts,
    Tensor,
    active_bytes,
    active_elements,
    kv_bytes_per_token,
)  # fmt: skip
from nsyskit.ggml.quants import PLAIN
from nsyskit.trace import Gpu, Trace, Window


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """What a token makes the GPU read and compute.

    Attributes:
        bytes_per_token: weights that decoding one token reads from the GPU's memory.
        by_quant: of those, the matrices by their format; empty when only the sum is known.
        kv_bytes_per_token: that the cache holds of a token in context, None when unknown.
        body_weights: that every token of a prompt is multiplied with, None when unknown.
        output_weights: that only tokens with an output are multiplied with.
        left_out: what stays on the CPU and is not counted, in words; None when nothing does.
        layers: of the model, None when unknown.
        kv_types: of the cache, such as ``f16``, K before V where they differ.
        sliding_window: tokens that some layers look back, None when all look at everything.
        model: facts of the file, None when only the size is known.
        tensors: of it, those on the GPU.
        source: where the size comes from, in words, when neither from the file nor from whoever asks.
    """

    bytes_per_token: int
    by_quant: Mapping[str, int]
    kv_bytes_per_token: int | None = None
    body_weights: int | None = None
    output_weights: int = 0
    left_out: str | None = None
    layers: int | None = None
    kv_types: str = "f16"
    sliding_window: int | None = None
    model: ModelFacts | None = None
    tensors: tuple[Tensor, ...] = ()
    source: str | None = None

    def kv_bytes(self, depth: float) -> int | None:
        """Bytes of the cache that a step of one sequence reads at least, with so many tokens in context.

        The file does not say which layers have a sliding window: a lower bound takes it for all of them.
        """
        if self.kv_bytes_per_token is None:
            return None
        return int(self.kv_bytes_per_token * min(depth, self.sliding_window or depth))


@dataclass(frozen=True, slots=True)
class PrefillLimit:
    """Operations of prompt processing, 10^12 a second; ``peak_tflops`` None when the GPU is not in the table."""

    tflops: float
    peak_tflops: float | None
    source: str | None

    @property
    def share_of_peak(self) -> float | None:
        return self.tflops / self.peak_tflops if self.peak_tflops else None


@dataclass(frozen=True, slots=True)
class LimitsResult:
    """The floor of a decode step of one sequence and what was measured.

    Attributes:
        window: steps that begin in it are counted.
        load: what the model demands.
        memory_bandwidth: of the GPU busiest inside steps, bytes a second, None when not recorded.
        depth: median of the tokens in context of the steps measured, None where neither the program's output nor a
            single sequence tells it.
        kv_bytes: that such a step reads of the cache at least, None without ``depth`` or when the model is not known.
        floor_ms: time to read the weights and ``kv_bytes`` once; without those, of the weights alone. A lower bound.
        measured_ms: median period of decode steps of one token, None without any.
        dram: the memory's counters within the steps measured, None where they were not collected.
        by_quant: ``quant bytes_per_token ns_per_token gb_per_s share_of_peak`` of the matrix kernels in those steps.
        prefill: None without prompts or when the weights are not known one by one.
    """

    window: Window
    load: ModelLoad
    memory_bandwidth: int | None
    depth: float | None
    kv_bytes: int | None
    floor_ms: float | None
    measured_ms: float | None
    by_quant: pl.DataFrame
    prefill: PrefillLimit | None
    dram: DramUse | None = None

    @property
    def bandwidth_share(self) -> float | None:
        """Floor / measured: 1 would be memory read at full speed all the time."""
        return self.floor_ms / self.measured_ms if self.floor_ms and self.measured_ms else None

    @property
    def max_speedup(self) -> float | None:
        """What a step can gain at most while it reads these weights."""
        return 1 / self.bandwidth_share if self.bandwidth_share else None


def limits(
    trace: Trace, *, window: Window | None = None, load: ModelLoad | None = None, texts: Sequence[str] = ()
) -> LimitsResult:
    """Set measured steps against what the hardware allows.

    Args:
        trace: with steps.
        window: steps that begin in it are counted.
        load: what the model demands.
        texts: output of the program to read instead of what the trace kept; it tells how deep the steps are.

    Raises:
        MissingTableError: no step was found, or nothing is known of the model.
    """
    if load is None:
        raise MissingTableError("size of the model", hint="give --model FILE.gguf or --model-bytes N")
    found = find_steps(trace)
    if found.why_none is not None:
        raise MissingTableError(f"llama.cpp steps ({found.why_none})", hint="capture llama.cpp with --trace=cuda")
    window = window or steady_window(trace) or window_all(trace)
    rows = step_rows(trace).filter(pl.col("begin_ns").is_between(window.start_ns, window.end_ns, "left"))
    single = rows.filter((pl.col("phase") == "decode") & (pl.col("n_tokens") == 1) & pl.col("period_ns").is_not_null())
    median = single["period_ns"].median()
    gpu = _gpu(trace)
    bandwidth = gpu.memory_bandwidth if gpu else None
    depth = _depth(trace, single, tuple(texts))
    kv_bytes = None if depth is None else load.kv_bytes(depth)
    return LimitsResult(
        window=window,
        load=load,
        memory_bandwidth=bandwidth,
        depth=depth,
        kv_bytes=kv_bytes,
        floor_ms=(load.bytes_per_token + (kv_bytes or 0)) / bandwidth * 1e3 if bandwidth else None,
        measured_ms=None if median is None else float(median) / 1e6,  # type: ignore[arg-type]
        by_quant=_by_quant(trace, single, load, bandwidth),
        prefill=_prefill(rows, load, gpu),
        dram=dram_use(trace, single) if len(trace.meta.gpus) == 1 else None,
    )


def _depth(trace: Trace, single: pl.DataFrame, texts: tuple[str, ...]) -> float | None:
    placed = positions(trace, texts)
    known = single.join(placed.rows, on="index", how="inner")
    if placed.basis == "since_prefill" or known.is_empty():
        return None
    return float(known["depth"].median())  # type: ignore[arg-type]


def _gpu(trace: Trace) -> Gpu | None:
    use = busiest(trace)
    return next((gpu for gpu in trace.meta.gpus if gpu.gpu == use.gpu), None)


def _by_quant(trace: Trace, single: pl.DataFrame, load: ModelLoad, bandwidth: int | None) -> pl.DataFrame:
    """Rates of the matrix kernels in decode steps of one token, where these are visible."""
    schema = {"quant": pl.String, "bytes_per_token": pl.Int64, "ns_per_token": pl.Float64, "gb_per_s": pl.Float64}
    own = kernel_steps(trace).filter(
        pl.col("index").is_in(single["index"].implode()) & pl.col("category").str.starts_with("matmul")
    )
    steps = own["index"].n_unique()
    spent = dict(own.group_by("quant").agg(pl.col("total_ns").sum()).drop_nulls("quant").iter_rows())
    rows = [
        {"quant": quant, "bytes_per_token": size, "ns_per_token": ns / steps, "gb_per_s": size * steps / ns}
        for quant, ns in spent.items()
        if ns and (size := load.by_quant.get(quant))
    ]
    peak = pl.lit(bandwidth / 1e9 if bandwidth else None, pl.Float64)
    return (
        pl.DataFrame(rows, schema=schema)
        .with_columns(share_of_peak=pl.col("gb_per_s") / peak)
        .sort(["ns_per_token", "quant"], descending=[True, False])
    )


def _prefill(rows: pl.DataFrame, load: ModelLoad, gpu: Gpu | None) -> PrefillLimit | None:
    prompts = rows.filter((pl.col("phase") == "prefill") & pl.col("period_ns").is_not_null())
    took = int(prompts["period_ns"].sum())
    if load.body_weights is None or not took:
        return None
    outputs = int(prompts["n_outputs"].fill_null(0).sum())
    weights = int(prompts["n_tokens"].sum()) * load.body_weights + outputs * load.output_weights
    peak = peak_rate(gpu.name, quantised=set(load.by_quant) - PLAIN != set()) if gpu else None
    return PrefillLimit(2 * weights / took / 1e3, *(peak or (None, None)))


def peak_rate(name: str, *, quantised: bool) -> tuple[float, str] | None:
    """Peak 10^12 operations a second of a GPU and where that is published: INT8 for quantised weights, else FP16."""
    for entry in _peaks():
        if re.search(entry["pattern"], name):
            rate = entry["int8" if quantised else "fp16"]
            return (float(rate), str(entry["source"])) if rate else None
    return None


@cache
def _peaks() -> Sequence[Mapping[str, Any]]:
    text = resources.files("nsyskit.analysis").joinpath("gpu-peaks.json").read_text(encoding="utf-8")
    gpus: Sequence[Mapping[str, Any]] = json.loads(text)["gpus"]
    return gpus


# --- what a model demands

_OUTPUT_ROLES: Final = frozenset({"output", "token_embd"})
_FLAGS: Final = {
    "-ngl": "layers", "--gpu-layers": "layers", "--n-gpu-layers": "layers",
    "-ncmoe": "moe_layers", "--n-cpu-moe": "moe_layers",
}  # fmt: skip
_SPECIAL: Final = frozenset({"-ot", "--override-tensor"})


def load_of(facts: ModelFacts, command: Sequence[str] = ()) -> ModelLoad:
    """What a model demands of the GPU, without what the command line leaves on the CPU.

    Args:
        facts: of the GGUF file.
        command: of llama.cpp; its ``-ngl``, ``--cpu-moe`` and ``--n-cpu-moe`` count.
    """
    told = {_FLAGS[flag]: int(value) for flag, value in pairwise(command) if flag in _FLAGS and value.isdecimal()}
    on_gpu = [tensor for tensor in facts.tensors if _on_gpu(facts, tensor, told, command)]
    sizes: Counter[str] = Counter()
    for tensor in on_gpu:
        if len(tensor.shape) > 1:
            sizes[tensor.type] += active_bytes(facts, tensor)
    matrices = [tensor for tensor in on_gpu if len(tensor.shape) > 1]
    types = _cache_types(command)
    return ModelLoad(
        bytes_per_token=sum(active_bytes(facts, tensor) for tensor in on_gpu),
        by_quant={name: size for name, size in sizes.most_common() if size},
        kv_bytes_per_token=_kv_bytes_per_token(facts, told.get("layers"), types),
        body_weights=sum(active_elements(facts, one) for one in matrices if one.role not in _OUTPUT_ROLES),
        output_weights=sum(active_elements(facts, one) for one in matrices if one.role in _OUTPUT_ROLES),
        left_out=_left_out(len(facts.tensors) - len(on_gpu), command),
        layers=facts.layers,
        kv_types="/".join(dict.fromkeys(types)),
        sliding_window=facts.sliding_window,
        model=facts,
        tensors=tuple(on_gpu),
    )


def _cache_types(command: Sequence[str]) -> tuple[str, str]:
    """Types of K and V, as the command line gives them."""
    said = {flag: value.lower() for flag, value in pairwise(command)}
    k = said.get("-ctk", said.get("--cache-type-k", "f16"))
    v = said.get("-ctv", said.get("--cache-type-v", "f16"))
    return (k if k in CACHE_TYPES else "f16"), (v if v in CACHE_TYPES else "f16")


def _kv_bytes_per_token(facts: ModelFacts, on_gpu: int | None, types: tuple[str, str]) -> int:
    """Of the layers whose attention runs on the GPU: with ``-ngl N`` the last N."""
    first = 0 if on_gpu is None else max(0, facts.layers - on_gpu)
    return kv_bytes_per_token(replace(facts, kv_widths=facts.kv_widths[first:]), type_k=types[0], type_v=types[1])


def _on_gpu(facts: ModelFacts, tensor: Tensor, told: Mapping[str, int], command: Sequence[str]) -> bool:
    """Whether a tensor lies on the GPU; ``-ngl N`` takes the last N layers, and the output layer when all fit."""
    layers = told.get("layers", facts.layers + 1)
    if tensor.layer is None:
        return layers > facts.layers
    if tensor.layer < facts.layers - layers:
        return False
    on_cpu = facts.layers if {"-cmoe", "--cpu-moe"} & set(command) else told.get("moe_layers", 0)
    return not (tensor.role.endswith("_exps") and tensor.layer < on_cpu)


def _left_out(count: int, command: Sequence[str]) -> str | None:
    if _SPECIAL & set(command):
        return "tensors that --override-tensor moves are counted as if they were on the GPU"
    return f"{count} tensors stay on the CPU and are not counted" if count else None
