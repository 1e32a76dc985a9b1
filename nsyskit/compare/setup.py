"""What a run was: versions, GPUs, flags, model. Only what is known to be harmless leaves the trace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

from nsyskit.analysis.gpus import gpu_uses
from nsyskit.analysis.steps import find_steps
from nsyskit.ggml.outputs import ProgramNumbers, parse_output
from nsyskit.trace import Trace

_FLAGS: Final[dict[str, str]] = {
    name: names.split()[0]
    for names in (
        "n_gpu_layers -ngl --gpu-layers --n-gpu-layers", "n_ctx -c --ctx-size", "n_batch -b --batch-size",
        "n_ubatch -ub --ubatch-size", "n_threads -t --threads", "n_threads_batch -tb --threads-batch",
        "flash_attn -fa --flash-attn", "type_k -ctk --cache-type-k", "type_v -ctv --cache-type-v",
        "split_mode -sm --split-mode", "tensor_split -ts --tensor-split", "main_gpu -mg --main-gpu",
        "n_parallel -np --parallel", "n_cpu_moe -ncmoe --n-cpu-moe", "n_prompt -p", "n_gen -n --n-predict",
        "pg -pg", "n_depth -d --n-depth", "repetitions -r --repetitions", "poll --poll", "n_draft --draft --draft-max",
    )
    for name in names.split()[1:]
}  # fmt: skip
"""Flag with a value -> its name as llama-bench spells it. ``-p`` and ``-n`` with a text are not numbers: see below."""
_SWITCHES: Final[dict[str, str]] = {
    "-cmoe": "cpu_moe", "--cpu-moe": "cpu_moe", "--no-mmap": "no_mmap", "--mlock": "mlock",
    "-nkvo": "no_kv_offload", "--no-kv-offload": "no_kv_offload", "-cb": "cont_batching",
    "--cont-batching": "cont_batching", "-nocb": "no_cont_batching", "--no-cont-batching": "no_cont_batching",
    "--no-op-offload": "no_op_offload", "--backend-sampling": "backend_sampling", "--embeddings": "embeddings",
    "--swa-full": "swa_full",
}  # fmt: skip
_MODEL_FLAGS: Final = frozenset({"-m", "--model"})
_HARMLESS: Final = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[,:;/+x*-]\d+(?:\.\d+)?)*|[a-z][a-z0-9_]{0,11}")
_MODEL_NAME: Final = re.compile(r"[\w.+-]{1,120}")
_WORDS: Final = frozenset({"on", "off", "auto", "none", "layer", "row", "tensor", "all", "cpu"})
_TYPES: Final = re.compile(r"f32|f16|bf16|i?q\d\w{0,6}")
_ENVIRONMENT: Final = re.compile(
    r"(?:GGML|LLAMA)_[A-Z0-9_]+|CUDA_(?:SCALE_LAUNCH_QUEUES|VISIBLE_DEVICES|LAUNCH_BLOCKING)"
)
_PRINTED: Final = (
    "build_commit", "build_number", "model_type", "model_size", "n_batch", "n_ubatch", "n_threads", "type_k", "type_v",
    "n_gpu_layers", "n_cpu_moe", "split_mode", "flash_attn", "no_kv_offload", "backends",
)  # fmt: skip
_BUILD: Final = re.compile(
    r"\bbuild(?:_info)?:?\s+(?:b(?P<new>\d+)-(?P<c1>[0-9a-f]{7,12})|(?P<old>\d+) \((?P<c2>[0-9a-f]{7,12})\))"
)
_MODEL_TYPE: Final = re.compile(r"print_info: (?:model type|file type)\s+= ([\w .?-]{1,40})")
_QUANT: Final = re.compile(r"\b(?:I?Q\d\w*|F16|F32|BF16|MXFP4|NVFP4|TQ\d_\d)\b.*", re.IGNORECASE)


def trace_setup(trace: Trace, run: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Facts by name, as text. ``run`` is the content of a run folder's ``run.json``, where there is one.

    Names: ``nsys``, ``graph_trace``, ``sources``, ``gpu``, ``program``, ``model``, ``model_type``, ``n_vocab``,
    ``build``, ``driver``, ``n_…`` and other flags under llama-bench's names, ``env GGML_…``.
    """
    meta = trace.meta
    facts: dict[str, object] = {
        "nsys": meta.nsys_version,
        "graph_trace": meta.capture.cuda_graph_trace,
        "sources": "+".join(sorted(name for name, there in meta.sources.items() if there)),
        "gpu": " + ".join(sorted(use.name for use in gpu_uses(trace) if use.name)) or None,
        "n_vocab": find_steps(trace).n_vocab,
    }
    facts |= command_facts(meta.capture.command) | _from_output(trace)
    if run:
        facts |= _from_run(run)
    return {name: str(value) for name, value in sorted(facts.items()) if value is not None and value != ""}


def command_facts(command: Sequence[str]) -> dict[str, str]:
    """What a llama.cpp command line sets, of the flags known to be harmless; prompts, paths and keys stay out."""
    if not command:
        return {}
    program = PurePath(command[0].replace("\\", "/")).name
    facts = {"program": program}
    if "llama" not in program:
        return facts
    for word, value in _flags(command[1:]):
        if word in _SWITCHES:
            facts[_SWITCHES[word]] = "1"
        elif word in _MODEL_FLAGS and value is not None:
            name = PurePath(value.replace("\\", "/")).name
            facts["model"] = name if _MODEL_NAME.fullmatch(name) else "(hidden)"
        elif word in _FLAGS and value is not None and _is_harmless(value):
            facts[_FLAGS[word]] = value
    return facts


def _flags(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for at, word in enumerate(words):
        name, equals, inline = word.partition("=")
        following = words[at + 1] if at + 1 < len(words) else None
        yield (name, inline) if equals else (word, following)


def _is_harmless(value: str) -> bool:
    if not _HARMLESS.fullmatch(value):
        return False
    return value[0] in "+-0123456789" or value in _WORDS or _TYPES.fullmatch(value) is not None


def _from_output(trace: Trace) -> dict[str, object]:
    texts = program_texts(trace)
    facts: dict[str, object] = {}
    for text in texts:
        if found := _BUILD.search(text):
            facts["build"] = f"{found['new'] or found['old']} ({found['c1'] or found['c2']})"
        if found := _MODEL_TYPE.search(text):
            facts["model_type"] = found[1].strip()
    return facts | printed_facts([numbers for text in texts for numbers in parse_output(text)])


def program_texts(trace: Trace) -> list[str]:
    """What the traced programs printed, as far as nsys kept it."""
    ids = trace.tables["streams_text"].select("content_id")
    texts = trace.strings.join(ids, left_on="string_id", right_on="content_id", how="semi").collect()
    return sorted(value for value in texts["value"] if value)


def printed_facts(numbers: Sequence[ProgramNumbers]) -> dict[str, object]:
    """What llama-bench says of its setup."""
    for one in numbers:
        if one.tool == "llama-bench" and "build_commit" in one.extra:
            facts: dict[str, object] = {name: one.extra[name] for name in _PRINTED if name in one.extra}
            number, commit = facts.pop("build_number", None), facts.pop("build_commit")
            return facts | {"build": f"{number} ({commit})"}
    return {}


def _from_run(run: Mapping[str, Any]) -> dict[str, object]:
    llama, model, driver = (run.get(name) or {} for name in ("llama", "model", "driver"))
    facts: dict[str, object] = {
        "driver": driver.get("driver_version"),
        "profile": run.get("profile"),
    }
    if llama.get("build_commit"):
        facts["build"] = f"{llama.get('build_number')} ({llama['build_commit']})"
    if model.get("size_bytes") and model.get("model"):
        facts |= {"model": PurePath(str(model["model"])).name, "model_size": model["size_bytes"]}
    environment = run.get("environment") or {}
    facts |= {
        f"env {name}": value
        for name, value in environment.items()
        if _ENVIRONMENT.fullmatch(name) and _is_harmless(str(value))
    }
    return {name: value for name, value in facts.items() if value is not None}


def base_model(model_type: str) -> str:
    """A model's type without its quantisation: ``llama 1B Q4_K - Medium`` is a ``llama 1B``."""
    return _QUANT.sub("", model_type).strip()
