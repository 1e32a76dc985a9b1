"""llama-cli, llama-completion and every other tool that ends with perf lines and a memory breakdown.

Prefixes of the perf lines: ``llama_print_timings:`` (to mid-2024), ``llama_perf_context_print:``,
``common_perf_print:`` (2026). The llama-cli of 2026 is a chat and prints ``[ Prompt: 62.6 t/s | Generation: 4.7 t/s ]``
instead. The memory table is logged at a higher verbosity there, and as a JSON object with ``--log-jsonl``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nsyskit.ggml.outputs.shared import (
    NUMBER,
    PerfLine,
    ProgramNumbers,
    Value,
    detect_tool,
    json_pairs,
    number,
    perf_line,
    workload,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = re.compile(r"llama_print_timings: |llama_perf_(?:context|sampler)_print: |common_perf_print: ")


def parse(text: str) -> Iterator[ProgramNumbers]:
    """Load time, prompt, generation and total of each run, chat turns, and a measurement a device of its memory."""
    tool = detect_tool(text)
    for run in _runs(text):
        yield from _measurements(tool, run)
    yield from _chat_turns(text)
    yield from _memory(tool, text)


def _runs(text: str) -> Iterator[dict[str, PerfLine]]:
    run: dict[str, PerfLine] = {}
    for line in text.splitlines():
        perf = perf_line(line) if _PREFIX.search(line) else None
        if perf is None:
            continue
        if perf.what in run:  # two contexts (draft and target) print one after the other
            yield run
            run = {}
        run[perf.what] = perf
    if run:
        yield run


def _measurements(tool: str, run: dict[str, PerfLine]) -> Iterator[ProgramNumbers]:
    sampling = run.get("sampling") or run.get("sample")
    extra: dict[str, Value] = {"sampling_ms": sampling.ms} if sampling else {}
    for what, perf in run.items():
        if what in {"load", "total"}:
            yield ProgramNumbers(tool=tool, label=what, n_prompt=0, n_gen=0, ms=perf.ms)
        elif what in {"prompt eval", "eval"} and perf.n is not None:
            n_prompt, n_gen = (perf.n, 0) if what == "prompt eval" else (0, perf.n)
            yield ProgramNumbers(
                tool=tool,
                label=workload(n_prompt, n_gen),
                n_prompt=n_prompt,
                n_gen=n_gen,
                tokens_per_s=perf.tokens_per_s,
                ms=perf.ms,
                n_divisor=perf.n_divisor,
                extra=extra,
            )


_TURN = re.compile(rf"\[ Prompt: ({NUMBER}) t/s \| Generation: ({NUMBER}) t/s \]")


def _chat_turns(text: str) -> Iterator[ProgramNumbers]:
    for match in _TURN.finditer(text):
        yield ProgramNumbers(tool="llama-cli", label="prompt", n_gen=0, tokens_per_s=number(match[1]))
        yield ProgramNumbers(tool="llama-cli", label="generation", n_prompt=0, tokens_per_s=number(match[2]))


# |   - CUDA0 (RTX 4090)   | 24080 = 20393 + (2675 =  2016 +     112 +     546) +         1012 |
_DEVICE = re.compile(
    r"memory_breakdown_print: \|\s+- (?P<device>[^|]+)\|"
    r"\s*(?P<total>\d+) =\s*(?P<free>\d+) \+\s*\(\s*(?P<self>\d+) =\s*(?P<model>\d+) \+\s*(?P<context>\d+)"
    r" \+\s*(?P<compute>\d+)\s*\) \+\s*(?P<unaccounted>-?\d+)\s*\|"
)
# |   - Host               |                  1022 =  1000 +       0 +      22                |
_HOST = re.compile(
    r"memory_breakdown_print: \|\s+- (?P<device>[^|]+)\|"
    r"\s*(?P<self>\d+) =\s*(?P<model>\d+) \+\s*(?P<context>\d+) \+\s*(?P<compute>\d+)\s*\|"
)
_JSON_ROWS = re.compile(r'"fit_memory_breakdown"[^\[\]\n]{0,200}"rows":\[([^\[\]\n]*)\]')
_MIB = 1 << 20
_WRAP_MIB = 1 << 44  # 2**64 bytes: a negative "unaccounted" is printed as an unsigned number
_COLUMNS = ("total", "free", "self", "model", "context", "compute", "unaccounted")


def _memory(tool: str, text: str) -> Iterator[ProgramNumbers]:
    tables: dict[str, dict[str, Value]] = {}
    for line in text.splitlines():
        if found := _DEVICE.search(line) or _HOST.search(line):
            cells = found.groupdict()
            device = cells.pop("device").split(" (")[0].strip()
            tables[device] = {name: int(cell[:20]) for name, cell in cells.items()}
    for rows in _JSON_ROWS.finditer(text):
        for row in re.findall(r"\{[^{}]*\}", rows[1]):
            pairs = dict(json_pairs(row))
            tables[str(pairs.pop("name", "?"))] = pairs
    # A table is printed after fitting the model and again at the end; the last one counts.
    for device, columns in tables.items():
        extra = {f"{name}_bytes": _mib(columns[name]) for name in _COLUMNS if name in columns}
        yield ProgramNumbers(tool=tool, label=f"memory {device}", n_prompt=0, n_gen=0, extra=extra)


def _mib(value: Value) -> int | None:
    if not isinstance(value, int):
        return None
    return (value - _WRAP_MIB if value > _WRAP_MIB // 2 else value) * _MIB
