"""What the renderers of a comparison share: rows to show, parts that still sum when rounded, words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from nsyskit.compare.compare import PART_WORDS, signed_ns, signed_share
from nsyskit.compare.gate import GateResult
from nsyskit.compare.result import Comparison, Line, PhaseComparison
from nsyskit.units import human_bytes, human_ns, rounded

KERNELS_SHOWN: Final = 8
_DETAIL: Final = 0.005


@dataclass(frozen=True, slots=True)
class PartRow:
    """A part of the difference: ``ns`` are whole nanoseconds that sum to the whole."""

    name: str
    words: str
    ns: int


@dataclass(frozen=True, slots=True)
class LineRow:
    """A line as it is read."""

    name: str
    base: str
    candidate: str
    diff: str
    interval: str
    verdict: str
    changed: bool


def part_rows(found: PhaseComparison) -> tuple[list[PartRow], int]:
    """The parts that are not nothing, largest first, and their sum; rounded so that they still sum."""
    parts = [part for part in found.parts if part.diff]
    whole = _whole_ns([part.diff for part in parts], round(found.raw_diff))
    rows = [PartRow(p.name, PART_WORDS[p.name], ns) for p, ns in zip(parts, whole, strict=True)]
    return sorted(rows, key=lambda row: (-abs(row.ns), row.name)), round(found.raw_diff)


def _whole_ns(values: Sequence[Fraction], total: int) -> list[int]:
    """Integers that sum to ``total``, each next to its value: the largest remainders are rounded up."""
    floors = [value.numerator // value.denominator for value in values]
    left = total - sum(floors)
    order = sorted(range(len(values)), key=lambda at: (floors[at] - values[at], at))
    for at in order[:left]:
        floors[at] += 1
    return floors


def micros(ns: int) -> str:
    """Whole nanoseconds as µs with a sign: ``+12.345``."""
    sign = "+" if ns >= 0 else "−"
    return f"{sign}{abs(ns) // 1000:,}.{abs(ns) % 1000:03d}"


def line_rows(found: PhaseComparison, *, every: bool = False) -> list[LineRow]:
    """The lines worth showing: what changed, and what is large enough; ``every`` shows all."""
    total = found.total
    shown = [line for line in found.lines if every or line.changed or _is_large(line, total)]
    kernels = [line for line in shown if line.name.startswith("kernels.")]
    hidden = set() if every else {line.path for line in kernels[KERNELS_SHOWN:] if not line.changed}
    return [row(total), *(row(line) for line in shown if line.path not in hidden)]


def _is_large(line: Line, total: Line) -> bool:
    if line.note and line.note.startswith("part of"):
        return False
    if line.kind == "time":
        return max(line.base, line.candidate) >= _DETAIL * total.base
    return bool(line.base or line.candidate)


def row(line: Line) -> LineRow:
    """One line as text."""
    low, high = (value_text(line, value, signed=True) for value in (line.low, line.high))
    return LineRow(
        name=line.name,
        base=value_text(line, line.base),
        candidate=value_text(line, line.candidate),
        diff="0" if line.diff == 0 else signed_share(line.share) if line.share is not None else "new",
        interval=f"{low} … {high}" if line.low != line.high else "exact",
        verdict=_verdict(line),
        changed=line.changed,
    )


def _verdict(line: Line) -> str:
    if line.verdict is None:
        return f"– ({line.note})" if line.note else "–"
    beyond = line.beyond_clock is not None and line.changed and not line.low > 0 and not line.high < 0
    if not beyond:
        return line.verdict
    what = "beyond the clock" if line.kind == "time" else "in steps that replay graphs"
    return f"{line.verdict} ({what}: {value_text(line, line.beyond_clock or 0, signed=True)})"


def value_text(line: Line, value: float, *, signed: bool = False) -> str:
    """A value of a line in its unit."""
    if line.kind == "time":
        return signed_ns(value) if signed else human_ns(value)
    sign = ("+" if value >= 0 else "−") if signed else ""
    magnitude = abs(value) if signed else value
    text = human_bytes(magnitude) if line.name.startswith("bytes") else _count(magnitude)
    return sign + text


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else rounded(value, 3 if value < 1 else 2)


def gate_text(result: GateResult) -> str:
    """One gate's outcome in a line."""
    word = {"passed": "passed", "violated": "VIOLATED", "within noise": "over the limit, but within noise"}
    if result.diff is None or result.limit is None:
        return f"{result.gate.text}: undecided, {result.reason}"
    diff, limit = (_gate_value(result, value) for value in (result.diff, result.limit))
    return f"{result.gate.text}: {word[result.outcome]} ({result.path} {diff}, limit {limit})"


def _gate_value(result: GateResult, value: float) -> str:
    if result.kind == "time":
        share = f" ({signed_share(value / result.base)})" if result.base else ""
        return f"{signed_ns(value)}{share}"
    return f"{value:+.4g}"


def sides(comparison: Comparison) -> str:
    one, other = len(comparison.base), len(comparison.candidate)
    words = [f"{count} run{'' if count == 1 else 's'}" for count in (one, other)]
    return f"{words[0]} of the baseline, {words[1]} of the candidate"
