"""What the text and the page of a fleet say in words."""

from __future__ import annotations

from typing import Final

from nsyskit.fleet.result import FleetResult, Outlier
from nsyskit.report.words import PARTS
from nsyskit.units import human_count, human_ns, human_share, printable

HEADLINES: Final[dict[str, str]] = {
    "decode.ms_per_token": "decode, ms per token",
    "decode.ms_per_step": "decode, ms per step",
    "prefill.ms_per_token": "prefill, ms per token",
    "mixed.ms_per_token": "mixed, ms per token",
    "gpu.busy_share": "GPU busy",
    "sync.share_of_api": "sync share of API time",
}
"""Metrics that are shown before all others."""

_MANY: Final = {"host": "hosts", "rank": "ranks", "trace": "traces"}


def metric_text(value: float | None, unit: str) -> str:
    """A metric's value for people."""
    if value is None:
        return "–"
    if unit == "share":
        return human_share(value)
    if unit in {"ms", "ns"}:
        return human_ns(value * (1e6 if unit == "ms" else 1))
    return f"{value:,.4g}"


def headline(result: FleetResult) -> str:
    """What the fleet is, in one line: ``198 traces of 8 hosts; 1 host and 2 traces differ; 3 failed``."""
    told = f"{human_count(result.traces.height)} {_plural('trace', result.traces.height)}"
    hosts = result.traces["host"].drop_nulls().n_unique()
    parts = [f"{told} of {hosts} {_plural('host', hosts)}" if hosts else told]
    differ = {kind: len({one.who for one in result.outliers if one.kind == kind}) for kind in _MANY}
    listed = [f"{number} {_plural(kind, number)}" for kind, number in differ.items() if number]
    if listed:
        one = sum(differ.values()) == 1
        parts.append(f"{' and '.join(listed)} {'differs' if one else 'differ'}")
    if result.failed:
        parts.append(f"{len(result.failed)} failed")
    if result.duplicates:
        parts.append(f"{len(result.duplicates)} counted once only")
    return "; ".join(parts)


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"


def outlier_sentence(one: Outlier) -> str:
    """``host-3 (12 traces): decode takes 0.61 ms per token, 25.0 % more than its 84 peers …``."""
    who = one.who if one.kind == "trace" else f"{'rank ' if one.kind == 'rank' else ''}{one.who} ({one.traces} traces)"
    more = "more" if one.value > one.expected else "less"
    if one.unit == "share":
        told = (
            f"its GPU is busy {human_share(one.value)} of the time, its {one.peers} peers {human_share(one.expected)}"
        )
    else:
        phase = one.metric.partition(".")[0]
        per = one.metric.rpartition("_")[2]
        took, peers = metric_text(one.value, one.unit), metric_text(one.expected, one.unit)
        told = (
            f"{phase} takes {took} per {per}, {human_share(abs(one.ratio))} {more} than its {one.peers} peers ({peers})"
        )
    return printable(f"{who}: {told}{_because(one)}")


def _because(one: Outlier) -> str:
    if one.part is None or one.part_value is None or one.part_expected is None:
        return ""
    shown = part_text(one, one.part_value), part_text(one, one.part_expected)
    return f"; most of that is time {PARTS[one.part]}: {shown[0]} instead of {shown[1]}"


def part_text(one: Outlier, value: float) -> str:
    """A value of the ledger that an outlier is explained by."""
    return human_share(value) if one.unit == "share" else human_ns(value)


def part_share(one: Outlier) -> float | None:
    """How much of the whole difference the named part makes; above 1 where others made up for some of it."""
    if one.part_value is None or one.part_expected is None:
        return None
    whole = (one.value - one.expected) * (-1 if one.unit == "share" else 1e6)
    return (one.part_value - one.part_expected) / whole if whole else None
