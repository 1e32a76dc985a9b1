"""The clock of a capture: Unix time that never jumps."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Clock:
    """Unix time, read once, then counted by the steady clock: somebody may set the machine's clock meanwhile."""

    unix_ns: int = field(default_factory=time.time_ns)
    steady_ns: int = field(default_factory=time.perf_counter_ns)

    def now_ns(self) -> int:
        return self.unix_ns + time.perf_counter_ns() - self.steady_ns

    def jump_ns(self) -> int:
        """By how much the machine's clock was set since, or the machine slept; near 0 when neither happened."""
        return time.time_ns() - self.now_ns()
