"""Like with like: steps of both sides that decode as many tokens, and at the same context where that can be told."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

import polars as pl

Kind = Literal["context", "batch", "batch size", "none"]
_ENOUGH: Final = 0.5
_MIN_STEPS: Final = 3
_SCARCE: Final = 8
_KEYS: Final[dict[Kind, pl.Expr]] = {
    "context": pl.concat_str(pl.col("n_tokens"), pl.lit(" "), pl.col("bytes_input")),
    "batch": pl.col("n_tokens").cast(pl.String),
    "batch size": pl.col("n_tokens").log(2).floor().cast(pl.Int64).cast(pl.String),
    "none": pl.lit("all"),
}
"""How finely steps are told apart, finest first: tokens and context, tokens, tokens to a power of two, not at all."""


@dataclass(frozen=True, slots=True, eq=False)
class Strata:
    """Which steps are compared with which.

    Attributes:
        kind: the finest way of telling steps apart in which both sides share at least half of their tokens.
        weights: stratum -> its weight: the mean of its shares of the tokens of both sides. They sum to 1.
        overlap: the smaller of the two sides' shares of tokens that lie in shared strata.
    """

    kind: Kind
    weights: dict[str, Fraction]
    overlap: float

    def key(self) -> pl.Expr:
        return _KEYS[self.kind].alias("stratum")


def find_strata(base: pl.DataFrame, candidate: pl.DataFrame) -> Strata:
    """The finest strata in which at least half of each side has its like on the other."""
    for kind in _KEYS:
        found = _strata(kind, base, candidate)
        if found is not None and found.overlap >= _ENOUGH:
            return found
    raise AssertionError("all steps share the stratum of all steps")


def coarser(strata: Strata, base: pl.DataFrame, candidate: pl.DataFrame) -> Strata | None:
    """Strata by batch alone, where the given ones tell contexts apart too."""
    return _strata("batch", base, candidate) if strata.kind == "context" else None


def _strata(kind: Kind, base: pl.DataFrame, candidate: pl.DataFrame) -> Strata | None:
    sides = [_tokens(kind, side) for side in (base, candidate)]
    scarce = min(base.height, candidate.height) < _SCARCE
    few = 1 if kind == "none" or scarce else _MIN_STEPS
    shared = [key for key, (_, count) in sides[0].items() if count >= few and sides[1].get(key, (0, 0))[1] >= few]
    if not shared:
        return None
    totals = [sum(tokens for tokens, _ in side.values()) for side in sides]
    inside = [sum(side[key][0] for key in shared) for side in sides]
    weights = {
        key: sum((Fraction(side[key][0], own) for side, own in zip(sides, inside, strict=True)), Fraction()) / 2
        for key in sorted(shared)
    }
    overlap = min(own / total for own, total in zip(inside, totals, strict=True))
    return Strata(kind, weights, overlap)


def _tokens(kind: Kind, side: pl.DataFrame) -> dict[str, tuple[int, int]]:
    """Stratum -> its tokens and its steps."""
    rows = side.group_by(_KEYS[kind].alias("stratum")).agg(pl.col("n_tokens").sum(), count=pl.len())
    return {key: (int(tokens), int(count)) for key, tokens, count in rows.iter_rows()}
