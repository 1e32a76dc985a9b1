"""The statistics behind the verdicts, against known values and against drawing at random."""

import random
import statistics

import polars as pl
import pytest

from nsyskit.compare.noise import block_length, block_variance, holm, t_quantile, t_tail


@pytest.mark.parametrize(
    ("level", "df", "t"), [(0.05, 1, 12.706), (0.05, 10, 2.2281), (0.01, 4, 4.6041), (0.05, 1e6, 1.96)]
)
def test_quantiles_of_the_t_distribution(level, df, t):
    assert t_quantile(level, df) == pytest.approx(t, rel=1e-3)
    assert t_tail(t, df) == pytest.approx(level, rel=2e-3)


def test_block_variance_is_that_of_drawing_blocks():
    """The exact variance is the limit of a seeded Monte Carlo block bootstrap."""
    rng = random.Random(7)  # noqa: S311
    values, level = [], 0.0
    for _ in range(60):
        level = 0.8 * level + rng.gauss(0, 1)
        values.append(level)
    mean = statistics.fmean(values)
    values = [value - mean for value in values]
    n, size = 60, 5
    draws = [
        sum(values[(start + k) % n] for start in (rng.randrange(n) for _ in range(n // size)) for k in range(size))
        for _ in range(20_000)
    ]
    exact = block_variance(pl.DataFrame({"x": values}), size)[0]
    assert exact == pytest.approx(statistics.pvariance(draws) * n / (n - size), rel=0.05)


def test_blocks_are_longer_where_steps_remember():
    rng = random.Random(3)  # noqa: S311
    free = [rng.gauss(0, 1) for _ in range(200)]
    bound, level = [], 0.0
    for _ in range(200):
        level = 0.9 * level + rng.gauss(0, 1)
        bound.append(level)
    assert block_length(pl.Series(free)) <= 3
    assert block_length(pl.Series(bound)) >= 8
    assert block_length(pl.Series([5] * 50)) == 1


def test_holm():
    assert holm([0.001, 0.02, 0.9], 0.05) == [True, True, False]
    assert holm([0.03, 0.03, 0.03], 0.05) == [False, False, False]
    assert holm([], 0.05) == []
