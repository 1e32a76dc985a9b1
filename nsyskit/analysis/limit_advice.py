"""Advice out of the limits: what a step must read and compute, against what the hardware could do in its time.

Speaks only when the model is known, for then a number of this trace stands beside a number of the hardware.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import polars as pl

from nsyskit.analysis.advice import Item
from nsyskit.analysis.limits import LimitsResult
from nsyskit.analysis.step_costs import StepsResult
from nsyskit.analysis.verdict import Evidence
from nsyskit.units import human_bytes, human_ns, human_share

_SLOW: Final = 0.5
"""Matrix kernels below this share of the memory's speed are not bound by it: another format may read faster."""
_LOST: Final = 0.1
_NEAR_FLOOR: Final = 0.5
_MUCH_CACHE: Final = 0.1
_SMALL_UBATCH: Final = 256
_HIDDEN: Final = 0.1


def limit_items(limits: LimitsResult | None, steps: StepsResult | None) -> list[Item]:
    """Experiments that the limits suggest, in no order; none without a model or steps."""
    if limits is None or steps is None:
        return []
    return [item for rule in (_slow_formats, _near_floor, _cache, _small_ubatch) for item in rule(limits, steps)]


def _tokens(steps: StepsResult, phase: str) -> int:
    return steps.by_phase[phase].tokens if phase in steps.by_phase else 0


def _slow_formats(limits: LimitsResult, steps: StepsResult) -> Iterator[Item]:
    """Formats whose matrix kernels read far below the memory's speed although a step does little else."""
    if limits.measured_ms is None:
        return
    measured = limits.measured_ms * 1e6
    for at, row in enumerate(limits.by_quant.iter_rows(named=True)):
        share = row["share_of_peak"]
        if share is None or share >= _SLOW:
            continue
        lost = row["ns_per_token"] * (1 - share)
        if lost < _LOST * measured:
            continue
        path = f"limits.by_quant.{at}"
        yield Item(
            name=f"format_{row['quant'].lower()}",
            phase="decode",
            change=f"another quantisation of about the size of {row['quant']}, whose kernels may read faster",
            axes={},
            why=f"at one token a step the matrix kernels of {row['quant']} read {row['gb_per_s']:,.0f} GB/s, "
            f"{human_share(share)} of the memory's speed, during {human_ns(row['ns_per_token'])} of "
            f"{human_ns(measured)} per token",
            evidence=tuple(Evidence(f"{path}.{name}", row[name]) for name in ("gb_per_s", "share_of_peak")),
            max_speedup=measured / (measured - lost),
            max_gain_ns=lost * _tokens(steps, "decode"),
            refuted_by="limits.by_quant.0.gb_per_s of the other quantisation is no higher",
        )


def _near_floor(limits: LimitsResult, steps: StepsResult) -> Iterator[Item]:
    """A step that takes little longer than reading its bytes: only fewer bytes a token help."""
    share = limits.bandwidth_share
    if share is None or share < _NEAR_FLOOR or limits.floor_ms is None or limits.measured_ms is None:
        return
    left = limits.measured_ms - limits.floor_ms
    yield Item(
        name="fewer_bytes",
        phase="decode",
        change="a smaller quantisation, or more sequences at once (-np), which read the weights together",
        axes={"-np": ("1", "2", "4")},
        why=f"a token reads {human_bytes(limits.load.bytes_per_token)} of weights, which takes "
        f"{limits.floor_ms:.3f} of {limits.measured_ms:.3f} ms at the memory's full speed ({human_share(share)})",
        evidence=(
            Evidence("limits.bandwidth_share", share),
            Evidence("limits.floor_ms", limits.floor_ms),
            Evidence("limits.measured_ms", limits.measured_ms),
        ),
        max_speedup=limits.measured_ms / left if left > 0 else None,
        max_gain_ns=limits.floor_ms * 1e6 * _tokens(steps, "decode"),
        refuted_by="decode.ms_per_token does not fall with the bytes per token",
    )


def _cache(limits: LimitsResult, steps: StepsResult) -> Iterator[Item]:
    """A cache that is much of what a step reads, where no kernel tells what attention costs."""
    kv, weights, measured = limits.kv_bytes, limits.load.bytes_per_token, limits.measured_ms
    if not kv or not _hidden(steps) or measured is None or limits.memory_bandwidth is None or limits.depth is None:
        return
    share = kv / (kv + weights)
    if share < _MUCH_CACHE or not limits.load.kv_types.startswith("f"):
        return
    rest = weights / limits.memory_bandwidth * 1e3  # reading the weights alone: no cache can make a step shorter
    yield Item(
        name="kv_quant",
        phase="decode",
        change="a quantised KV cache: -ctk q8_0 -ctv q8_0",
        axes={"-ctk": ("f16", "q8_0"), "-ctv": ("f16", "q8_0")},
        why=f"with {limits.depth:,.0f} tokens in context a step reads {human_bytes(kv)} of its cache beside "
        f"{human_bytes(weights)} of weights ({human_share(share)} of all); whole graphs hide what attention takes",
        evidence=(
            Evidence("limits.kv_bytes", kv),
            Evidence("limits.bytes_per_token", weights),
            Evidence("limits.depth", limits.depth),
        ),
        max_speedup=measured / rest if rest and measured > rest else None,
        max_gain_ns=max(0.0, measured - rest) * 1e6 * _tokens(steps, "decode"),
        refuted_by="decode.ms_per_token at this depth does not fall",
    )


def _hidden(steps: StepsResult) -> bool:
    """Whether whole graphs hide the kernels of decode steps; else attention itself tells what the cache costs."""
    cost = steps.by_phase.get("decode")
    return cost is not None and cost.ledger["graph"] > _HIDDEN * sum(cost.ledger.values())


def _small_ubatch(limits: LimitsResult, steps: StepsResult) -> Iterator[Item]:
    """Prompts cut into ubatches too small to keep the cores busy."""
    share = limits.prefill.share_of_peak if limits.prefill is not None else None
    rows = steps.steps.filter(pl.col("phase") == "prefill")
    if limits.prefill is None or share is None or share >= _SLOW or rows.is_empty():
        return
    largest = max(rows["n_tokens"].to_list())
    if largest > _SMALL_UBATCH or rows.filter(pl.col("n_tokens") == largest).height < len(("one", "other")):
        return
    took = float(rows["period_ns"].sum())
    yield Item(
        name="fuller_ubatch",
        phase="prefill",
        change="larger ubatches for prompts: -ub (and -b)",
        axes={"-ub": (str(largest), "512", "1024")},
        why=f"prompts are computed {largest} tokens at a time, at {limits.prefill.tflops:,.1f} of "
        f"{limits.prefill.peak_tflops:,.0f} 10^12 operations a second ({human_share(share)} of the peak)",
        evidence=(
            Evidence("limits.prefill.share_of_peak", share),
            Evidence("limits.prefill.tflops", limits.prefill.tflops),
        ),
        max_speedup=1 / share if share else None,
        max_gain_ns=took * (1 - share),
        refuted_by="prefill.ms_per_token is the same with larger ubatches",
    )
