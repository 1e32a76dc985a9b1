"""What depth costs: time per step and attention's share against the tokens in context, within one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.positions import BASES, Basis, positions
from nsyskit.analysis.step_costs import LEDGER_PARTS, kernel_steps, step_rows
from nsyskit.analysis.steps import find_steps
from nsyskit.analysis.windows import steady_window, window_all
from nsyskit.errors import MissingTableError
from nsyskit.schema import Columns
from nsyskit.trace import Trace, Window

BINS: Final[Columns] = {
    "batch": pl.Int64(), "lo": pl.Int64(), "hi": pl.Int64(), "steps": pl.Int64(), "ms_p50": pl.Float64(),
    "kernel_ns": pl.Float64(), "attention_ns": pl.Float64(), "attention_share": pl.Float64(),
}  # fmt: skip
"""Columns of ``DepthResult.bins``."""
GROWTH: Final[Columns] = {
    "batch": pl.Int64(), "kind": pl.String(), "part": pl.String(), "ns_per_1k": pl.Float64(), "error_ns": pl.Float64(),
    "share": pl.Float64(),
}  # fmt: skip
"""Columns of ``DepthResult.growth``."""

_MOST_BINS: Final = 12
_WIDTHS: Final = tuple(1 << power for power in range(4, 31))
_MIN_STEPS: Final = 16
_MIN_RANGE: Final = 256  # llama.cpp looks at cells by 256: below that the cost does not change
_OUTLIER: Final = 1.5
_MOST_BATCHES: Final = 4
_ATTENTION: Final = ("attention", "softmax")
"""Categories of kernels whose name says attention; without flash attention its matrix products look like any other."""


@dataclass(frozen=True, slots=True)
class DepthResult:
    """Decode steps by how many tokens are in context.

    Attributes:
        window: steps that begin in it are counted.
        basis: where depths come from, one of ``positions.BASES``; ``since_prefill`` counts steps since the last prompt.
        checked: steps whose attention mask has the size that follows from the depth.
        known: decode steps of the window with a depth.
        left_out: of those, steps without a next one of their request, steps that built a graph, and steps that took
            more than 1.5 times the median of their bin: they tell of something else.
        bins: ``BINS``: steps of ``batch`` tokens with a mean depth in ``[lo, hi)``; ``ms_p50`` of their periods; means
            of a step's ``kernel_ns`` and ``attention_ns`` (kernel durations, null where graphs hide them) and the share
            of the second in the first.
        growth: ``GROWTH``: least squares over the steps, ns that a step gains from 1,000 more tokens in context, with
            its standard error: ``kind`` ``step`` the whole period, ``ledger`` its parts on the busiest GPU (they sum to
            it), ``kernels`` the categories of kernels. ``share`` is of the whole period's. Absent for batches with
            fewer than 16 steps or fewer than 256 tokens between the first and the last depth.
    """

    window: Window
    basis: Basis
    checked: int
    known: int
    left_out: int
    bins: pl.DataFrame
    growth: pl.DataFrame

    @property
    def told(self) -> str:
        """Where the depths come from, in words."""
        agrees = f"; the size of the attention mask agrees in {self.checked:,} steps" if self.checked else ""
        return BASES[self.basis] + agrees


def depth(trace: Trace, *, window: Window | None = None, texts: Sequence[str] = ()) -> DepthResult:
    """Decode steps against their depth.

    Args:
        trace: with decode steps.
        window: steps that begin in it are counted, ``steady`` where there is such.
        texts: output of the program to read instead of what the trace kept.

    Raises:
        MissingTableError: the trace holds no decode step.
    """
    if find_steps(trace).steps.filter(pl.col("phase") == "decode").is_empty():
        raise MissingTableError("decode steps", hint="capture llama.cpp with --trace=cuda")
    window = window or steady_window(trace) or window_all(trace)
    placed = positions(trace, tuple(texts))
    rows = step_rows(trace).filter(
        (pl.col("phase") == "decode") & pl.col("begin_ns").is_between(window.start_ns, window.end_ns, "left")
    )
    rows = rows.join(placed.rows, on="index", how="inner", maintain_order="left")
    usual = _usual(_binned(rows))
    kernels = _kernels(trace, usual)
    commonest = usual.group_by("n_tokens").len().sort(["len", "n_tokens"], descending=[True, False]).head(_MOST_BATCHES)
    usual = usual.filter(pl.col("n_tokens").is_in(commonest["n_tokens"].implode()))
    return DepthResult(
        window=window,
        basis=placed.basis,
        checked=placed.checked,
        known=rows.height,
        left_out=rows.height - usual.height,
        bins=_bins(usual, kernels),
        growth=_growth(usual, kernels),
    )


def _binned(rows: pl.DataFrame) -> pl.DataFrame:
    """Steps with the edges of their bin: ``lo hi``, at most twelve bins, powers of two wide."""
    span = float(rows["depth"].max() or 0) - float(rows["depth"].min() or 0)  # type: ignore[arg-type]
    width = next(width for width in _WIDTHS if span <= width * (_MOST_BINS - 1))
    lo = (pl.col("depth") / width).floor().cast(pl.Int64) * width
    return rows.with_columns(lo=lo, hi=lo + width)


def _usual(rows: pl.DataFrame) -> pl.DataFrame:
    """Steps that show the cost of depth: with a period, without building a graph, and not far off their bin."""
    timed = rows.filter(pl.col("period_ns").is_not_null() & (pl.col("captures") == 0))
    median = pl.col("period_ns").median().over("n_tokens", "lo")
    return timed.filter(pl.col("period_ns") <= _OUTLIER * median)


def _kernels(trace: Trace, rows: pl.DataFrame) -> pl.DataFrame:
    """Kernel time of steps by category: ``index category total_ns``; nothing where any of them hides its kernels."""
    own = kernel_steps(trace).filter(pl.col("index").is_in(rows["index"].implode()))
    if (rows["graph_ns"] > 0).any():
        return own.clear().select("index", "category", "total_ns")
    return own.group_by("index", "category").agg(pl.col("total_ns").sum())


def _bins(rows: pl.DataFrame, kernels: pl.DataFrame) -> pl.DataFrame:
    sums = kernels.group_by("index").agg(
        all_ns=pl.col("total_ns").sum(),
        own_ns=pl.col("total_ns").filter(pl.col("category").is_in(_ATTENTION)).sum(),
    )
    found = rows.select("index", "n_tokens", "lo", "hi", "period_ns").join(sums, on="index", how="left")
    return (
        found.group_by("n_tokens", "lo", "hi")
        .agg(
            steps=pl.len(),
            ms_p50=pl.col("period_ns").median() / 1e6,
            kernel_ns=pl.col("all_ns").mean(),
            attention_ns=pl.col("own_ns").mean(),
            attention_share=pl.when(pl.col("all_ns").sum() > 0).then(pl.col("own_ns").sum() / pl.col("all_ns").sum()),
        )
        .rename({"n_tokens": "batch"})
        .sort("batch", "lo")
        .select(pl.col(name).cast(kind) for name, kind in BINS.items())
    )


def _growth(rows: pl.DataFrame, kernels: pl.DataFrame) -> pl.DataFrame:
    found: list[dict[str, object]] = []
    for (batch,), own in rows.group_by("n_tokens", maintain_order=True):
        span = float(own["depth"].max() or 0) - float(own["depth"].min() or 0)  # type: ignore[arg-type]
        if own.height < _MIN_STEPS or span < _MIN_RANGE:
            continue
        whole = _slope(own["depth"], own["period_ns"])
        lines = {("step", "step"): whole}
        lines |= {("ledger", part): _slope(own["depth"], own[f"{part}_ns"]) for part in LEDGER_PARTS}
        for (category,), each in kernels.group_by("category"):
            spent = own.select("index").join(each, on="index", how="left", maintain_order="left")
            lines["kernels", str(category)] = _slope(own["depth"], spent["total_ns"].fill_null(0))
        found += [
            {
                "batch": batch, "kind": kind, "part": part, "ns_per_1k": 1e3 * slope, "error_ns": 1e3 * error,
                "share": slope / whole[0] if whole[0] > 0 else None,
            }
            for (kind, part), (slope, error) in lines.items()
            if slope or kind == "step"
        ]  # fmt: skip
    order = pl.col("kind").replace_strict({"step": 0, "ledger": 1, "kernels": 2})
    return pl.DataFrame(found, schema=GROWTH).sort(
        ["batch", order, "ns_per_1k", "part"], descending=[False, False, True, False]
    )


def _slope(x: pl.Series, y: pl.Series) -> tuple[float, float]:
    """Least squares: the slope and its standard error."""
    frame = pl.DataFrame({"x": x.cast(pl.Float64), "y": y.cast(pl.Float64)})
    dx, dy = pl.col("x") - pl.col("x").mean(), pl.col("y") - pl.col("y").mean()
    sxx, sxy, syy = frame.select(xx=dx.pow(2).sum(), xy=(dx * dy).sum(), yy=dy.pow(2).sum()).row(0)
    slope = sxy / sxx
    rest = max(0.0, syy - slope * sxy) / max(1, frame.height - 2)
    return float(slope), float((rest / sxx) ** 0.5)
