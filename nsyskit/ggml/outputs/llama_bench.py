"""llama-bench: json, jsonl, csv, sql and md, from builds of 2023 on."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

from nsyskit.ggml.outputs.shared import (
    NUMBER,
    ProgramNumbers,
    Value,
    base_name,
    integer,
    json_records,
    number,
    real,
    scalar,
    table_cells,
    workload,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOOL = "llama-bench"

_MD_NAMES = {"model": "model_type", "ngl": "n_gpu_layers", "fa": "flash_attn", "threads": "n_threads",
             "backend": "backends", "mmap": "use_mmap", "sm": "split_mode", "ts": "tensor_split",
             "ncmoe": "n_cpu_moe"}  # fmt: skip


def parse(text: str) -> Iterator[ProgramNumbers]:
    """The tests in a text. ``-o`` and ``-oe`` may print the same test in two formats: the fuller one counts."""
    seen: set[tuple[str, str]] = set()
    for records in (_json(text), _csv(text), _sql(text), _md(text)):
        found = list(records)
        fresh = [numbers for numbers in found if _key(numbers) not in seen]
        seen |= {_key(numbers) for numbers in found}
        yield from fresh


def _key(numbers: ProgramNumbers) -> tuple[str, str]:
    return numbers.label, f"{numbers.tokens_per_s or 0:.2f}"  # md prints two decimals


def _json(text: str) -> Iterator[ProgramNumbers]:
    if '"avg_ts"' in text:
        yield from filter(None, map(_from_record, json_records(text, first="build_commit")))


def _csv(text: str) -> Iterator[ProgramNumbers]:
    header: list[str] = []
    for line in text.splitlines():
        if line.startswith("build_commit,") and "avg_ts" in line:
            header = line.strip().split(",")
        elif header and line.startswith('"') and line.rstrip().endswith('"'):
            row = _csv_row(line)
            if len(row) == len(header):
                yield from filter(None, [_from_record(_scalars(header, row))])


def _csv_row(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:  # a field beyond all bounds
        return []


_INSERT = re.compile(r"\s*INSERT INTO \w+ \(([\w, ]+)\) VALUES \((.*)\);")
_SQL_VALUE = re.compile(r"'((?:[^']|'')*)'")


def _sql(text: str) -> Iterator[ProgramNumbers]:
    for line in text.splitlines():
        match = _INSERT.match(line)
        if match is None:
            continue
        names = match[1].replace(" ", "").split(",")
        values = [value.replace("''", "'") for value in _SQL_VALUE.findall(match[2])]
        if "avg_ts" in names and len(names) == len(values):
            yield from filter(None, [_from_record(_scalars(names, values))])


def _scalars(names: list[str], values: list[str]) -> dict[str, Value]:
    # A commit such as 4567890 is text, whatever it looks like.
    return {name: value if name == "build_commit" else scalar(value) for name, value in zip(names, values, strict=True)}


def _from_record(record: Mapping[str, Value]) -> ProgramNumbers | None:
    n_prompt, n_gen = integer(record.get("n_prompt")), integer(record.get("n_gen"))
    if n_prompt is None or n_gen is None or "avg_ts" not in record:
        return None
    n_depth = integer(record.get("n_depth")) or 0
    avg_ns = real(record.get("avg_ns"))
    taken = {"n_prompt", "n_gen", "n_depth", "avg_ts", "avg_ns"}
    extra = {name: value for name, value in record.items() if name not in taken}
    if "model_filename" in extra:
        extra["model_filename"] = base_name(extra["model_filename"])
    return ProgramNumbers(
        tool=TOOL,
        label=workload(n_prompt, n_gen, n_depth=n_depth),
        n_prompt=n_prompt,
        n_gen=n_gen,
        n_depth=n_depth,
        tokens_per_s=real(record["avg_ts"]),
        ms=None if avg_ns is None else avg_ns / 1e6,
        n_divisor=n_prompt + n_gen,
        extra=extra,
    )


# "pp512", "tg128", "pp512+tg128 @ d4096"; "pp 512" before 2024
_TEST = re.compile(r"(?:pp\s?(\d{1,9}))?\+?(?:tg\s?(\d{1,9}))?(?:\s*@\s*d(\d{1,9}))?")
_RATE = re.compile(rf"({NUMBER})(?:\s*\S{{1,3}}\s*({NUMBER}))?")
_BUILD = re.compile(r"^build: (\S+) \((\d{1,12})\)", re.MULTILINE)


def _md(text: str) -> Iterator[ProgramNumbers]:
    build = _BUILD.search(text)
    facts: dict[str, Value] = {"build_commit": build[1], "build_number": int(build[2])} if build else {}
    header: list[str] = []
    for line in text.splitlines():
        cells = table_cells(line)
        if cells is None:
            continue
        if "test" in cells and "t/s" in cells:
            header = cells
        elif header and len(cells) == len(header):
            row = dict(zip(header, cells, strict=True))
            yield from filter(None, [_from_row(row, facts)])


def _from_row(row: dict[str, str], facts: Mapping[str, Value]) -> ProgramNumbers | None:
    test, rate = _TEST.fullmatch(row.pop("test")), _RATE.fullmatch(row.pop("t/s"))
    if test is None or rate is None or not (test[1] or test[2]):
        return None
    n_prompt, n_gen, n_depth = (int(group or 0) for group in test.groups())
    spread: dict[str, Value] = {"stddev_ts": number(rate[2])} if rate[2] else {}
    return ProgramNumbers(
        tool=TOOL,
        label=workload(n_prompt, n_gen, n_depth=n_depth),
        n_prompt=n_prompt,
        n_gen=n_gen,
        n_depth=n_depth,
        tokens_per_s=number(rate[1]),
        n_divisor=n_prompt + n_gen,
        extra={**facts, **{_MD_NAMES.get(name, name): scalar(cell) for name, cell in row.items()}, **spread},
    )
