"""What the memory really did, by the GPU's own counters, where nsys collected them (--gpu-metrics-devices)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.intervals import assign
from nsyskit.trace import Trace

_READ: Final = r"(?i)^DRAM\b.*\bread\b.*\[Throughput %\]$"
_WRITE: Final = r"(?i)^DRAM\b.*\bwrite\b.*\[Throughput %\]$"


@dataclass(frozen=True, slots=True)
class DramUse:
    """Mean of the memory counters' samples within some steps, as shares of the memory's peak.

    Attributes:
        samples: instants that were sampled within these steps.
        read_share, write_share: of the peak; None when the counter was not among those collected.
    """

    samples: int
    read_share: float | None
    write_share: float | None


def dram_use(trace: Trace, steps: pl.DataFrame) -> DramUse | None:
    """The counters within ``steps`` (``begin_ns end_ns``); None without counters, or when several GPUs have some.

    nsys tells a GPU's samples by a number that its export does not join to the list of GPUs.
    """
    if not trace.meta.sources.get("gpu_metrics", False) or steps.is_empty():
        return None
    kinds = {"read": pl.col("metric").str.contains(_READ), "write": pl.col("metric").str.contains(_WRITE)}
    samples = trace.tables["gpu_metrics"].filter(kinds["read"] | kinds["write"]).collect()
    if samples["source"].n_unique() != 1:
        return None
    spans = steps.select(start_ns="begin_ns", end_ns="end_ns").sort("start_ns")
    inside = samples.filter(assign(samples["start_ns"], spans).is_not_null())
    shares = {name: inside.filter(kind)["value"].mean() for name, kind in kinds.items()}
    read, write = (None if mean is None else float(mean) / 100 for mean in shares.values())  # type: ignore[arg-type]
    return DramUse(inside["start_ns"].n_unique(), read, write) if inside.height else None
