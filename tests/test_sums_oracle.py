"""Every sum against what ``nsys stats`` printed for the same file: both directions, every row, every column."""

from __future__ import annotations

import csv
from collections import Counter
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import polars as pl
import pytest

from nsyskit.analysis import sums
from nsyskit.ingest import open_trace

SHARED = Path(__file__).resolve().parents[2] / "shared" / "traces"
REPORTS = {
    "cuda_api_sum": sums.api_sum, "osrt_sum": sums.osrt_sum, "cuda_gpu_kern_sum": sums.kernel_sum,
    "cuda_kern_exec_sum": sums.kern_exec_sum, "cuda_gpu_mem_time_sum": sums.mem_time_sum,
    "cuda_gpu_mem_size_sum": sums.mem_size_sum, "nvtx_sum": sums.nvtx_sum,
}  # fmt: skip
COPY_NAMES = {
    "[CUDA memcpy Host-to-Device]": "HtoD", "[CUDA memcpy Device-to-Host]": "DtoH",
    "[CUDA memcpy Device-to-Device]": "DtoD", "[CUDA memcpy Host-to-Host]": "HtoH",
    "[CUDA memcpy Peer-to-Peer]": "PtoP", "[CUDA memset]": "memset",
    "[CUDA memcpy Unified Host-to-Device]": "unified_HtoD", "[CUDA memcpy Unified Device-to-Host]": "unified_DtoH",
}  # fmt: skip

CASES = sorted((file.parent.parent.name, file.stem) for file in SHARED.glob("*/oracle/*.csv") if file.stem in REPORTS)


def printed(value: float | None, digits: int) -> str:
    """A decimal as nsys prints it: rounded half up, absent as nothing."""
    if value is None:
        return ""
    return str(Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP))


def duration_rows(frame: pl.DataFrame, name_columns: list[str]) -> Counter[tuple[str, ...]]:
    return Counter(
        (
            printed(row["time_share"] * 100, 1), str(row["total_ns"]), str(row["count"]),
            printed(row["avg_ns"], 1), printed(row["med_ns"], 1), str(row["min_ns"]), str(row["max_ns"]),
            printed(row["stddev_ns"], 1), *(row[name] for name in name_columns),
        )
        for row in frame.iter_rows(named=True)
    )  # fmt: skip


def size_rows(frame: pl.DataFrame) -> Counter[tuple[str, ...]]:
    def megabytes(value: float) -> str:
        return printed(value / 1e6, 3)

    return Counter(
        (
            megabytes(row["total_bytes"]), str(row["count"]), megabytes(row["avg_bytes"]), megabytes(row["med_bytes"]),
            megabytes(row["min_bytes"]), megabytes(row["max_bytes"]), megabytes(row["stddev_bytes"]), row["name"],
        )
        for row in frame.iter_rows(named=True)
    )  # fmt: skip


def exec_rows(frame: pl.DataFrame) -> Counter[tuple[str, ...]]:
    def one_decimal(value: float | None) -> str:
        return printed(value, 1)

    def whole(value: int | None) -> str:
        return "" if value is None else str(value)

    return Counter(
        (
            str(row["pid"]), str(row["tid"]), str(row["device"]), str(row["count"]), str(row["queue_count"]),
            *(
                (whole if statistic in {"min", "max"} else one_decimal)(row[f"{part}_{statistic}_ns"])
                for part in ("total", "api", "queue", "kernel")
                for statistic in sums.EXEC_STATISTICS
            ),
            row["api"], row["kernel"],
        )
        for row in frame.iter_rows(named=True)
    )  # fmt: skip


def oracle_rows(file: Path) -> Counter[tuple[str, ...]]:
    with file.open(newline="") as lines:
        table = list(csv.reader(lines))
    return Counter(tuple(COPY_NAMES.get(cell, cell) for cell in row) for row in table[1:])


@pytest.mark.skipif(not CASES, reason="needs the collection of real traces beside the project")
@pytest.mark.parametrize(("name", "report"), CASES)
def test_equal_to_nsys_stats(name, report):
    trace = open_trace(SHARED / name / "trace.sqlite")
    rows = REPORTS[report](trace).rows
    if report == "cuda_gpu_mem_size_sum":
        ours = size_rows(rows)
    elif report == "cuda_kern_exec_sum":
        ours = exec_rows(rows)
    else:
        ours = duration_rows(rows, ["style", "name"] if report == "nvtx_sum" else ["name"])
    assert ours == oracle_rows(SHARED / name / "oracle" / f"{report}.csv")
