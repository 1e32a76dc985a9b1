"""Running llama-bench for a cell, and reading what it measured; files it wrote earlier are read alike."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from nsyskit.errors import NsyskitError, TraceFormatError
from nsyskit.ggml.gguf_file import kv_bytes_per_token, read_model
from nsyskit.ggml.outputs import ProgramNumbers, parse_output
from nsyskit.ggml.outputs.buffers import parse_buffers
from nsyskit.sweep.grid import Cell
from nsyskit.units import printable

_KEPT: Final = (
    "build_commit", "build_number", "model_type", "model_size", "model_n_params", "backends", "gpu_info", "n_batch",
    "n_ubatch", "n_threads", "type_k", "type_v", "n_gpu_layers", "n_cpu_moe", "split_mode", "flash_attn", "samples_ts",
)  # fmt: skip
_NUMBERS: Final = frozenset({"model_size", "model_n_params"})
_ERROR_CHARACTERS: Final = 300
_PPL_TRIES: Final = 4
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


class BenchError(NsyskitError):
    """llama-bench cannot be started at all."""

    exit_code = 7


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cell came to: measurements, or the reason it has none."""

    results: tuple[dict[str, Any], ...]
    error: str | None = None


def find_bench(build: Path | None, program: str = "llama-bench") -> list[str]:
    """llama-bench of a build folder (``bin/`` inside is looked at too), or the one on the PATH.

    Raises:
        BenchError: the folder has none.
    """
    if build is None:
        return [program]
    for candidate in (build / program, build / "bin" / program, build / "build" / "bin" / program):
        if candidate.is_file():
            return [str(candidate)]
    raise BenchError(f"{build} holds no {program}", hint="name the folder that CMake built into")


def run_cell(cell: Cell, bench: Sequence[str], *, timeout_s: float | None = None) -> Outcome:
    """Run llama-bench for one cell. A failure is an outcome; an interrupt ends the program, then passes on.

    Raises:
        BenchError: the program does not exist or may not run.
    """
    code, out, err = run_program(cell.argv(bench), environment(cell.env), timeout_s=timeout_s)
    results = tuple(result(numbers) for numbers in parse_output(out) if numbers.tool == "llama-bench")
    if code is None:
        return Outcome(results, f"not done after {timeout_s:g} s")
    if code != 0 or not results:
        return Outcome(results if code == 0 else (), why(code, err))
    return Outcome(results)


def with_memory(cell: Cell, outcome: Outcome, bench: Sequence[str], *, timeout_s: float | None = None) -> Outcome:
    """The measurements with what each holds: ``vram_bytes`` and its parts; ``memory_bytes`` counts the host too.

    llama.cpp names its buffers in its log: a further repetition prints it, so that no timing is disturbed.
    """
    once = replace(cell, tests=replace(cell.tests, repetitions=1))
    code, out, err = run_program([*once.argv(bench), "-v"], environment(cell.env), timeout_s=timeout_s)
    contexts = parse_buffers(err) or parse_buffers(out)
    if code != 0 or len(contexts) != len(outcome.results):
        named = f"its log names buffers of {len(contexts)} contexts for {len(outcome.results)} tests"
        told = named if code == 0 else "not done in time" if code is None else why(code, err)
        return Outcome(outcome.results, f"memory: {told}")
    results = (
        one | {
            "vram_bytes": held.vram_bytes, "vram_model_bytes": held.on_gpus("model"),
            "vram_cache_bytes": held.on_gpus("cache"), "vram_compute_bytes": held.on_gpus("compute"),
            "memory_bytes": held.total_bytes,
        }
        for one, held in zip(outcome.results, contexts, strict=True)
    )  # fmt: skip
    return Outcome(tuple(results), outcome.error)


def run_perplexity(cell: Cell, program: Sequence[str], text: Path, *, timeout_s: float | None = None) -> Outcome:
    """llama-perplexity over a text, with the cell's flags that it knows.

    It writes its log on a thread that it does not wait for at its end: seen to lose the last lines, the estimate among
    them. Then it is run again.
    """
    known = ("-t", "-b", "-ub", "-ngl", "-fa", "-ctk", "-ctv", "-sm", "-ts", "-ncmoe")
    words = [word for flag, value in cell.flags.items() if flag in known for word in (flag, value)]
    argv = [*program, "-m", str(cell.model), "-f", str(text), *words]
    for _ in range(_PPL_TRIES):
        code, out, err = run_program(argv, environment(cell.env), timeout_s=timeout_s)
        found = [one.extra for one in parse_output(out + "\n" + err) if one.label == "ppl"]
        if code != 0:
            break
        if found:
            return Outcome(
                ({"label": "ppl", **{name: value for name, value in found[-1].items() if _is_plain(value)}},)
            )
    told = "its output lost the estimate" if code == 0 else "not done in time" if code is None else why(code, err)
    return Outcome((), f"llama-perplexity: {told}")


def result(numbers: ProgramNumbers) -> dict[str, Any]:
    """One measurement as the history keeps it."""
    extra = {name: numbers.extra[name] for name in _KEPT if name in numbers.extra}
    extra = {name: value for name, value in extra.items() if name not in _NUMBERS or _is_number(value)}
    samples, spread = extra.get("samples_ts"), numbers.extra.get("stddev_ts")
    return {
        "label": numbers.label, "phase": numbers.phase, "tokens_per_s": numbers.tokens_per_s,
        "stddev": spread if _is_number(spread) else None,
        "samples": len(samples) if isinstance(samples, tuple) else None,
        "n_prompt": numbers.n_prompt, "n_gen": numbers.n_gen, "n_depth": numbers.n_depth, **extra,
    }  # fmt: skip


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def with_kv(cell: Cell, outcome: Outcome) -> Outcome:
    """The measurements with ``kv_bytes``, the KV cache that each test fills; as they are where the model has none."""
    try:
        facts = read_model(cell.model)
        per_token = kv_bytes_per_token(
            facts, type_k=cell.flags.get("-ctk", "f16"), type_v=cell.flags.get("-ctv", "f16")
        )
    except NsyskitError:
        return outcome
    counted = ("n_prompt", "n_gen", "n_depth")
    results = (
        one | {"kv_bytes": per_token * sum(int(one.get(name) or 0) for name in counted)} for one in outcome.results
    )
    return Outcome(tuple(results), outcome.error)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Measurements of a llama-bench result file: json, jsonl, csv, sql or md.

    Raises:
        TraceFormatError: it cannot be read or holds none.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise TraceFormatError(f"{path} cannot be read: {error.strerror}", hint="check the path") from error
    found = [
        result(n) | {"model": n.extra.get("model_filename")} for n in parse_output(text) if n.tool == "llama-bench"
    ]
    if not found:
        raise TraceFormatError(f"{path.name} holds no results of llama-bench", hint="write them with `-o jsonl`")
    return found


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment with a cell's changes; an empty value unsets."""
    full = dict(os.environ) | dict(changes)
    return {name: value for name, value in full.items() if name not in changes or value}


def run_program(
    argv: Sequence[str], env: Mapping[str, str], *, timeout_s: float | None, grace_s: float = 0.0
) -> tuple[int | None, str, str]:
    """Exit code (None after the timeout), stdout, stderr. The program, in its own group, never outlives this call.

    ``grace_s``: what it gets to end by itself after SIGTERM, for programs that have programs of their own to end.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start_program(argv, env, out=out, err=err, ends_by=signal.SIGTERM if grace_s else signal.SIGKILL)
        try:
            code: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process, grace_s)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return code, texts[0], texts[1]


def start_program(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    out: IO[bytes],
    err: IO[bytes],
    ends_by: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start a program in a group of its own. On Linux it gets ``ends_by`` when nsyskit dies, even of SIGKILL.

    A benchmark left over would share the GPU with whatever is measured next.

    Raises:
        BenchError: it does not exist or may not run.
    """
    try:
        return subprocess.Popen(
            argv, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=dict(env), start_new_session=True,
            preexec_fn=partial(_die_with_parent, ends_by) if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads run here
        )  # fmt: skip
    except OSError as error:
        raise BenchError(
            f"cannot run {argv[0]}: {error.strerror}", hint="put it on the PATH or name --build"
        ) from error


def _die_with_parent(number: signal.Signals) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    if process.poll() is None and grace_s:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def why(code: int, err: str) -> str:
    """The last line that says what went wrong."""
    lines = [printable(line.strip()) for line in err.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line.lower() for word in ("error", "fail", "invalid", "unable"))]
    said = (telling or lines or ["it printed nothing"])[-1][:_ERROR_CHARACTERS]
    ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{ended}: {said}"


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) or value is None
