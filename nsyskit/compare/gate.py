"""Gates: limits on a comparison's numbers that a build must keep, decided beyond noise."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from nsyskit.compare.result import Comparison, Line, PhaseComparison
from nsyskit.errors import UsageError

Outcome = Literal["passed", "violated", "within noise", "undecided"]
PHASES: Final = ("prefill", "decode", "mixed")
_GATE: Final = re.compile(
    r"\s*(?P<metric>[^<>=]+?)\s*(?P<sign><=|>=)\s*(?P<value>[+-]?\d+(?:\.\d+)?)\s*(?P<unit>%|ns|us|µs|ms|s)?\s*"
)
_NS: Final = {"ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}
_HINT: Final = "write for instance 'decode.ms_per_token<=+3%' or 'launches_per_token<=+0'"


@dataclass(frozen=True, slots=True)
class Gate:
    """One limit.

    Attributes:
        text: as it was written.
        metric: a line's path, with or without its phase; without one it holds in every phase.
        upper: ``<=``; else ``>=``.
        value: a share where ``relative`` and ``unit`` is ``%``, else ns or a count.
        relative: the value limits the difference from the baseline (it was written with a sign), not the number itself.
    """

    text: str
    metric: str
    upper: bool
    value: float
    unit: str
    relative: bool


@dataclass(frozen=True, slots=True)
class GateResult:
    """A gate on one line of the comparison. ``limit`` is the largest (smallest) difference that passes."""

    gate: Gate
    outcome: Outcome
    path: str
    diff: float | None = None
    limit: float | None = None
    base: float | None = None
    kind: str | None = None
    reason: str | None = None


def parse_gate(text: str) -> Gate:
    """Read ``decode.ms_per_token<=+3%``.

    Raises:
        UsageError: the text is no gate.
    """
    match = _GATE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no gate", hint=_HINT)
    value, unit = float(match["value"]), match["unit"] or ""
    relative = match["value"][0] in "+-"
    if unit == "%" and not relative:
        raise UsageError(f"{text!r} limits a share without a sign", hint=_HINT)
    scale = 0.01 if unit == "%" else _NS.get(unit, 1.0)
    return Gate(text.strip(), match["metric"], match["sign"] == "<=", value * scale, unit, relative)


def read_gates(path: Path) -> tuple[Gate, ...]:
    """Gates of a TOML file: ``gates = ["decode.ms_per_token<=+3%"]`` or a table ``[gates]`` of metric = "<=+3%".

    Raises:
        UsageError: the file cannot be read or holds no gates.
    """
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            f"{path} holds no gates: {error}", hint='write gates = ["decode.ms_per_token<=+3%"]'
        ) from error
    found = document.get("gates")
    if isinstance(found, dict):
        found = [f"{metric}{limit}" for metric, limit in found.items()]
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise UsageError(f"{path} holds no gates", hint='write gates = ["decode.ms_per_token<=+3%"]')
    return tuple(parse_gate(one) for one in found)


def check(comparison: Comparison, gates: Sequence[Gate]) -> tuple[GateResult, ...]:
    """Every gate on every line it limits.

    Raises:
        UsageError: the comparison has no such number.
    """
    return tuple(result for gate in gates for result in _check(comparison, gate))


def exit_code(results: Sequence[GateResult]) -> int:
    """1 when a gate is violated beyond noise, 2 when one cannot be decided, else 0."""
    outcomes = {result.outcome for result in results}
    return 1 if "violated" in outcomes else 2 if "undecided" in outcomes else 0


def _check(comparison: Comparison, gate: Gate) -> list[GateResult]:
    if not comparison.phases:
        return [GateResult(gate, "undecided", gate.metric, reason="the runs are not comparable")]
    head, dot, rest = gate.metric.partition(".")
    named = dot and head in PHASES
    phases = [one for one in comparison.phases if not named or one.phase == head]
    if not phases:
        return [GateResult(gate, "undecided", gate.metric, reason=f"no {head} on both sides")]
    metric = rest if named else gate.metric
    found = [(one, line) for one in phases if (line := _find(one, metric)) is not None]
    if not found:
        raise UsageError(f"the comparison has no number {metric!r}", hint=f"it has {_offered(phases[0])}")
    enough = [(one, line) for one, line in found if one.total.verdict != "too few steps"]
    if not enough:
        return [GateResult(gate, "undecided", line.path, reason="too few steps") for _, line in found]
    return [_decided(gate, line) for _, line in enough]


def _find(phase: PhaseComparison, metric: str) -> Line | None:
    lines = {line.name: line for line in (phase.total, *phase.lines)}
    return lines.get(metric) or lines.get(f"ledger.{metric}") or lines.get(f"categories.{metric}")


def _offered(phase: PhaseComparison) -> str:
    plain = [line.name for line in (phase.total, *phase.lines) if not line.name.startswith(("kernels.", "quants."))]
    return ", ".join(plain)


def _decided(gate: Gate, line: Line) -> GateResult:
    if line.kind == "time" and not gate.unit and gate.value:
        raise UsageError(f"{gate.text!r} limits a time without a unit", hint=f"write ms, us, ns or %: {_HINT}")
    limit = gate.value * (line.base if gate.unit == "%" else 1) - (0 if gate.relative else line.base)
    sign = 1 if gate.upper else -1
    over = sign * (line.diff - limit)
    surely = sign * ((line.low if gate.upper else line.high) - limit)
    if line.beyond_clock is not None and line.beyond_low is not None and line.beyond_high is not None:
        over = max(over, sign * (line.beyond_clock - limit))
        surely = max(surely, sign * ((line.beyond_low if gate.upper else line.beyond_high) - limit))
    outcome: Outcome = "passed" if over <= 0 else "violated" if surely > 0 else "within noise"
    return GateResult(gate, outcome, line.path, line.diff, limit, line.base, line.kind)
