"""The model's size as the program itself printed it, for the limits of a run whose model file is not at hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from nsyskit.analysis.limits import ModelLoad
from nsyskit.ggml.outputs import ProgramNumbers, parse_output

_EXPERTS: Final = re.compile(r"\bn_expert\s*=\s*([1-9]\d*)")
_EXPERT_NAMES: Final = re.compile(r"moe|\bA\d+(\.\d+)?B\b|\d+x\d+(\.\d+)?B", re.IGNORECASE)
_BUFFER: Final = re.compile(r"load_tensors:\s+CUDA\d+ model buffer size =\s*(\d+(?:\.\d+)?) MiB")
_ALL_LAYERS: Final = 99
_MIB: Final = 1 << 20


def printed_load(texts: Sequence[str]) -> ModelLoad | None:
    """What a token reads by the program's own output; None where that does not say, or says too little.

    The weights on the GPUs by the memory table or the loader's lines, else the size in llama-bench's results if it
    offloaded everything. Models with experts have none: of them a token reads a part, which only their file tells.
    """
    if any(_EXPERTS.search(text) for text in texts):
        return None
    numbers = [one for text in texts for one in parse_output(text)]
    found = _on_gpus(numbers) or _loaded(texts)
    if found:
        return ModelLoad(found, {}, source="as the program printed what it put on the GPUs")
    size = _bench_size(numbers)
    return (
        ModelLoad(size, {}, source="the model's whole size as the program printed it, token embeddings included")
        if size
        else None
    )


def _on_gpus(numbers: Sequence[ProgramNumbers]) -> int:
    tables = {one.label: one.extra.get("model_bytes") for one in numbers if one.label.startswith("memory CUDA")}
    return sum(size for size in tables.values() if isinstance(size, int))


def _loaded(texts: Sequence[str]) -> int:
    """By the loader's lines; a program that loads two models tells nothing about either."""
    lines = [match for text in texts for match in _BUFFER.finditer(text)]
    devices = [match[0].split()[1] for match in lines]
    if len(set(devices)) < len(devices):
        return 0
    return round(sum(float(match[1]) for match in lines) * _MIB)


def _bench_size(numbers: Sequence[ProgramNumbers]) -> int | None:
    """The size in llama-bench's rows, if they are of one model without experts, all of it on the GPU."""
    rows = [one.extra for one in numbers if isinstance(one.extra.get("model_size"), int)]
    sizes = {size for row in rows if isinstance(size := row["model_size"], int)}
    whole = all(_offloaded(row.get("n_gpu_layers")) and not row.get("n_cpu_moe") for row in rows)
    experts = any(_EXPERT_NAMES.search(str(row.get("model_type", ""))) for row in rows)
    return sizes.pop() if len(sizes) == 1 and whole and not experts else None


def _offloaded(layers: object) -> bool:
    return isinstance(layers, int) and (layers < 0 or layers >= _ALL_LAYERS)
