"""One step from the inside: its ledger, kernels, calls and copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from nsyskit.analysis.copies import copy_purposes
from nsyskit.analysis.names import named, printed_api_name
from nsyskit.analysis.pairing import api_calls, call_classes, op_calls, ops_of_kind
from nsyskit.analysis.step_costs import LEDGER_PARTS, kernel_steps, step_rows
from nsyskit.analysis.steps import find_steps, op_steps
from nsyskit.errors import MissingTableError, UsageError
from nsyskit.trace import Trace, Window


@dataclass(frozen=True, slots=True)
class StepDetail:
    """A step and what was in it.

    Attributes:
        row: as ``StepsResult.steps``.
        times: its time to end against the median of its like (same phase and tokens), None without others.
        ledger: part of the busiest GPU -> ns; the parts sum to the step.
        categories: ``category quant total_ns`` of kernels handed over in it, most time first.
        kernels: ``name count total_ns``, most time first.
        calls: API calls of its thread that begin in it: ``name class count total_ns max_ns``, most time first.
        copies: ``label purpose count bytes total_ns``, most bytes first.
    """

    row: Mapping[str, Any]
    times: float | None
    ledger: Mapping[str, int]
    categories: pl.DataFrame
    kernels: pl.DataFrame
    calls: pl.DataFrame
    copies: pl.DataFrame

    @property
    def window(self) -> Window:
        return Window("explicit", self.row["begin_ns"], self.row["end_ns"])


def step_detail(trace: Trace, index: int) -> StepDetail:
    """The step of this index, as ``steps`` counts them.

    Raises:
        MissingTableError: the trace holds no steps.
        UsageError: there is no such step.
    """
    if find_steps(trace).steps.is_empty():
        raise MissingTableError("llama.cpp steps", hint="capture llama.cpp with --trace=cuda")
    rows = step_rows(trace)
    if not 0 <= index < rows.height:
        raise UsageError(f"there is no step {index}", hint=f"steps are 0 to {rows.height - 1}")
    row = rows.row(index, named=True)
    return StepDetail(
        row=row,
        times=_times(rows, row),
        ledger={part: row[f"{part}_ns"] for part in LEDGER_PARTS},
        categories=kernel_steps(trace)
        .filter(pl.col("index") == index)
        .select("category", "quant", "total_ns")
        .sort(["total_ns", "category", "quant"], descending=[True, False, False]),
        kernels=_kernels(trace, index),
        calls=_calls(trace, row),
        copies=_copies(trace, index),
    )


def _times(rows: pl.DataFrame, row: Mapping[str, Any]) -> float | None:
    like = rows.filter(
        (pl.col("phase") == row["phase"])
        & (pl.col("n_tokens") == row["n_tokens"])
        & (pl.col("last_of_request") == row["last_of_request"])
    )
    median = (like["end_ns"] - like["begin_ns"]).median()
    return (row["end_ns"] - row["begin_ns"]) / float(median) if like.height > 1 and median else None  # type: ignore[arg-type]


def _ops(trace: Trace, kind: str, index: int) -> pl.DataFrame:
    own = (pl.col("kind") == kind) & (op_steps(trace) == index).fill_null(value=False)
    return op_calls(trace).filter(own).with_columns(dur=pl.col("end_ns") - pl.col("start_ns"))


def _kernels(trace: Trace, index: int) -> pl.DataFrame:
    own = _ops(trace, "kernel", index)
    ids = trace.kernels.select("name_id").collect()["name_id"][own["row"]]
    sums = own.with_columns(ids).group_by("name_id").agg(
        pl.len().cast(pl.Int64).alias("count"), pl.col("dur").sum().alias("total_ns")
    )  # fmt: skip
    return named(trace, sums).select("name", "count", "total_ns").sort(["total_ns", "name"], descending=[True, False])


def _calls(trace: Trace, row: Mapping[str, Any]) -> pl.DataFrame:
    own = api_calls(trace).with_columns(call_classes(trace).alias("class")).filter(
        (pl.col("pid") == row["pid"])
        & (pl.col("tid") == row["tid"])
        & pl.col("start_ns").is_between(row["begin_ns"], row["end_ns"], "left")
    )  # fmt: skip
    took = pl.col("end_ns") - pl.col("start_ns")
    sums = own.group_by("name_id", pl.col("class").cast(pl.String)).agg(
        pl.len().cast(pl.Int64).alias("count"), took.sum().alias("total_ns"), took.max().alias("max_ns")
    )
    rows = named(trace, sums, printed=printed_api_name).select("name", "class", "count", "total_ns", "max_ns")
    return rows.sort(["total_ns", "name", "class"], descending=[True, False, False])


def _copies(trace: Trace, index: int) -> pl.DataFrame:
    took = ops_of_kind(trace, "memcpy").select(dur=pl.col("end_ns") - pl.col("start_ns"))["dur"]
    own = copy_purposes(trace).with_columns(took).filter(pl.col("step") == index)
    return (
        own.group_by("label", "purpose")
        .agg(pl.len().cast(pl.Int64).alias("count"), pl.col("bytes").sum(), pl.col("dur").sum().alias("total_ns"))
        .sort(["bytes", "label", "purpose"], descending=[True, False, False])
    )
