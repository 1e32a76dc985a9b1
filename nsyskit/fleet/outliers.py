"""Hosts, ranks and traces that differ from their peers, and the part of the ledger that makes the difference.

Peers ran the same program with the same model, build, flags and GPU. What differs lies further from the median of the
others than both a floor and several of their robust standard deviations (1.4826 times the median absolute deviation);
with few others more of those, since their spread is then hardly known. Where more than a third differ, none does.

A host's or rank's median scatters less than one trace: by the root of its traces, unless the medians of the others
already scatter more than that. Decode is judged per step, not per token: how many sequences a batch held is the load's
doing, not the host's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median
from typing import Final

import polars as pl

from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.step_costs import LEDGER_PARTS
from nsyskit.fleet.result import Outlier

MIN_OTHERS: Final = 4
"""Traces that one is held against, at least."""
MIN_OTHER_GROUPS: Final = 2
FLOOR: Final = 0.05
"""Of the expected time; of shares, the difference itself."""
JUDGED: Final = {"decode.ms_per_step": "ms", "prefill.ms_per_token": "ms", "gpu.busy_share": "share"}
"""Metric -> unit; the last only of traces without steps."""
_DEVIATIONS: Final = 5.0
_HARDLY_KNOWN: Final = 6
"""So many others or fewer do not tell their own spread: that of 4 is off by half as often as not.

Of simulated fleets without any difference (3 to 8 hosts with one or two traces each, noise normal of 3 % or log-normal
of 10 %) 2 to 7 % have something called different; of those with 4 traces on each of 4 to 50 hosts at most 2 %.
"""
_FIFTIETH: Final = 50
_ROBUST: Final = 1.4826
_MEDIAN_ERROR: Final = 1.2533
"""A median scatters more than a mean by this."""
_NOT_SETUP: Final = frozenset({"nsys", "sources", "driver"})
"""Facts that do not keep two traces from being compared."""


@dataclass(frozen=True, slots=True)
class _One:
    """A trace's value of a metric, and who ran it."""

    trace: int
    name: str
    host: str | None
    rank: str | None
    value: float


def outliers(
    traces: pl.DataFrame, setup: pl.DataFrame, metrics: pl.DataFrame, *, floor: float = FLOOR
) -> tuple[Outlier, ...]:
    """Everything that differs, furthest first; frames as in ``FleetResult``, of trusted traces only."""
    cells, shown = _cells(traces, setup)
    values = {
        str(name): {int(t): float(v) for t, v in frame.select("trace", "value").iter_rows()}
        for (name,), frame in metrics.partition_by("metric", as_dict=True).items()
    }
    who = {row["trace"]: row for row in traces.select("trace", "name", "host", "rank").iter_rows(named=True)}
    found: list[Outlier] = []
    stepped = set().union(*(values.get(f"{phase}.ms_per_token", {}) for phase in ("decode", "prefill", "mixed")))
    for metric, unit in JUDGED.items():
        for key, members in cells.items():
            ones = [
                _One(trace, who[trace]["name"], who[trace]["host"], who[trace]["rank"], values[metric][trace])
                for trace in members
                if trace in values.get(metric, {}) and (unit != "share" or trace not in stepped)
            ]
            found += _in_cell(ones, metric, unit, values, floor=floor, cell=shown[key])
    return tuple(sorted(found, key=lambda one: (-abs(one.ratio), one.metric, one.kind, one.who)))


def _cells(traces: pl.DataFrame, setup: pl.DataFrame) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Traces by what they have in common, and that in words, as far as it differs between cells."""
    facts: dict[int, dict[str, str]] = {trace: {} for trace in traces["trace"]}
    for trace, fact, value in setup.iter_rows():
        if trace in facts and fact not in _NOT_SETUP:
            facts[trace][fact] = value
    names = sorted({fact for one in facts.values() for fact in one})
    differ = [name for name in names if len({one.get(name) for one in facts.values()}) > 1]
    cells: dict[str, list[int]] = {}
    shown = {}
    for trace, one in facts.items():
        key = "\0".join(f"{name}={one.get(name, '')}" for name in names)
        cells.setdefault(key, []).append(trace)
        shown[key] = ", ".join(f"{name} {one[name]}" for name in differ if name in one)
    return cells, shown


def _in_cell(
    ones: Sequence[_One], metric: str, unit: str, values: Mapping[str, Mapping[int, float]], *, floor: float, cell: str
) -> list[Outlier]:
    peers = _Peers(ones, metric, values)
    found: list[Outlier] = []
    named: set[int] = set()
    for kind in ("host", "rank", "trace"):
        groups: dict[str, list[_One]] = {}
        for one in ones:
            label = one.name if kind == "trace" else one.host if kind == "host" else one.rank
            if label is not None and (kind != "trace" or one.trace not in named):
                groups.setdefault(label, []).append(one)
        if kind != "trace" and len(groups) - 1 < MIN_OTHER_GROUPS:
            continue
        medians = {label: median(one.value for one in own) for label, own in groups.items()}
        told = []
        for label, own in groups.items():
            if len(ones) - len(own) >= MIN_OTHERS:
                expected, spread = peers.around(own, medians, label)
                limit = max(floor * (1.0 if unit == "share" else abs(expected)), spread)
                if abs(medians[label] - expected) > limit:
                    told.append((label, own, expected, limit))
        if 3 * len(told) <= len(groups):  # where more differ there are two kinds, and none of them is the odd one
            for label, own, expected, limit in told:
                part = peers.part(own, grew=medians[label] > expected)
                found.append(
                    Outlier(kind, label, len(own), metric, unit, medians[label], expected, limit,
                            len(ones) - len(own), *part, cell)
                )  # fmt: skip
                named |= {one.trace for one in own}
    return _without_echoes(found)


class _Peers:
    """The traces of a cell, as those that one of them is held against.

    Each is held against the others; where it is less than a fiftieth of all, against all: its own weight is nothing
    then, and the medians of a hundred thousand are not worked out a hundred thousand times.
    """

    def __init__(self, ones: Sequence[_One], metric: str, values: Mapping[str, Mapping[int, float]]) -> None:
        self._ones, self._metric, self._values = ones, metric, values
        self._phase = metric.partition(".")[0]
        self._whole: tuple[float, float] | None = None
        self._whole_groups: tuple[object, float] | None = None
        self._whole_parts: dict[str, float] = {}

    def around(self, own: Sequence[_One], medians: Mapping[str, float], label: str) -> tuple[float, float]:
        """The median of the others, and how far from it nothing is remarkable."""
        small = len(own) * _FIFTIETH <= len(self._ones)
        if small and self._whole is not None:
            expected, spread = self._whole
        else:
            mine = {one.trace for one in own} if not small else frozenset()
            others = [one.value for one in self._ones if one.trace not in mine]
            expected = median(others)
            spread = _spread(others, expected)
            self._whole = (expected, spread) if small else self._whole
        groups = len(medians) - 1
        if len(own) > 1:
            spread *= _MEDIAN_ERROR / sqrt(len(own))
            if groups >= MIN_OTHERS:
                spread = max(spread, self._between(medians, label, expected, whole=small))
        few = 1 + (_HARDLY_KNOWN / (groups if groups >= MIN_OTHERS else len(self._ones) - len(own))) ** 2
        return expected, _DEVIATIONS * few * spread

    def _between(self, medians: Mapping[str, float], label: str, expected: float, *, whole: bool) -> float:
        """How the medians of the other hosts, or ranks, scatter."""
        if not (whole and len(medians) > _FIFTIETH):
            return _spread([value for other, value in medians.items() if other != label], expected)
        if self._whole_groups is None or self._whole_groups[0] is not medians:
            self._whole_groups = (medians, _spread(list(medians.values()), expected))
        return self._whole_groups[1]

    def part(self, own: Sequence[_One], *, grew: bool) -> tuple[str | None, float | None, float | None]:
        """The ledger part that differs most in the direction of the whole; for a busy share the idle one instead."""
        sign = -1.0 if grew is (self._phase == "gpu") else 1.0
        best: tuple[float, str, float, float] | None = None
        for part in CAUSES if self._phase == "gpu" else LEDGER_PARTS:
            mine, theirs = median(self._ledger(part, one) for one in own), self._usual(part, own)
            if sign * (mine - theirs) > (best[0] if best else 0.0):
                best = (sign * (mine - theirs), part, mine, theirs)
        return (None, None, None) if best is None else best[1:]

    def _usual(self, part: str, own: Sequence[_One]) -> float:
        if len(own) * _FIFTIETH <= len(self._ones):
            if part not in self._whole_parts:
                self._whole_parts[part] = median(self._ledger(part, one) for one in self._ones)
            return self._whole_parts[part]
        mine = {one.trace for one in own}
        return median(self._ledger(part, one) for one in self._ones if one.trace not in mine)

    def _ledger(self, part: str, one: _One) -> float:
        """A part of a trace's ledger, in the metric's own terms: per step, per token, or as a share."""
        value = self._values.get(f"{self._phase}.ledger.{part}", {}).get(one.trace, 0.0)
        if self._metric.endswith("_per_step"):
            return value * self._values.get(f"{self._phase}.tokens_per_step", {}).get(one.trace, 1.0)
        return value


def _spread(values: Sequence[float], around: float) -> float:
    return _ROBUST * median(abs(value - around) for value in values)


def _without_echoes(found: Sequence[Outlier]) -> list[Outlier]:
    """A rank that differs only because it runs on a host that does, or the reverse, is told once: with more traces."""
    kept: list[Outlier] = []
    for one in sorted(found, key=lambda one: (-one.traces, one.kind)):
        same = [other for other in kept if {other.kind, one.kind} == {"host", "rank"} and other.traces == one.traces
                and other.value == one.value]  # fmt: skip
        if not same:
            kept.append(one)
    return kept
