"""What the clients of a served run saw, and what its GPUs' counters said meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.ingest.beside import Beside

MARKS: Final = (0.5, 0.95, 0.99)
_SLOWEST: Final = 10


@dataclass(frozen=True, slots=True)
class Spread:
    """p50, p95 and p99 (nearest observed value), the largest, and how many there are."""

    p50: int
    p95: int
    p99: int
    max: int
    count: int


@dataclass(frozen=True, slots=True)
class ServedResult:
    """Requests of a load, warm-up left out; failed ones are counted and nothing else.

    Attributes:
        requests: ``index at_ns ttft_ns total_ns itl_p50_ns itl_p99_ns prompt_n cache_n predicted_n tax_ns``, as sent;
            ``at_ns`` from the first one.
        failed: requests without a whole answer.
        dur_ns: from the first request's begin to the last one's end.
        spreads: ``first token`` (send to first text), ``between tokens`` (pieces of text of one request), ``request``,
            and ``server tax`` (beyond the prefill and decode that the server itself reports); those that are known.
        parts: ``part total_ns share count``: where requests' time went, by named timestamps, largest first.
        slowest: those of ``requests`` with the latest first text.
    """

    requests: pl.DataFrame
    failed: int
    dur_ns: int
    spreads: dict[str, Spread]
    parts: pl.DataFrame
    slowest: pl.DataFrame

    @property
    def tokens(self) -> int:
        return int(self.requests["predicted_n"].sum())

    @property
    def tokens_per_s(self) -> float | None:
        return self.tokens / self.dur_ns * 1e9 if self.dur_ns else None


@dataclass(frozen=True, slots=True)
class GpuSamplesResult:
    """NVML's samples during the capture, whose window the trace may be a part of.

    Attributes:
        gpus: ``gpu name memory_bytes``.
        samples: as NVML gave them, by GPU and time; ``at_ns`` from the first sample.
        peaks: ``gpu name samples peak_bytes memory_bytes sm_share power_w temperature_c throttled_share``: largest
            memory, mean use and power, highest temperature, share of samples in which clocks were held down for
            a reason other than idleness.
    """

    gpus: pl.DataFrame
    samples: pl.DataFrame
    peaks: pl.DataFrame


def served(beside: Beside) -> ServedResult | None:
    """What clients saw; None without a whole request."""
    rows, tokens, parts = beside.requests, beside.tokens, beside.parts
    if rows is None or tokens is None or parts is None:
        return None
    whole = rows.filter(~pl.col("failed") & pl.col("total_ns").is_not_null()).sort("send_ns", "index")
    if whole.is_empty():
        return None
    begin, end = whole.select(begin=pl.col("send_ns").min(), end=(pl.col("send_ns") + pl.col("total_ns")).max()).row(0)
    whole = whole.with_columns(at_ns=pl.col("send_ns") - begin).drop("send_ns", "failed")
    gaps = _gaps(tokens, whole)
    values = {
        "first token": whole["ttft_ns"], "between tokens": gaps, "request": whole["total_ns"],
        "server tax": whole["tax_ns"],
    }  # fmt: skip
    return ServedResult(
        requests=whole,
        failed=rows.height - whole.height,
        dur_ns=end - begin,
        spreads={name: found for name, series in values.items() if (found := spread(series)) is not None},
        parts=_parts(parts, whole),
        slowest=whole.sort(["ttft_ns", "index"], descending=[True, False], nulls_last=True).head(_SLOWEST),
    )


def spread(values: pl.Series) -> Spread | None:
    """Exact quantiles; None without a value."""
    known = values.drop_nulls()
    if known.is_empty():
        return None
    p50, p95, p99 = (int(known.quantile(mark, interpolation="nearest") or 0) for mark in MARKS)
    return Spread(p50, p95, p99, int(known.max()), known.len())  # type: ignore[arg-type]


def gpu_samples(beside: Beside) -> GpuSamplesResult | None:
    """What NVML sampled; None without samples."""
    samples, gpus = beside.samples, beside.gpus
    if samples is None or gpus is None or samples.is_empty():
        return None
    samples = samples.sort("gpu", "at_ns").with_columns(pl.col("at_ns") - pl.col("at_ns").min())
    idle_only = pl.col("throttle_reasons").is_in(_NOT_HELD)
    peaks = samples.group_by("gpu").agg(
        samples=pl.len(),
        peak_bytes=pl.col("memory_used_bytes").max(),
        sm_share=pl.col("sm_share").mean(),
        power_w=pl.col("power_mw").mean() / 1e3,
        temperature_c=pl.col("temperature_c").max(),
        throttled_share=(~idle_only).mean(),
    )
    return GpuSamplesResult(gpus, samples, peaks.join(gpus, on="gpu", how="left").sort("gpu"))


_NOT_HELD: Final[Sequence[int]] = (0, 1)
"""NVML's throttle reasons that are none: no bit at all, or only "GPU is idle"."""


def _gaps(tokens: pl.DataFrame, whole: pl.DataFrame) -> pl.Series:
    """Times between pieces of text of one request."""
    own = tokens.filter(pl.col("request").is_in(whole["index"].implode())).sort("request", "place")
    return own.select(gap=pl.col("at_ns").diff().over("request"))["gap"]


def _parts(parts: pl.DataFrame, whole: pl.DataFrame) -> pl.DataFrame:
    own = parts.filter(pl.col("index").is_in(whole["index"].implode()))
    summed = own.group_by("part").agg(total_ns=pl.col("dur_ns").sum(), count=pl.len())
    total = pl.col("total_ns") / pl.col("total_ns").sum()
    return summed.with_columns(share=total).sort(["total_ns", "part"], descending=[True, False])
