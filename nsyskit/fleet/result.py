"""What a fleet comes to: the value that its renderers start from."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True, slots=True)
class Failure:
    """A trace without a part. ``fault``: nsyskit's own, not the trace's."""

    name: str
    error: str
    fault: bool = False


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A trace that holds the same bytes as another, which alone is counted."""

    name: str
    same_as: str


@dataclass(frozen=True, slots=True)
class Outlier:
    """A host, a rank or a trace that differs from its peers: those with the same GPU, build, model and flags.

    Attributes:
        kind: ``host``, ``rank`` or ``trace``; who: which one; traces: how many are its own.
        metric, unit, value, expected: its median, and the median of the peers.
        peers: traces that it was held against; limit: how far from ``expected`` none of them may lie unnoticed.
        part: the part of the ledger that differs most in the same direction; part_value, part_expected: in the
            metric's ledger (ns per step or token, or share of the window). None where no part does.
        cell: what the peers have in common, as far as it differs within the fleet.
    """

    kind: str
    who: str
    traces: int
    metric: str
    unit: str
    value: float
    expected: float
    limit: float
    peers: int
    part: str | None
    part_value: float | None
    part_expected: float | None
    cell: str

    @property
    def ratio(self) -> float:
        """The difference as a share of what was expected; of shares the difference itself."""
        return self.value - self.expected if self.unit == "share" else self.value / self.expected - 1


@dataclass(frozen=True, slots=True, eq=False)
class FleetResult:
    """Distributions over traces, and what stands out. Frames are sorted; traces are numbered from 0 by name.

    Attributes:
        traces: ``trace name host rank gpu gpus build model program flags nsys bottleneck sentence trusted window_ns
            warnings``: one row a distinct trace. ``trusted`` is false where a trust error withholds the numbers: such
            a trace is in no distribution.
        setup: ``trace fact value``: everything known of how each was run.
        metrics: ``trace metric value unit``.
        groups: ``by group metric unit count min p05 p25 p50 p75 p95 max``: by ``all``, host, rank, gpu, build, model
            and every flag that differs within the fleet.
        steps: ``by group phase count p50 p95 p99``: all steps of a group, ms per token; 0.5 % exact.
        ledgers: ``by group phase part ns_per_token``: they sum to the mean time per token.
        kernels: ``category kernel count total_ns share traces``, most time first.
        axes: what ``by`` takes besides ``all``.
    """

    traces: pl.DataFrame
    setup: pl.DataFrame
    metrics: pl.DataFrame
    groups: pl.DataFrame
    steps: pl.DataFrame
    ledgers: pl.DataFrame
    kernels: pl.DataFrame
    outliers: tuple[Outlier, ...]
    failed: tuple[Failure, ...]
    duplicates: tuple[Duplicate, ...]
    axes: tuple[str, ...]
