"""Parts -> one result. Order of arrival, workers and machines leave no mark in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from nsyskit.analysis.step_costs import LEDGER_PARTS
from nsyskit.fleet.outliers import outliers
from nsyskit.fleet.part import ROW_SCHEMA, Part, bin_middle
from nsyskit.fleet.result import Duplicate, Failure, FleetResult

AXES: Final = ("host", "rank", "gpu", "build", "model", "program")
"""What distributions are told by, before the flags that differ."""
_NOT_FLAGS: Final = frozenset({"gpu", "build", "model", "program", "sources", "n_vocab", "model_type", "model_size"})
_QUANTILES: Final = {"min": 0.0, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}

_TOGETHER: Final = 256

_TRACES: Final = {
    "trace": pl.Int64, "name": pl.String, "host": pl.String, "rank": pl.String, "gpu": pl.String, "gpus": pl.Int64,
    "build": pl.String, "model": pl.String, "program": pl.String, "flags": pl.String, "nsys": pl.String,
    "bottleneck": pl.String, "sentence": pl.String, "trusted": pl.Boolean, "window_ns": pl.Int64,
    "warnings": pl.String,
}  # fmt: skip
_SETUP: Final = {"trace": pl.Int64, "fact": pl.String, "value": pl.String}
_METRICS: Final = {"trace": pl.Int64, "metric": pl.String, "value": pl.Float64, "unit": pl.String}


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A distinct trace of the fleet: its shown name, its host's shown name, a manifest's labels, its part."""

    name: str
    host: str | None
    labels: Mapping[str, str]
    part: Part


def reduce(found: Iterable[Found], *, failed: Sequence[Failure], duplicates: Sequence[Duplicate]) -> FleetResult:
    """Put the parts together, in the order of the traces' names; each is looked at once and let go."""
    gathered = _Gathered()
    for one in found:
        gathered.add(one)
    traces, setup, metrics, sums = gathered.frames()
    trusted = traces.filter("trusted")
    groups = _groups(trusted, setup)
    good = metrics.join(trusted.select("trace"), on="trace", how="semi")
    return FleetResult(
        traces=traces,
        setup=setup,
        metrics=metrics,
        groups=_by_axis(groups, lambda own: _distributions(own, good), "metric"),
        steps=_by_axis(groups, lambda own: _steps(own, sums), "phase"),
        ledgers=_by_axis(groups, lambda own: _ledgers(own, sums), "phase", "_part").drop("_part"),
        kernels=_kernels(sums),
        outliers=outliers(trusted, setup, good),
        failed=tuple(sorted(failed, key=lambda one: one.name)),
        duplicates=tuple(sorted(duplicates, key=lambda one: one.name)),
        axes=tuple(dict.fromkeys(axis for axis in groups["by"].to_list() if axis != "all")),
    )


class _Gathered:
    """Rows of many parts, packed into frames every so often: as Python's own values they take ten times the room."""

    def __init__(self) -> None:
        self._traces: list[tuple[Any, ...]] = []
        self._rows: tuple[list[Any], list[Any], list[pl.DataFrame]] = ([], [], [])
        self._frames: tuple[list[pl.DataFrame], ...] = ([], [], [])

    def add(self, one: Found) -> None:
        at, facts = len(self._traces), _setup(one)
        self._traces.append(_row(at, one, facts))
        setup, metrics, sums = self._rows
        setup += [(at, fact, value) for fact, value in sorted(facts.items())]
        numbers = sorted(one.part.facts["metrics"].items())
        metrics += [(at, name, float(value), unit) for name, (value, unit) in numbers]
        sums.append(one.part.rows.filter(pl.col("kind") != "device").with_columns(trace=pl.lit(at, pl.Int64)))
        if len(sums) >= _TOGETHER:
            self._pack()

    def _pack(self) -> None:
        setup, metrics, sums = self._rows
        self._frames[0].append(pl.DataFrame(setup, schema=_SETUP, orient="row"))
        self._frames[1].append(pl.DataFrame(metrics, schema=_METRICS, orient="row"))
        self._frames[2].append(pl.concat([pl.DataFrame(schema={**ROW_SCHEMA, "trace": pl.Int64}), *sums]))
        self._rows = ([], [], [])

    def frames(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """``traces setup metrics`` as in ``FleetResult``, and the rows of all parts with their ``trace``."""
        self._pack()
        setup, metrics, sums = (pl.concat(frames) for frames in self._frames)
        return pl.DataFrame(self._traces, schema=_TRACES, orient="row"), setup, metrics, sums


def _setup(one: Found) -> dict[str, str]:
    """Facts with the manifest's labels on top; ``host`` and ``rank`` are told apart from these."""
    facts = {str(name): str(value) for name, value in one.part.facts["setup"].items()}
    names = one.part.facts["devices"]
    if "gpu" not in facts and any(names):
        facts["gpu"] = " + ".join(sorted(str(name) for name in names if name))
    return facts | {name: value for name, value in one.labels.items() if name not in {"host", "rank"}}


def _row(at: int, one: Found, setup: Mapping[str, str]) -> tuple[Any, ...]:
    facts = one.part.facts
    rank = one.labels.get("rank", facts["rank"])
    flags = " ".join(f"{name}={value}" for name, value in sorted(setup.items()) if _is_flag(name))
    codes = sorted({note["code"] for note in facts["trust"] if note["level"] == "warning"})
    return (
        at, one.name, one.host, None if rank is None else str(rank), setup.get("gpu"), len(facts["devices"]),
        setup.get("build"), setup.get("model", setup.get("model_type")), setup.get("program"), flags,
        setup.get("nsys"), facts["bottleneck"], facts["sentence"],
        all(note["level"] != "error" for note in facts["trust"]),
        facts["window"]["dur_ns"] if facts["window"] else None, " ".join(codes),
    )  # fmt: skip


def _is_flag(name: str) -> bool:
    return name not in _NOT_FLAGS and name != "nsys"


def _groups(traces: pl.DataFrame, setup: pl.DataFrame) -> pl.DataFrame:
    """Who belongs where: ``by group trace``. An axis counts where it has two groups or more; hosts always do."""
    everyone = traces.select(by=pl.lit("all"), group=pl.lit("all"), trace="trace")
    frames = [everyone]
    for axis in AXES:
        own = traces.select(by=pl.lit(axis), group=pl.col(axis), trace="trace").drop_nulls("group")
        if own["group"].n_unique() > 1 or (axis == "host" and own.height):
            frames.append(own)
    flags = setup.join(traces.select("trace"), on="trace", how="semi").filter(
        pl.col("fact").map_elements(lambda name: _is_flag(name) or name == "nsys", return_dtype=pl.Boolean)
    )
    for (fact,), own in flags.partition_by("fact", as_dict=True, maintain_order=False).items():
        if own["value"].n_unique() > 1 or own.height < traces.height:
            told = traces.select("trace").join(own, on="trace", how="left", maintain_order="left")
            frames.append(told.select(by=pl.lit(fact), group=pl.col("value").fill_null("–"), trace="trace"))
    order = {axis: at for at, axis in enumerate(("all", *AXES))}
    return pl.concat(sorted(frames, key=lambda frame: _rank(frame, order)))


def _rank(frame: pl.DataFrame, order: Mapping[str, int]) -> tuple[int, str]:
    axis = str(frame["by"][0]) if frame.height else ""
    return order.get(axis, len(order)), axis


def _by_axis(groups: pl.DataFrame, work: Callable[[pl.DataFrame], pl.DataFrame], *then: str) -> pl.DataFrame:
    """What ``work`` makes of each axis, in order; one axis at a time, or all traces would be held once for each.

    Groups come in natural order, so that host-10 follows host-9.
    """
    frames = [
        work(own)
        .with_columns(
            _text=pl.col("group").str.replace(r"\d+$", ""),
            _number=pl.col("group").str.extract(r"(\d{1,15})$").cast(pl.Int64),
        )
        .sort("_text", "_number", "group", *then, nulls_last=True)
        .drop("_text", "_number")
        for own in groups.partition_by("by", maintain_order=True)
    ]
    return pl.concat(frames) if frames else work(groups)


def _distributions(groups: pl.DataFrame, metrics: pl.DataFrame) -> pl.DataFrame:
    quantiles = [pl.col("value").quantile(q, "linear").alias(name) for name, q in _QUANTILES.items()]
    return (
        groups.join(metrics, on="trace")
        .group_by("by", "group", "metric", "unit")
        .agg(pl.len().cast(pl.Int64).alias("count"), *quantiles)
    )


def _steps(groups: pl.DataFrame, sums: pl.DataFrame) -> pl.DataFrame:
    bins = sums.filter(pl.col("kind") == "steps").with_columns(bin=pl.col("name").cast(pl.Int64))
    counted = (
        groups.join(bins, on="trace")
        .group_by("by", "group", pl.col("scope").alias("phase"), "bin")
        .agg(pl.col("count").sum())
        .sort("by", "group", "phase", "bin")
        .with_columns(
            upto=pl.col("count").cum_sum().over("by", "group", "phase"),
            total=pl.col("count").sum().over("by", "group", "phase"),
        )
    )
    middle = pl.col("bin").map_elements(bin_middle, return_dtype=pl.Float64) / 1e6
    return counted.with_columns(ms=middle).group_by("by", "group", "phase").agg(
        pl.col("count").sum(),
        *(pl.col("ms").filter(pl.col("upto") >= q * pl.col("total")).first().alias(name)
          for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))),
    )  # fmt: skip


def _ledgers(groups: pl.DataFrame, sums: pl.DataFrame) -> pl.DataFrame:
    own = sums.filter(pl.col("kind") == "tokens")
    order = {part: at for at, part in enumerate(LEDGER_PARTS)}
    return (
        groups.join(own, on="trace")
        .group_by("by", "group", pl.col("scope").alias("phase"), pl.col("name").alias("part"))
        .agg(pl.col("total_ns").sum(), pl.col("count").sum())
        .select("by", "group", "phase", "part", (pl.col("total_ns") / pl.col("count")).alias("ns_per_token"))
        .with_columns(_part=pl.col("part").replace_strict(order, return_dtype=pl.Int64))
    )


def _kernels(sums: pl.DataFrame) -> pl.DataFrame:
    found = (
        sums.filter(pl.col("kind") == "kernel")
        .group_by(pl.col("scope").alias("category"), pl.col("name").alias("kernel"))
        .agg(pl.col("count").sum(), pl.col("total_ns").sum(), pl.len().cast(pl.Int64).alias("traces"))
    )
    total = int(found["total_ns"].sum()) or 1
    return found.select(
        "category", "kernel", "count", "total_ns", (pl.col("total_ns") / total).alias("share"), "traces"
    ).sort(["total_ns", "category", "kernel"], descending=[True, False, False])
