"""How sure a difference is: block bootstrap over steps, run-to-run noise, t quantiles.

Steps of a run are autocorrelated (clocks, caches, queues), so whole blocks of neighbours are resampled. The variance
over all block resamplings is worked out exactly instead of drawn: it is the number of blocks times the variance of one
circular block's sum, so no random number enters and equal input gives equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import polars as pl

_MIN_BLOCKS: Final = 6


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """What is assumed of runs until runs themselves say it, and when a difference counts.

    Attributes:
        floor: differences below this share of the baseline are never called a change.
        gpu_run: standard deviation, from run to run, of all GPU work together (clocks, temperature), as a share.
        kernel_run: the same of one kernel against the others of its run.
        host_run: the same of idle and host time.
        run_df: degrees of freedom that these assumptions weigh; observed repetitions add theirs.
        level: chance that anything of one kind (totals; details) is called a change in two equal runs.
        min_steps: fewer steps of a phase on a side decide nothing.
        material: share of the time per token below which a part's change is not worth a verdict.
    """

    floor: float = 0.02
    gpu_run: float = 0.010
    kernel_run: float = 0.004
    host_run: float = 0.020
    run_df: float = 20.0
    level: float = 0.05
    min_steps: int = 8
    material: float = 0.002


def block_length(values: pl.Series) -> int:
    """Steps a block: where the autocorrelation dies out, doubled; at most a sixth of the run."""
    n = len(values)
    limit = max(1, n // _MIN_BLOCKS)
    spread = values - float(values.mean() or 0.0)  # type: ignore[arg-type]
    power = float((spread * spread).sum())
    if power <= 0 or limit == 1:
        return 1
    threshold = 2 * math.sqrt(math.log10(max(n, 10)) / n)  # Politis and White 2004: correlations below are noise
    lag, quiet = 0, 0
    while lag < limit and quiet < 3:
        lag += 1
        correlation = float((spread.head(n - lag) * spread.slice(lag)).sum()) / power
        quiet = quiet + 1 if abs(correlation) < threshold else 0
    return min(limit, max(1, 2 * (lag - quiet)))


def block_variance(influences: pl.DataFrame, length: int) -> list[float]:
    """Variance of each column's sum over all circular block resamplings. The columns sum to about zero."""
    n = influences.height
    if n < 2:
        return [math.inf] * influences.width
    wrapped = pl.concat([influences, influences.head(length - 1)]) if length > 1 else influences
    sums = wrapped.select(pl.all().rolling_sum(length)).slice(length - 1)
    blocks = n / length
    correction = n / max(1.0, n - length)  # block sums are centred on the run's own mean
    return [blocks * correction * float(value or 0.0) for value in sums.select(pl.all().var(ddof=0)).row(0)]


def t_tail(t: float, df: float) -> float:
    """P(|T| > t) of Student's t with ``df`` degrees of freedom.

    >>> round(t_tail(2.228, 10), 3)
    0.05
    """
    if math.isinf(t):
        return 0.0
    return _incomplete_beta(df / (df + t * t), df / 2, 0.5)


@lru_cache(maxsize=4096)
def t_quantile(level: float, df: float) -> float:
    """The t beyond which (both sides) lies ``level``."""
    low, high = 0.0, 1.0
    while t_tail(high, df) > level and high < 1e6:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, df) > level else (low, middle)
    return high


def holm(tails: Sequence[float], level: float) -> list[bool]:
    """Which of several tests hold together at ``level`` (Holm 1979)."""
    order = sorted(range(len(tails)), key=lambda at: tails[at])
    held = [False] * len(tails)
    for rank, at in enumerate(order):
        if tails[at] > level / (len(tails) - rank):
            break
        held[at] = True
    return held


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function by its continued fraction (Lentz)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(1 - x, b, a)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    ) / a  # fmt: skip
    return front * (_fraction(x, a, b) - 1)


def _fraction(x: float, a: float, b: float) -> float:
    tiny = 1e-300
    value, c, d = 1.0, 1.0, 0.0
    for i in range(400):
        m = i // 2
        if i == 0:
            numerator = 1.0
        elif i % 2 == 0:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / (1 + numerator * d or tiny)
        c = 1 + numerator / c or tiny
        value *= c * d
        if abs(1 - c * d) < 1e-12:
            break
    return value
