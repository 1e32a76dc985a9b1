"""What several GPUs did together, in words and rows that the text and the page share."""

from __future__ import annotations

from typing import Any

import polars as pl

from nsyskit.analysis.several_gpus import SeveralGpusResult
from nsyskit.units import human_ns, human_share

Row = dict[str, Any]
_COUNTS = ("none", "one", "two", "three", "four")


def gpu_name(result: SeveralGpusResult, place: int | None) -> str:
    """A GPU in few words: ``GPU 1``, by nsys's number, or the ordinal within its process where there is none."""
    if place is None:
        return "unknown GPU"
    use = result.uses[place]
    if use.gpu is not None:
        return f"GPU {use.gpu}"
    return f"device {use.device} of process {use.pids[0]}"


def busy_sentence(result: SeveralGpusResult) -> str:
    """How many GPUs worked at a time."""
    return f"GPUs at work at a time: {counted(result.busy_count)}"


def counted(rows: pl.DataFrame) -> str:
    """Shares by number, the first column of ``rows``: ``none 6.3 %, one 93.7 %``."""
    numbers = zip(rows.to_series(0), rows["share"], strict=True)
    return ", ".join(f"{_COUNTS[n] if n < len(_COUNTS) else n} {human_share(share)}" for n, share in numbers)


def phase_sentences(result: SeveralGpusResult) -> list[str]:
    """A mean step of each phase, GPU by GPU, and how uneven it is."""
    lines = []
    for phase, imbalance in result.imbalance.items():
        rows = result.by_phase.filter(pl.col("phase") == phase)
        told = ", ".join(
            f"{gpu_name(result, row['place'])} {human_ns(row['kernel_ns'] + row['graph_ns'])}"
            for row in rows.iter_rows(named=True)
        )
        uneven = "" if imbalance.p50 is None else f"; the one with most does {imbalance.p50:.2f}× the mean"
        lines.append(f"{phase}, kernels of a step: {told}{uneven}")
    return lines


def wait_rows(result: SeveralGpusResult) -> list[Row]:
    """``pair idle_ns share peer_ns``: one GPU idle while another of its process was busy."""
    whole = result.window.dur_ns
    return [
        {
            "pair": f"{gpu_name(result, row['waiting'])} idle, {gpu_name(result, row['other'])} busy",
            "idle_ns": row["idle_ns"],
            "share": row["idle_ns"] / whole if whole else 0.0,
            "peer_ns": row["peer_ns"],
        }
        for row in result.waits.iter_rows(named=True)
    ]


def copy_rows(result: SeveralGpusResult) -> list[Row]:
    """``pair count bytes total_ns gb_per_s``: copies between two GPUs, for a purpose, in a phase."""
    return [
        {
            "pair": f"{gpu_name(result, row['source'])} → {gpu_name(result, row['target'])} "
            f"({row['purpose']}, {row['phase']})",
            **{name: row[name] for name in ("count", "bytes", "total_ns", "gb_per_s")},
        }
        for row in result.copies.iter_rows(named=True)
    ]
