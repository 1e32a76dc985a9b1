"""Layers without names: the order of kernels repeats once a layer within a step.

Kernels count by family, for formats of weights change from layer to layer. Where the pattern is not the same in every
step looked at, or leaves too much of the step outside, nothing is shown and the reason is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.gpus import gpu_uses
from nsyskit.analysis.hotspots import kernel_facts
from nsyskit.analysis.pairing import op_calls
from nsyskit.analysis.step_costs import busiest, step_rows
from nsyskit.analysis.steps import find_steps, op_steps
from nsyskit.analysis.windows import steady_window, window_all
from nsyskit.errors import MissingTableError
from nsyskit.schema import Columns
from nsyskit.trace import Trace, Window

_SAMPLE: Final = 64
_MIN_LAYERS: Final = 3
_MIN_COVERED: Final = 0.75
_ALIKE: Final = 0.9


@dataclass(frozen=True, slots=True)
class LayersResult:
    """Time by layer of the commonest decode steps on the busiest GPU.

    Attributes:
        steps: how many steps of one kind were looked at.
        count: layers found, None when ambiguous.
        kernels_per_layer: of the pattern.
        covered: share of a step's kernels inside layers.
        layers: ``layer kernel_ns span_ns``: mean over steps of the kernels' durations, and from the layer's first
            kernel to the next layer's.
        positions: ``position family category kernel_ns``: the mean layer, kernel by kernel.
        why_none: why no layers are shown.
    """

    window: Window
    steps: int
    count: int | None
    kernels_per_layer: int | None
    covered: float | None
    layers: pl.DataFrame
    positions: pl.DataFrame
    why_none: str | None


_LAYERS: Final[Columns] = {"layer": pl.Int64(), "kernel_ns": pl.Float64(), "span_ns": pl.Float64()}
_POSITIONS: Final[Columns] = {
    "position": pl.Int64(), "family": pl.String(), "category": pl.String(), "kernel_ns": pl.Float64(),
}  # fmt: skip


def layers(trace: Trace, *, window: Window | None = None, expected: int | None = None) -> LayersResult:
    """Find the layers of decode steps.

    Args:
        trace: with kernels visible, one by one.
        window: steps that begin in it are looked at, ``steady`` where there is such.
        expected: layers of the model where it is known; another count is ambiguous, unless several GPUs share them.

    Raises:
        MissingTableError: the trace holds no decode step.
    """
    if find_steps(trace).steps.is_empty():
        raise MissingTableError("llama.cpp steps", hint="capture llama.cpp with --trace=cuda")
    window = window or steady_window(trace) or window_all(trace)
    rows = step_rows(trace).filter(
        (pl.col("phase") == "decode") & pl.col("begin_ns").is_between(window.start_ns, window.end_ns, "left")
    )
    if rows.is_empty():
        raise MissingTableError("decode steps", hint="capture llama.cpp with --trace=cuda")
    kernels = _kernels(trace, rows)
    if kernels.is_empty():
        return _ambiguous(window, 0, "kernels are hidden in CUDA graphs; capture with --cuda-graph-trace=node")
    shapes = {step: tuple(group["family"]) for (step,), group in kernels.group_by("step", maintain_order=True)}
    shape, alike = Counter(shapes.values()).most_common(1)[0]
    if alike < _ALIKE * len(shapes):
        return _ambiguous(window, len(shapes), "steps differ in their kernels")
    found = _pattern(shape)
    if found.count < _MIN_LAYERS or found.period * found.count < _MIN_COVERED * len(shape):
        return _ambiguous(window, alike, "no order of kernels repeats through most of a step")
    if expected is not None and len(gpu_uses(trace)) == 1 and found.count != expected:
        return _ambiguous(window, alike, f"{found.count} repetitions, but the model has {expected} layers")
    same = [step for step, own in shapes.items() if own == shape]
    return _described(window, kernels.filter(pl.col("step").is_in(same)), found, alike, len(shape))


def _ambiguous(window: Window, steps: int, why: str) -> LayersResult:
    none = pl.DataFrame(schema=_LAYERS), pl.DataFrame(schema=_POSITIONS)
    return LayersResult(window, steps, None, None, None, *none, why)


def _kernels(trace: Trace, rows: pl.DataFrame) -> pl.DataFrame:
    """Kernels of a sample of steps on the busiest GPU in order: ``step start_ns end_ns family category``."""
    sample = rows["index"].gather_every(max(1, rows.height // _SAMPLE)).implode()
    columns = ["start_ns", "end_ns", "pid", "device", "kind", "row"]
    ops = op_calls(trace).select(*columns, op_steps(trace)).filter(pl.col("step").is_in(sample))
    ops = ops.filter((pl.col("kind") == "kernel") & busiest(trace).matches())
    names = trace.kernels.select("name_id").collect()["name_id"].gather(ops["row"])
    facts = kernel_facts(trace).select("name_id", pl.col("family").fill_null("?"), "category")
    own = ops.select("start_ns", "end_ns", "step", names)
    return own.join(facts, on="name_id", how="left", maintain_order="left").sort(
        "step", "start_ns", maintain_order=True
    )


@dataclass(frozen=True, slots=True, order=True)
class _Pattern:
    """``count`` times ``period`` kernels from ``first`` on. The order is by what counts: coverage, then shortness."""

    covered: int
    shortness: int
    first: int
    count: int

    @property
    def period(self) -> int:
        return -self.shortness


def _pattern(shape: Sequence[str]) -> _Pattern:
    """The repetition that covers most of a step; of equal ones the shortest.

    Whatever covers most of it runs through its middle: the kernel there comes again one period later or earlier.
    """
    middle = len(shape) // 2
    periods = {abs(at - middle) for at, name in enumerate(shape) if name == shape[middle]} - {0}
    return max(
        (_repeated(shape, period) for period in sorted(periods) if 2 * period <= len(shape)),
        default=_Pattern(0, -1, 0, 0),
    )


def _repeated(shape: Sequence[str], period: int) -> _Pattern:
    """The longest stretch in which every kernel comes again one period later, in whole periods."""
    best = run = 0
    first = 0
    for at, (one, later) in enumerate(zip(shape, shape[period:], strict=False)):
        run = run + 1 if one == later else 0
        if run > best:
            best, first = run, at + 1 - run
    count = 1 + best // period
    return _Pattern(count * period if count > 1 else 0, -period, first, count)


def _described(window: Window, kernels: pl.DataFrame, found: _Pattern, steps: int, length: int) -> LayersResult:
    rows = kernels.with_columns(
        place=pl.int_range(pl.len()).over("step") - found.first, dur=(pl.col("end_ns") - pl.col("start_ns"))
    ).with_columns(layer=pl.col("place") // found.period, position=pl.col("place") % found.period)
    inside = rows.filter(pl.col("layer").is_between(0, found.count - 1))
    begins = rows.filter((pl.col("position") == 0) & pl.col("layer").is_between(0, found.count))
    ends = rows.group_by("step").agg(pl.col("end_ns").max())
    following = pl.coalesce(pl.col("start_ns").shift(-1).over("step"), "end_ns")
    spans = begins.drop("end_ns").join(ends, on="step", how="left", maintain_order="left")
    spans = spans.with_columns(span=following - pl.col("start_ns")).group_by("layer").agg(span_ns=pl.col("span").mean())
    sums = inside.group_by("layer").agg(kernel_ns=pl.col("dur").sum() / steps).join(spans, on="layer", how="left")
    positions = inside.group_by("position").agg(
        pl.col("family", "category").first(), kernel_ns=pl.col("dur").mean()
    )  # fmt: skip
    return LayersResult(
        window=window,
        steps=steps,
        count=found.count,
        kernels_per_layer=found.period,
        covered=found.covered / length,
        layers=sums.sort("layer").select(pl.col(name).cast(kind) for name, kind in _LAYERS.items()),
        positions=positions.sort("position").select(pl.col(name).cast(kind) for name, kind in _POSITIONS.items()),
        why_none=None,
    )
