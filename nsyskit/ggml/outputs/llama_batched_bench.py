"""llama-batched-bench: jsonl and md. A row holds three measurements: prompt, generation, and both together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nsyskit.ggml.outputs.shared import (
    ProgramNumbers,
    Value,
    integer,
    json_records,
    real,
    scalar,
    table_cells,
    workload,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOOL = "llama-batched-bench"

_MD_NAMES = {"PP": "pp", "TG": "tg", "B": "pl", "N_KV": "n_kv", "T_PP s": "t_pp", "S_PP t/s": "speed_pp",
             "T_TG s": "t_tg", "S_TG t/s": "speed_tg", "T s": "t", "S t/s": "speed"}  # fmt: skip
_SHARED = re.compile(r"is_pp_shared = (\d)")


def parse(text: str) -> Iterator[ProgramNumbers]:
    """The measurements in a text, three a row, in the order of the rows."""
    if '"speed_tg"' in text:
        for record in json_records(text, first="n_kv_max"):
            yield from _from_record(record)
    for record in _md_records(text):
        yield from _from_record(record)


def _md_records(text: str) -> Iterator[dict[str, Value]]:
    header: list[str] = []
    shared = 0
    for line in text.splitlines():
        if found := _SHARED.search(line):
            shared = int(found[1])
        cells = table_cells(line)
        if cells is None:
            continue
        if "S_TG t/s" in cells:
            header = cells
        elif header and len(cells) == len(header):
            row = zip(header, cells, strict=True)
            yield {"is_pp_shared": shared} | {_MD_NAMES.get(name, name): scalar(cell) for name, cell in row}


def _from_record(record: Mapping[str, Value]) -> Iterator[ProgramNumbers]:
    n_prompt, n_gen, n_parallel = (integer(record.get(name)) for name in ("pp", "tg", "pl"))
    if n_prompt is None or n_gen is None or n_parallel is None:
        return
    # A shared prompt is processed once, and the rates divide by that, though N_KV counts it once a sequence.
    prompts = n_prompt if record.get("is_pp_shared") else n_prompt * n_parallel
    results = {f"{kind}{what}" for kind in ("t", "speed") for what in ("", "_pp", "_tg")}
    extra = {name: value for name, value in record.items() if name not in results}
    for suffix, prompt, gen, depth, divisor in (
        ("_pp", n_prompt, 0, 0, prompts),
        ("_tg", 0, n_gen, n_prompt, n_gen * n_parallel),  # generation goes on from the prompt
        ("", n_prompt, n_gen, 0, prompts + n_gen * n_parallel),
    ):
        seconds, rate = real(record.get(f"t{suffix}")), real(record.get(f"speed{suffix}"))
        if rate is not None and divisor:
            yield ProgramNumbers(
                tool=TOOL,
                label=workload(prompt, gen, n_depth=depth, n_parallel=n_parallel),
                n_prompt=prompt,
                n_gen=gen,
                n_depth=depth,
                tokens_per_s=rate,
                ms=None if seconds is None else round(seconds * 1e3, 6),
                n_divisor=divisor,
                extra=extra,
            )
