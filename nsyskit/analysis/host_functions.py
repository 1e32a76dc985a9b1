"""What the host was doing while a GPU idled, from CPU samples, OS calls and context switches of those instants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.causes import classified_os_calls, idle_by_cause
from nsyskit.analysis.gpus import GpuUse, feeds, gpu_uses
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.names import named, strings_of
from nsyskit.analysis.os_threads import chain_texts
from nsyskit.analysis.windows import default_window
from nsyskit.errors import MissingTableError
from nsyskit.intervals import assign, covered_ns, intersect, length, union
from nsyskit.trace import Trace, Window

EXPLAINED: Final = ("host", "blocked", "os")
_MAX_ROWS: Final = 10
_UNRESOLVED: Final = "^(0x|\\[)"


@dataclass(frozen=True, slots=True)
class DeviceHostFunctions:
    """One GPU's idle time of the causes ``EXPLAINED``, as far as the file explains it.

    Attributes:
        functions: ``cause function module samples share``: where the driver threads' CPU samples of that time stand,
            innermost resolved function first; ``share`` of the cause's samples. Empty without samples.
        callers: ``cause frames samples share``: the same samples by call chain (innermost first, resolved only).
        waits: ``cause name frames total_ns count``: OS calls over that time with their chains; ns are idle ns covered.
        running_ns, descheduled_ns: of that time, whether a driver thread was on a CPU; None without context switches.
    """

    use: GpuUse
    functions: pl.DataFrame
    callers: pl.DataFrame
    waits: pl.DataFrame
    running_ns: int | None
    descheduled_ns: int | None


@dataclass(frozen=True, slots=True)
class HostFunctionsResult:
    window: Window
    devices: tuple[DeviceHostFunctions, ...]


def host_functions(trace: Trace, *, window: Window | None = None) -> HostFunctionsResult:
    """Explain ``host``, ``blocked`` and ``os`` idle time of every GPU.

    Raises:
        MissingTableError: the file holds neither samples, OS calls nor context switches.
    """
    sources = trace.meta.sources
    if not any(sources.get(source) for source in ("samples", "osrt", "sched")):
        raise MissingTableError("CPU samples, OS calls or context switches", hint="capture with --sample=process-tree")
    window = window or default_window(trace)
    return HostFunctionsResult(window, tuple(_explain(trace, use, window) for use in gpu_uses(trace)))


def _explain(trace: Trace, use: GpuUse, window: Window) -> DeviceHostFunctions:
    drivers = feeds(trace, window).filter(pl.col("use") == gpu_uses(trace).index(use)).select("pid", "tid")
    idle = idle_by_cause(trace, use, window)
    samples = _samples_in(trace, drivers, {cause: idle[cause] for cause in EXPLAINED})
    chains = _resolved_chains(trace).join(samples, left_on="chain_id", right_on="sample_id", how="inner")
    running, descheduled = _scheduling(trace, drivers, union(pl.concat([idle[cause] for cause in EXPLAINED])))
    return DeviceHostFunctions(
        use=use,
        functions=_functions(trace, samples),
        callers=_callers(chains),
        waits=_waits(trace, drivers, idle),
        running_ns=running,
        descheduled_ns=descheduled,
    )


def _samples_in(trace: Trace, drivers: pl.DataFrame, idle: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Samples of driver threads within idle time: ``sample_id cause``."""
    samples = trace.tables["samples"].collect().join(drivers, on=["pid", "tid"], how="semi", maintain_order="left")
    found = [
        samples.filter(assign(samples["start_ns"], instants).is_not_null()).select("sample_id", cause=pl.lit(cause))
        for cause, instants in idle.items()
    ]
    return pl.concat(found)


@once_per_trace
def _frames(trace: Trace) -> pl.DataFrame:
    """Frames of sampled chains: ``chain_id depth function module resolved``, innermost first."""
    frames = trace.tables["sample_chains"].collect()
    value = pl.col("value")
    functions = strings_of(trace, frames["symbol_id"]).select(
        symbol_id="string_id", function="value", resolved=~value.str.contains(_UNRESOLVED)
    )
    modules = strings_of(trace, frames["module_id"]).select(
        module_id="string_id",
        module=value.str.replace(r"^.*[/\\]", ""),  # folders may name a user
    )
    named_frames = frames.join(functions, on="symbol_id", how="left").join(modules, on="module_id", how="left")
    return named_frames.select("chain_id", "depth", "function", "module", "resolved").sort("chain_id", "depth")


@once_per_trace
def _resolved_chains(trace: Trace) -> pl.DataFrame:
    return (
        _frames(trace)
        .filter("resolved")
        .group_by("chain_id", maintain_order=True)
        .agg(pl.col("function").alias("frames"))
    )


def _functions(trace: Trace, samples: pl.DataFrame) -> pl.DataFrame:
    # the innermost function with a name; where none has one, at least the module of the innermost frame
    frames = _frames(trace).sort("chain_id", ~pl.col("resolved"), "depth")
    innermost = frames.unique("chain_id", keep="first", maintain_order=True).with_columns(
        function=pl.when("resolved").then("function").otherwise(pl.lit("[unresolved]"))
    )
    hit = samples.join(innermost, left_on="sample_id", right_on="chain_id", how="left").with_columns(
        pl.col("function", "module").fill_null("[unresolved]")
    )
    counted = hit.group_by("cause", "function", "module").agg(pl.len().cast(pl.Int64).alias("samples"))
    return _shared(counted, ["function", "module"])


def _callers(chains: pl.DataFrame) -> pl.DataFrame:
    counted = chains.group_by("cause", "frames").agg(pl.len().cast(pl.Int64).alias("samples"))
    return _shared(counted.with_columns(key=pl.col("frames").list.join("\n")), ["key"]).drop("key")


def _shared(counted: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Most frequent first within each cause, with the share of the cause's samples."""
    share = pl.col("samples") / pl.col("samples").sum().over("cause")
    ranked = counted.with_columns(share=share).sort(
        ["cause", "samples", *names], descending=[False, True, *[False] * len(names)]
    )
    return ranked.filter(pl.int_range(pl.len()).over("cause") < _MAX_ROWS)


def _waits(trace: Trace, drivers: pl.DataFrame, idle: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """OS calls of driver threads over idle time of their own cause, by name and chain."""
    calls = classified_os_calls(trace).join(drivers, on=["pid", "tid"], how="semi", maintain_order="left")
    pieces = []
    for cause in ("blocked", "os"):
        own = calls.filter(pl.col("class") == cause)
        pieces.append(own.with_columns(covered_ns(own, idle[cause]).alias("over_ns"), cause=pl.lit(cause)))
    hit = pl.concat(pieces).filter(pl.col("over_ns") > 0)
    chained = named(trace, hit).join(chain_texts(trace), left_on="callchain_id", right_on="chain_id", how="left")
    sums = chained.group_by("cause", "name", "frames").agg(
        pl.col("over_ns").sum().alias("total_ns"), pl.len().cast(pl.Int64).alias("count")
    )
    order = pl.col("frames").list.join("\n").fill_null("")
    return sums.sort(["total_ns", "cause", "name", order], descending=[True, False, False, False]).head(_MAX_ROWS)


def _scheduling(trace: Trace, drivers: pl.DataFrame, idle: pl.DataFrame) -> tuple[int | None, int | None]:
    """Of the idle time, how much some driver thread spent on a CPU, and how much none did."""
    switches = trace.tables["sched"].collect().join(drivers, on=["pid", "tid"], how="semi", maintain_order="left")
    if switches.is_empty():
        return None, None
    spans = switches.with_columns(end_ns=pl.col("start_ns").shift(-1).over("pid", "tid")).filter(
        pl.col("is_in") & pl.col("end_ns").is_not_null()
    )
    running = length(intersect(idle, union(spans)))
    return running, length(idle) - running
