"""One phase on both sides: every number per token, how sure its difference is, and parts that explain it exactly."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import median
from typing import Final

import polars as pl

from nsyskit.analysis.devices import BUSY_PARTS
from nsyskit.analysis.step_costs import LEDGER_PARTS
from nsyskit.compare.estimate import Estimate, Side, Spread, estimate, pooled, spreads, values_of
from nsyskit.compare.noise import NoiseModel, holm, t_quantile, t_tail
from nsyskit.compare.result import Line, Part, PhaseComparison, Verdict
from nsyskit.compare.sample import STEP_TIME, PhaseSample
from nsyskit.compare.strata import Strata, coarser, find_strata

WORK: Final = "kernels"
"""Kernel and whole-graph time together: which of the two it is, is a matter of tracing."""
PARTS: Final = (WORK, *(part for part in LEDGER_PARTS if part not in {"kernel", "graph"}))
_KERNEL_GROUPS: Final = {"category": "categories", "quant": "quants", "kernel": "kernels"}
_INTERVAL: Final = 0.05
_HIDDEN: Final = 0.02
_ATTENTION: Final = re.compile(r"attention|attn|soft_max")
_MIN_CALLS: Final = 20
_MIN_KERNELS: Final = 5
_CLOCK_LIMIT: Final = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class _Sides:
    """Both sides of a phase with what is derived from both."""

    base: Side
    candidate: Side
    strata: Strata
    one: Estimate
    other: Estimate
    clock: float | None
    reference: tuple[pl.Series, pl.Series] | None


@dataclass(frozen=True, slots=True)
class _Test:
    """A difference and how far it is from nothing."""

    diff: float
    spread: Spread

    @property
    def tail(self) -> float:
        if self.diff == 0:
            return 1.0
        return t_tail(abs(self.diff) / math.sqrt(self.spread.variance), self.spread.df) if self.spread.variance else 0.0

    def interval(self) -> tuple[float, float]:
        reach = t_quantile(_INTERVAL, round(self.spread.df, 3)) * math.sqrt(self.spread.variance)
        return self.diff - reach, self.diff + reach


@dataclass(frozen=True, slots=True)
class _Tested:
    """A line with the tests that may call it a change."""

    line: Line
    raw: _Test
    beyond: _Test | None
    floor: float

    @property
    def tail(self) -> float:
        """The chance of a difference as large as this in two equal runs, with the floor and both tests minded."""
        tails = [test.tail for test in (self.raw, self.beyond) if test is not None]
        large = [
            tail
            for tail, test in zip(tails, (t for t in (self.raw, self.beyond) if t is not None), strict=True)
            if abs(test.diff) >= self.floor
        ]
        return min(1.0, len(tails) * min(large)) if large else 1.0

    @property
    def certain(self) -> bool:
        """Whether nothing ever moved, such as a count of 0: no chance of an error, so no part in sharing it out."""
        return self.raw.diff == 0 and self.raw.spread.variance == 0

    @property
    def direction(self) -> float:
        if self.beyond is not None and self.beyond.tail < self.raw.tail:
            return self.beyond.diff
        return self.raw.diff


def compare_phase(
    phase: str, base: Sequence[PhaseSample], candidate: Sequence[PhaseSample], *, noise: NoiseModel, same_gpu: bool
) -> tuple[PhaseComparison, float]:
    """One phase, its total's verdict still open: that is for all phases together. Also the total's tail."""
    sides = _sides(base, candidate, same_gpu=same_gpu)
    few = min(sides.base.rows.height, sides.candidate.rows.height) < noise.min_steps
    tested = _tested(phase, sides, noise)
    total = tested.pop(STEP_TIME)
    lines = [_without_verdict(one.line, "too few steps") for one in tested.values()] if few else (
        _judged(list(tested.values()), sides, noise)
    )  # fmt: skip
    parts = _parts(sides)
    new, vanished = _come_and_gone(sides)
    found = PhaseComparison(
        phase=phase,
        base_steps=sides.base.rows.height,
        candidate_steps=sides.candidate.rows.height,
        base_tokens=sides.base.tokens,
        candidate_tokens=sides.candidate.tokens,
        total=replace(total.line, verdict="too few steps") if few else total.line,
        raw_base=sides.base.raw(STEP_TIME),
        raw_candidate=sides.candidate.raw(STEP_TIME),
        parts=parts,
        ledgers=tuple((part, _raw(sides.base, part), _raw(sides.candidate, part)) for part in LEDGER_PARTS),
        lines=tuple(lines),
        strata=sides.strata.kind,
        overlap=sides.strata.overlap,
        clock=sides.clock,
        new_kernels=new,
        vanished_kernels=vanished,
        cause=None,
        sentence="",
    )
    return found, 1.0 if few else total.tail


def total_verdict(found: PhaseComparison, *, held: bool, noise: NoiseModel) -> Verdict:
    """The verdict on the time per token, once all phases were tested together."""
    total = found.total
    if total.verdict is not None:
        return total.verdict
    if not held:
        return "no change"
    raw_counts = abs(total.diff) >= noise.floor * total.base and not total.low <= 0 <= total.high
    diff = total.diff if raw_counts or total.beyond_clock is None else total.beyond_clock
    return "slower" if diff > 0 else "faster"


def _sides(base: Sequence[PhaseSample], candidate: Sequence[PhaseSample], *, same_gpu: bool) -> _Sides:
    columns = sorted({name for sample in (*base, *candidate) for name in sample.steps.columns})
    sides = [_with_work(pooled(samples, columns)) for samples in (base, candidate)]
    strata = find_strata(sides[0].rows, sides[1].rows)
    one, other = (estimate(side, strata) for side in sides)
    found = _Sides(sides[0], sides[1], strata, one, other, None, None)
    ratios = _kernel_ratios(found) if same_gpu and not _hidden(found) else {}
    if len(ratios) < _MIN_KERNELS:
        return found
    reference = tuple(_reference(each, list(ratios)) for each in (one, other))
    return replace(found, clock=median(ratios.values()), reference=(reference[0], reference[1]))


def _with_work(side: Side) -> Side:
    both = (pl.col("ledger.kernel") + pl.col("ledger.graph")).alias(f"ledger.{WORK}")
    return Side(side.rows.with_columns(both), side.runs)


def _hidden(sides: _Sides) -> bool:
    """Whether whole graphs hide kernels on either side."""
    return any(
        each.values["ledger.graph"] > _HIDDEN * each.values[f"ledger.{WORK}"] for each in (sides.one, sides.other)
    )


def _kernel_ratios(sides: _Sides) -> dict[str, float]:
    """By how much each kernel's mean duration differs, of kernels that both sides run often enough."""
    one, other = sides.one.values, sides.other.values
    least = Fraction(2, 1000) * one[f"ledger.{WORK}"]
    found = {}
    for metric in one:
        if metric.startswith("kernel."):
            calls = f"calls.{metric.removeprefix('kernel.')}"
            often = all(int(side.rows[calls].sum()) >= _MIN_CALLS for side in (sides.base, sides.candidate))
            if often and one[metric] > least and one[calls] and other[calls]:
                found[metric] = float((other[metric] / other[calls]) / (one[metric] / one[calls]))
    return found


def _reference(each: Estimate, kernels: Sequence[str]) -> pl.Series:
    """How each step pulls the clock: the mean of its pulls on the kernels, each as a share of its value."""
    shares = [pl.col(name) / float(each.values[name]) for name in kernels]
    return each.influences.select(pl.mean_horizontal(*shares).alias("clock")).to_series()


def _gpu_share(metric: str, values: Mapping[str, Fraction]) -> tuple[float, float]:
    """Of a metric, what is GPU work and what is not, in ns per token."""
    group, _, name = metric.partition(".")
    value = float(values[metric])
    if metric == STEP_TIME:
        busy = float(sum((values[f"ledger.{part}"] for part in BUSY_PARTS), Fraction()))
        return busy, value - busy
    if group in _KERNEL_GROUPS or (group == "ledger" and name in {*BUSY_PARTS, WORK}):
        return value, 0.0
    return (0.0, value) if group == "ledger" else (0.0, 0.0)


def _kernel_time(metric: str, values: Mapping[str, Fraction]) -> float | None:
    """Of a metric, the kernel time, which the clock moves; None where there is none."""
    if metric == STEP_TIME:
        return float(values["ledger.kernel"])
    moved = metric.partition(".")[0] in _KERNEL_GROUPS or metric == f"ledger.{WORK}"
    return float(values[metric]) if moved else None


def _tested(phase: str, sides: _Sides, noise: NoiseModel) -> dict[str, _Tested]:
    metrics = [name for name in sides.one.values if not name.startswith("calls.")]
    raw = _raw_tests(sides, metrics, noise)
    beyond = _beyond_tests(sides, metrics, noise) | _replay_tests(sides, metrics, noise)
    return {
        name: _line(f"{phase}.{_path(name)}", name, sides, raw=raw[name], beyond=beyond.get(name), floor=noise.floor)
        for name in metrics
    }


def _raw_tests(sides: _Sides, metrics: Sequence[str], noise: NoiseModel) -> dict[str, _Test]:
    found = []
    for each in (sides.one, sides.other):
        shares = {name: _gpu_share(name, each.values) for name in metrics}
        assumed = {n: (noise.gpu_run * gpu) ** 2 + (noise.host_run * rest) ** 2 for n, (gpu, rest) in shares.items()}
        found.append(spreads(each, each.influences.select(metrics), assumed, noise.run_df))
    return {
        name: _Test(float(sides.other.values[name] - sides.one.values[name]), found[0][name] + found[1][name])
        for name in metrics
    }


def _beyond_tests(sides: _Sides, metrics: Sequence[str], noise: NoiseModel) -> dict[str, _Test]:
    """The same without what all kernels share, where that is within what clocks do from run to run."""
    clock = sides.clock
    if clock is None or sides.reference is None or abs(clock - 1) > _CLOCK_LIMIT * math.sqrt(2) * noise.gpu_run:
        return {}
    times = {name: time for name in metrics if (time := _kernel_time(name, sides.one.values))}
    found = []
    for each, reference in zip((sides.one, sides.other), sides.reference, strict=True):
        influences = each.influences.select(
            (pl.col(name) - reference * (_kernel_time(name, each.values) or 0.0)).alias(name) for name in times
        )
        rest = {name: _gpu_share(name, each.values)[1] for name in times}
        assumed = {n: (noise.kernel_run * time) ** 2 + (noise.host_run * rest[n]) ** 2 for n, time in times.items()}
        found.append(spreads(each, influences, assumed, noise.run_df))
    return {
        name: _Test(
            float(sides.other.values[name] - sides.one.values[name]) - (clock - 1) * time,
            found[0][name] + found[1][name],
        )
        for name, time in times.items()
    }


def _replay_tests(sides: _Sides, metrics: Sequence[str], noise: NoiseModel) -> dict[str, _Test]:
    """Counts in the steps that replay graphs, where others record them.

    A step that records launches hundreds of kernels: one more or fewer of those in a run drowns what every other step
    launches.
    """
    replays = (pl.col("graph_launches") > 0) & (pl.col("captures") == 0)
    whole = (sides.base, sides.candidate)
    both = [Side(side.rows.filter(replays), side.runs) for side in whole]
    if all(side.rows.height == all_of.rows.height for side, all_of in zip(both, whole, strict=True)):
        return {}
    if any(side.rows.height < all_of.rows.height / 2 for side, all_of in zip(both, whole, strict=True)):
        return {}
    strata = find_strata(both[0].rows, both[1].rows)
    counts = [name for name in metrics if _is_count(name)]
    one, other = (estimate(side, strata) for side in both)
    found = [spreads(each, each.influences.select(counts), dict.fromkeys(counts, 0.0), noise.run_df)
             for each in (one, other)]  # fmt: skip
    return {
        name: _Test(float(other.values[name] - one.values[name]), found[0][name] + found[1][name]) for name in counts
    }


def _is_count(metric: str) -> bool:
    return metric != STEP_TIME and "." not in metric


def _line(path: str, metric: str, sides: _Sides, *, raw: _Test, beyond: _Test | None, floor: float) -> _Tested:
    base = float(sides.one.values[metric])
    low, high = raw.interval()
    around = (None, None) if beyond is None else beyond.interval()
    line = Line(
        path=path,
        kind="count" if _is_count(metric) else "time",
        base=base,
        candidate=float(sides.other.values[metric]),
        diff=raw.diff,
        low=low,
        high=high,
        beyond_clock=None if beyond is None else beyond.diff,
        beyond_low=around[0],
        beyond_high=around[1],
    )
    return _Tested(line, raw, beyond, floor * base)


def _path(metric: str) -> str:
    group, dot, name = metric.partition(".")
    if dot:
        return f"{_KERNEL_GROUPS.get(group, group)}.{name}"
    return metric if metric == STEP_TIME else f"{metric}_per_token"


def _judged(tested: Sequence[_Tested], sides: _Sides, noise: NoiseModel) -> list[Line]:
    notes = [_no_verdict(one.line, sides, noise) for one in tested]
    open_ones = [one for one, note in zip(tested, notes, strict=True) if note is None and not one.certain]
    held = {one.line.path: False for one in tested} | dict(
        zip([one.line.path for one in open_ones], holm([one.tail for one in open_ones], noise.level), strict=True)
    )
    elsewhere = _other_context(held, tested, sides.strata.kind)
    lines = []
    for one, reason in zip(tested, notes, strict=True):
        note = reason or _by_context(one.line, other_context=elsewhere)
        if note is not None:
            lines.append(_without_verdict(one.line, note))
        elif not held[one.line.path]:
            lines.append(replace(one.line, verdict="no change"))
        else:
            words: tuple[Verdict, Verdict] = ("slower", "faster") if one.line.kind == "time" else ("more", "fewer")
            lines.append(replace(one.line, verdict=words[0] if one.direction > 0 else words[1]))
    return sorted(lines, key=_order)


def _order(line: Line) -> tuple[int, float, str]:
    groups = ("ledger", "categories", "quants", "kernels")
    group = line.name.partition(".")[0]
    rank = groups.index(group) if group in groups else len(groups)
    return rank, -max(line.base, line.candidate) if rank < len(groups) else 0.0, line.path


def _no_verdict(line: Line, sides: _Sides, noise: NoiseModel) -> str | None:
    """Why a line gets no verdict, None when it gets one."""
    group, _, name = line.name.partition(".")
    if group == "ledger" and name in {"kernel", "graph"}:
        return f"part of {WORK}"
    if group in _KERNEL_GROUPS.values() and _hidden(sides):
        return "whole graphs hide kernels"
    small = max(line.base, line.candidate) < noise.material * float(sides.one.values[STEP_TIME])
    return "too small to matter" if line.kind == "time" and small else None


def _by_context(line: Line, *, other_context: bool) -> str | None:
    """Attention reads the cache: where contexts differ and could not be told apart, its cost says nothing."""
    return "another context" if other_context and _ATTENTION.search(line.name) else None


def _other_context(held: Mapping[str, bool], tested: Sequence[_Tested], strata: str) -> bool:
    uploads = next((one.line for one in tested if one.line.name == "bytes_input_per_token"), None)
    return strata != "context" and uploads is not None and held.get(uploads.path, False)


def _without_verdict(line: Line, note: str) -> Line:
    return replace(line, verdict=None, note=note)


def _raw(side: Side, part: str) -> Fraction:
    return side.raw(f"ledger.{part}")


def _parts(sides: _Sides) -> tuple[Part, ...]:
    """Parts of the raw difference; exact, because the mix is what remains once like was compared with like."""
    raw = sides.candidate.raw(STEP_TIME) - sides.base.raw(STEP_TIME)
    one, other = sides.one.values, sides.other.values
    ledger = {part: other[f"ledger.{part}"] - one[f"ledger.{part}"] for part in PARTS}
    alike = sum(ledger.values(), Fraction())
    by_batch = coarser(sides.strata, sides.base.rows, sides.candidate.rows)
    context = Fraction()
    if by_batch is not None:
        context = _like(sides.candidate, by_batch) - _like(sides.base, by_batch) - alike
    batch = raw - alike - context
    clock = Fraction(sides.clock - 1) * one["ledger.kernel"] if sides.clock is not None else Fraction()
    ledger[WORK] -= clock
    named = {"batch": batch, "context": context, "clock": clock, **ledger}
    return tuple(Part(name, diff) for name, diff in named.items())


def _like(side: Side, strata: Strata) -> Fraction:
    return values_of(side, strata, [STEP_TIME])[STEP_TIME]


def _come_and_gone(sides: _Sides) -> tuple[tuple[tuple[str, float], ...], tuple[tuple[str, float], ...]]:
    """Kernels that only one side runs, with their ns per token, most first."""
    found: list[tuple[tuple[str, float], ...]] = []
    for here, there in ((sides.candidate, sides.base), (sides.base, sides.candidate)):
        names = [name for name in here.metrics if name.startswith("calls.")]
        only = [name.removeprefix("calls.") for name in names if here.rows[name].max() and not there.rows[name].max()]
        costs = [(name, float(here.raw(f"kernel.{name}"))) for name in only]
        found.append(tuple(sorted(costs, key=lambda item: (-item[1], item[0]))))
    return found[0], found[1]
