"""What a comparison found: frozen values for the renderers, the gate and the history."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from nsyskit.compare.noise import NoiseModel

Verdict = Literal["faster", "slower", "more", "fewer", "no change", "too few steps"]
LineKind = Literal["time", "count"]
Comparable = Literal["yes", "marked", "no"]

MIN_RUNS: Final = 3
"""Fewer runs a side cannot show how much runs differ among themselves."""


@dataclass(frozen=True, slots=True)
class Line:
    """One number per token on both sides, like with like. Times are ns, counts are counts or bytes.

    Attributes:
        path: ``decode.ledger.host``, ``decode.categories.attention``, ``decode.launches_per_token``, ….
        low, high: the confidence interval (95 %) of ``diff``.
        beyond_clock: of a time, the difference without what all kernels share; of a count, the difference in steps
            that replay graphs, where others record them; None where that is not known or of no matter.
        beyond_low, beyond_high: its confidence interval.
        verdict: None where none is due; ``note`` says why.
    """

    path: str
    kind: LineKind
    base: float
    candidate: float
    diff: float
    low: float
    high: float
    beyond_clock: float | None = None
    beyond_low: float | None = None
    beyond_high: float | None = None
    verdict: Verdict | None = None
    note: str | None = None

    @property
    def name(self) -> str:
        """The path without its phase."""
        return self.path.partition(".")[2]

    @property
    def share(self) -> float | None:
        """The difference as a share of the baseline; None when that is 0."""
        return self.diff / self.base if self.base else None

    @property
    def changed(self) -> bool:
        return self.verdict in {"faster", "slower", "more", "fewer"}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the difference in time per token, in ns, exact."""

    name: str
    diff: Fraction


@dataclass(frozen=True, slots=True)
class PhaseComparison:
    """One phase.

    Attributes:
        total: the time per token, like with like.
        raw_base, raw_candidate: the time per token over all steps, in ns, exact.
        parts: of ``raw_candidate - raw_base``; they sum to it exactly. ``batch`` and ``context`` are what the load
            brings, ``clock`` what all kernels share, then the parts of the ledger (``kernels`` is kernel and
            whole-graph time together).
        ledgers: part of the ledger -> its ns per token over all steps on both sides; they sum to the raw times.
        strata, overlap: how finely steps were told apart, and the share of tokens that has its like on the other side.
        clock: by which factor all kernels alike differ; None where kernels are hidden or of different GPUs.
        new_kernels, vanished_kernels: with their ns per token.
        cause: what moved the time per token most: a part's name, ``batch``, ``graphs``, ``offload``, or None.
    """

    phase: str
    base_steps: int
    candidate_steps: int
    base_tokens: int
    candidate_tokens: int
    total: Line
    raw_base: Fraction
    raw_candidate: Fraction
    parts: tuple[Part, ...]
    ledgers: tuple[tuple[str, Fraction, Fraction], ...]
    lines: tuple[Line, ...]
    strata: str
    overlap: float
    clock: float | None
    new_kernels: tuple[tuple[str, float], ...]
    vanished_kernels: tuple[tuple[str, float], ...]
    cause: str | None
    sentence: str

    @property
    def raw_diff(self) -> Fraction:
        return self.raw_candidate - self.raw_base


@dataclass(frozen=True, slots=True)
class SetupDifference:
    """A fact that the sides do not share; None where a side does not tell it."""

    name: str
    base: str | None
    candidate: str | None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why runs cannot be compared (``refused``) or only with care (``marked``); ``code`` is for scripts."""

    level: Literal["refused", "marked", "note"]
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides of runs.

    Attributes:
        verdict: of the phase that matters: ``slower`` when any phase is, else ``faster`` when any is.
        phases: empty when the runs are not comparable.
    """

    base: tuple[str, ...]
    candidate: tuple[str, ...]
    comparable: Comparable
    reasons: tuple[Reason, ...]
    setup: tuple[SetupDifference, ...]
    shared_setup: tuple[tuple[str, str], ...]
    phases: tuple[PhaseComparison, ...]
    verdict: str
    sentence: str
    noise: NoiseModel

    def phase(self, name: str) -> PhaseComparison | None:
        return next((one for one in self.phases if one.phase == name), None)

    def lines(self) -> tuple[Line, ...]:
        return tuple(line for one in self.phases for line in (one.total, *one.lines))
