"""One side of a comparison: what everything costs per token, and how each step moves that number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import polars as pl

from nsyskit.compare.noise import block_length, block_variance
from nsyskit.compare.sample import STEP_TIME, PhaseSample
from nsyskit.compare.strata import Strata

_KEYS = ("run", "n_tokens", "bytes_input", "stratum")


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """All timed steps of one phase, of all runs of a side; ``run`` numbers the runs."""

    rows: pl.DataFrame
    runs: int

    @property
    def tokens(self) -> int:
        return int(self.rows["n_tokens"].sum())

    @property
    def metrics(self) -> list[str]:
        return [name for name in self.rows.columns if name not in _KEYS or name == "bytes_input"]

    def raw(self, metric: str) -> Fraction:
        """Per token over all steps, whatever they are like."""
        return Fraction(int(self.rows[metric].sum()), self.tokens)


def pooled(samples: Sequence[PhaseSample], metrics: Sequence[str] = ()) -> Side:
    """The runs of a side, one after the other; ``metrics`` are columns to add (as zeros) where a side lacks them."""
    frames = [sample.steps.with_columns(run=pl.lit(at)) for at, sample in enumerate(samples)]
    rows = pl.concat(frames, how="diagonal")
    rows = rows.with_columns(pl.lit(0, pl.Int64).alias(name) for name in metrics if name not in rows.columns)
    return Side(rows.fill_null(0), len(samples))


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What a side costs per token, each stratum weighted alike on both sides.

    Attributes:
        values: metric -> exact value per token.
        influences: one row a step, one column a metric: by how much the step pulls the value. They sum to zero.
        run: the run of each step; runs: how many there are.
        length: steps a block of the bootstrap.
    """

    values: Mapping[str, Fraction]
    influences: pl.DataFrame
    run: pl.Series
    runs: int
    length: int


def values_of(side: Side, strata: Strata, metrics: Sequence[str]) -> dict[str, Fraction]:
    """Per token, by the weights of the strata; exact."""
    sums = side.rows.with_columns(strata.key()).group_by("stratum").agg(pl.col("n_tokens", *metrics).sum())
    found = dict.fromkeys(metrics, Fraction())
    for row in sums.iter_rows(named=True):
        weight = strata.weights.get(row["stratum"])
        if weight is not None:
            per_token = weight / row["n_tokens"]
            for metric in metrics:
                found[metric] += per_token * row[metric]
    return found


def estimate(side: Side, strata: Strata) -> Estimate:
    """Values and influences of every metric."""
    metrics = side.metrics
    rows = side.rows.with_columns(strata.key())
    weights = pl.DataFrame(
        {"stratum": list(strata.weights), "weight": [float(weight) for weight in strata.weights.values()]}
    )
    rows = rows.join(weights, on="stratum", how="left", maintain_order="left").with_columns(
        pl.col("weight").fill_null(0.0)
    )
    tokens, count = pl.col("n_tokens").sum().over("stratum"), pl.len().over("stratum")
    lost = (count / (count - 1)).sqrt()  # each stratum's own mean is taken off
    scale = pl.when(count > 1).then(pl.col("weight") / tokens * lost).otherwise(0.0)
    influences = rows.select(
        ((pl.col(metric) - pl.col(metric).sum().over("stratum") / tokens * pl.col("n_tokens")) * scale).alias(metric)
        for metric in metrics
    )
    lengths = [block_length(influences[STEP_TIME].filter(rows["run"] == run)) for run in range(side.runs)]
    return Estimate(values_of(side, strata, metrics), influences, rows["run"], side.runs, max(lengths))


@dataclass(frozen=True, slots=True)
class Spread:
    """Variance of a value and the degrees of freedom behind it."""

    variance: float
    df: float

    def __add__(self, other: Spread) -> Spread:
        variance = self.variance + other.variance
        weight = self.variance**2 / self.df + other.variance**2 / other.df
        return Spread(variance, variance**2 / weight if weight else min(self.df, other.df))


def spreads(
    found: Estimate, influences: pl.DataFrame, assumed: Mapping[str, float], run_df: float
) -> dict[str, Spread]:
    """How sure each value is, one column of influences each.

    Within runs by the block bootstrap; from run to run by what is assumed (a variance of one run) until repetitions
    say it themselves: the assumption weighs ``run_df`` degrees of freedom, each further run one.
    """
    runs = [influences.filter(found.run == run) for run in range(found.runs)]
    within = [block_variance(run, min(found.length, max(1, run.height))) for run in runs if run.height]
    blocks = max(2.0, 1.5 * influences.height / found.length)  # overlapping blocks tell more than disjoint ones
    observed = influences.with_columns(run=found.run).group_by("run").agg(pl.all().sum())
    between = observed.select((pl.exclude("run") ** 2).sum()).row(0)
    repeated = found.runs - 1
    result = {}
    for at, name in enumerate(influences.columns):
        inside = sum(run[at] for run in within)
        inside = inside if math.isfinite(inside) else 0.0
        prior = Spread(inside, blocks - 1) + Spread(assumed[name] / found.runs, run_df)
        seen = between[at] * found.runs / repeated if repeated else 0.0
        mixed = (run_df * prior.variance + repeated * seen) / (run_df + repeated)
        result[name] = Spread(mixed, max(1.0, prior.df) + repeated)
    return result
