"""Random durations that look measured: a spread per call, a mood that lasts some steps, a clock that drifts slowly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from traces.synth.tape import F64, I64


@dataclass(frozen=True, slots=True)
class Spread:
    """How far durations stray from their base.

    Attributes:
        sigma: of the logarithm, drawn afresh for every call.
        mood: of the logarithm, drawn once a step and correlated from one step to the next.
        memory: how much of the mood the next step keeps, 0 to 1.
        drift: amplitude of the slow drift of the clock, as a share.
    """

    sigma: float
    mood: float
    memory: float
    drift: float = 0.0


GPU = Spread(sigma=0.03, mood=0.01, memory=0.9, drift=0.015)
HOST = Spread(sigma=0.18, mood=0.04, memory=0.8)
CPU = Spread(sigma=0.06, mood=0.05, memory=0.85, drift=0.01)
WAKE = Spread(sigma=0.35, mood=0.02, memory=0.5)

_DRIFT_PERIOD_NS = 7.3e9
_BUFFER = 8192


class Noise:
    """Seeded source of durations. Every draw moves it: the same calls in the same order give the same numbers."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self._moods: dict[int, float] = {}
        self._spreads = (GPU, HOST, CPU, WAKE)
        self._phase = float(self.rng.uniform(0, 2 * math.pi))
        self._normals: list[float] = []
        self.next_step()

    def next_step(self) -> None:
        """Let the moods wander."""
        for spread in self._spreads:
            fresh = self._normal() * spread.mood * math.sqrt(1 - spread.memory**2)
            self._moods[id(spread)] = self._moods.get(id(spread), 0.0) * spread.memory + fresh

    def one(self, base_ns: float, spread: Spread, now: int = 0) -> int:
        """A duration around ``base_ns``, at least 1 ns."""
        factor = math.exp(self._normal() * spread.sigma - spread.sigma**2 / 2) * self._scale(spread, now)
        return max(1, round(base_ns * factor))

    def many(self, base_ns: F64 | float, count: int, spread: Spread, now: int = 0) -> I64:
        """Durations around ``base_ns``, at least 1 ns each."""
        factor = np.exp(self.rng.standard_normal(count) * spread.sigma - spread.sigma**2 / 2)
        return np.maximum(np.rint(factor * (base_ns * self._scale(spread, now))), 1.0).astype(np.int64)

    def _scale(self, spread: Spread, now: int) -> float:
        drift = spread.drift * math.sin(self._phase + 2 * math.pi * now / _DRIFT_PERIOD_NS)
        return math.exp(self._moods[id(spread)]) * (1 + drift)

    def _normal(self) -> float:
        if not self._normals:
            self._normals = self.rng.standard_normal(_BUFFER).tolist()
        return self._normals.pop()
