"""What happened when: the whole window as exact time shares a column, and small windows event by event.

A column of a `DensityResult` is a slice of the window; a lane's parts in it are nanoseconds, so that they sum over the
columns to the ledgers, at every level. An `EventsResult` holds rows of a short window; above its cap neighbours are put
together, and ``aggregated`` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add, sub
from typing import Final

import polars as pl

from nsyskit.analysis.causes import CAUSES, causes_over, classified_os_calls, thread_instants, whole_window
from nsyskit.analysis.devices import BUSY_PARTS, pieces_over
from nsyskit.analysis.gaps import gaps
from nsyskit.analysis.gpus import GpuUse, busy_of, feeds, gpu_uses, ops_of
from nsyskit.analysis.hotspots import kernel_facts
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.names import named, strings_of
from nsyskit.analysis.pairing import OP_KINDS, api_calls, api_names, call_classes
from nsyskit.analysis.steps import find_steps
from nsyskit.analysis.threads import PARTS, thread_name
from nsyskit.analysis.windows import default_window, window_gpu
from nsyskit.errors import MissingTableError
from nsyskit.frames import selected, summed
from nsyskit.ggml.decode import parse_name
from nsyskit.intervals import (
    assign,
    clip,
    common,
    complement,
    covered_before,
    covered_ns,
    neighbourhood,
    span,
    union,
)
from nsyskit.trace import Trace, Window
from nsyskit.units import human_ns, parse_duration_ns

MAX_EVENTS: Final = 50_000
BASE_COLUMNS: Final = 1024
FINER: Final = 8
AROUND_NS: Final = 10_000_000
BUBBLES: Final = 3
_MAX_CELLS: Final = 2_000_000
_MIN_COLUMN_NS: Final = 1_000
_MAX_STREAMS: Final = 6
_MAX_THREADS: Final = 4
_MERGED_COLUMNS: Final = 2_048
_SPAN: Final = ("start_ns", "end_ns")

EVENT_COLUMNS: Final = {
    "lane": pl.Int64, "start_ns": pl.Int64, "end_ns": pl.Int64, "dur_ns": pl.Int64, "part": pl.String,
    "name": pl.String, "count": pl.Int64, "bubble": pl.Int64,
}  # fmt: skip
"""Columns of `EventsResult.events`."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One row of a timeline: ``kind`` is gpu, stream, copies, graphs, thread, api or os; ``parts`` colour it."""

    key: str
    label: str
    kind: str
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DensityResult:
    """The window in columns, coarse to fine.

    Attributes:
        lanes: the rows; parts of a ``gpu`` and a ``thread`` lane sum to each column exactly.
        levels: one frame a level: ``start_ns end_ns`` of its columns and ``{lane.key}/{part}`` in ns. Every column of a
            level is the sum of ``FINER`` columns of the next.
    """

    window: Window
    lanes: tuple[Lane, ...]
    levels: tuple[pl.DataFrame, ...]


@dataclass(frozen=True, slots=True)
class EventsResult:
    """A short window, event by event.

    Attributes:
        title: why this window was chosen.
        events: ``EVENT_COLUMNS``, by lane, then time: cut at the window, ``dur_ns`` is the whole event's length.
            ``count`` is above 1 where neighbours were put together, ``name`` null then. ``bubble`` is a row of
            ``bubbles``, for pieces of idle time.
        bubbles: ``start_ns end_ns dur_ns``, ns a cause, ``before after``: gaps of a GPU, uncut.
        total: events in the window before any were put together.
    """

    title: str
    window: Window
    lanes: tuple[Lane, ...]
    events: pl.DataFrame
    bubbles: pl.DataFrame
    total: int
    aggregated: bool


@dataclass(frozen=True, slots=True)
class Landmark:
    """A short window worth a look, and why."""

    title: str
    window: Window


@dataclass(frozen=True, slots=True)
class Timelines:
    """What a report draws: the whole window, and the landmarks in detail."""

    density: DensityResult
    exact: tuple[EventsResult, ...]


def timelines(trace: Trace, *, window: Window | None = None, around: Sequence[int] = ()) -> Timelines:
    """The whole window as density and every landmark in detail.

    Raises:
        MissingTableError: the trace holds nothing that has a time.
    """
    window = window or default_window(trace)
    marks = landmarks(trace, window=window, around=around)
    return Timelines(
        density(trace, window=window),
        tuple(events(trace, mark.window, title=mark.title, within=window) for mark in marks),
    )


def landmarks(trace: Trace, *, window: Window | None = None, around: Iterable[int] = ()) -> tuple[Landmark, ...]:
    """Steps worth a look, the largest bubbles, then the times that were asked for."""
    window = window or default_window(trace)
    steps = _step_landmarks(find_steps(trace).steps, window, whole_window(trace))
    found = [*steps, *_bubble_landmarks(trace, window)]
    half = AROUND_NS // 2
    return (*found, *(Landmark("around the time asked for", Window("explicit", at - half, at + half)) for at in around))


def density(trace: Trace, *, window: Window | None = None) -> DensityResult:
    """The whole window in columns, at several levels."""
    window = window or default_window(trace)
    lanes = _density_lanes(trace, window)
    edges = _edges(window, _columns(window, sum(len(lane.parts) for lane, _ in lanes)))
    known: dict[int, pl.Series] = {}

    def covered(merged: pl.DataFrame) -> pl.Series:
        if id(merged) not in known:
            upto = covered_before(edges, merged)
            known[id(merged)] = upto.slice(1) - upto.head(-1)
        return known[id(merged)]

    times = [edges.head(-1).alias("start_ns"), edges.slice(1).alias("end_ns")]
    parts = [part.ns(covered).alias(f"{lane.key}/{name}") for lane, own in lanes for name, part in own.items()]
    levels = [pl.DataFrame([*times, *parts])]
    while levels[0].height > BASE_COLUMNS:
        levels.insert(0, _coarser(levels[0]))
    return DensityResult(window, tuple(lane for lane, _ in lanes), tuple(levels))


def events(
    trace: Trace, window: Window, *, title: str = "", within: Window | None = None, cap: int = MAX_EVENTS
) -> EventsResult:
    """Every event of a short window; ``within`` is the window that bubbles and driver threads are told for."""
    outer = within if within and within.start_ns <= window.start_ns and window.end_ns <= within.end_ns else window
    lanes: list[Lane] = []
    frames: list[pl.DataFrame] = []
    bubbles: list[pl.DataFrame] = []
    for key, use in enumerate(gpu_uses(trace)):
        own, drawn = _gpu_events(trace, key, use, outer=outer, window=window)
        shift = sum(frame.height for frame in bubbles)
        bubbles.append(own)
        for lane, rows in drawn:
            lanes.append(lane)
            frames.append(rows.with_columns(lane=pl.lit(len(lanes) - 1, pl.Int64), bubble=pl.col("bubble") + shift))
    for pid, tid in _drivers(trace, outer):
        for lane, rows in _thread_events(trace, pid, tid, window):
            lanes.append(lane)
            frames.append(rows.with_columns(lane=pl.lit(len(lanes) - 1, pl.Int64)))
    listed = pl.concat([pl.DataFrame(schema=EVENT_COLUMNS), *(frame.select(*EVENT_COLUMNS) for frame in frames)])
    listed = listed.sort("lane", "start_ns", "end_ns", maintain_order=True)
    shown = listed if listed.height <= cap else aggregated(listed, window, _MERGED_COLUMNS)
    return EventsResult(
        title, window, tuple(lanes), shown, _stacked(bubbles), listed.height, aggregated=shown.height < listed.height
    )


def aggregated(rows: pl.DataFrame, window: Window, columns: int) -> pl.DataFrame:
    """Events put together where several of a part begin in one column of a lane; others stay as they are."""
    width = max(-(-window.dur_ns // columns), 1)
    column = (pl.col("start_ns") - window.start_ns) // width
    alone = pl.len() == 1
    return (
        rows.with_columns(column=column)
        .group_by("lane", "part", "column", maintain_order=True)
        .agg(
            pl.col("start_ns").min(),
            pl.col("end_ns").max(),
            pl.col("dur_ns").sum(),
            pl.when(alone).then(pl.col("name").first()).alias("name"),
            pl.col("count").sum(),
            pl.when(alone).then(pl.col("bubble").first()).alias("bubble"),
        )
        .select(*EVENT_COLUMNS)
        .sort("lane", "start_ns", "end_ns", maintain_order=True)
    )


def instant(trace: Trace, text: str) -> int:
    """A time as a user writes it, in the trace's clock; ``+`` counts from the first GPU operation.

    Raises:
        UsageError: the text is no time.
        MissingTableError: it counts from a GPU operation and there is none.
    """
    value, relative = parse_duration_ns(text)
    return value + window_gpu(trace).start_ns if relative else value


def gpu_label(use: GpuUse) -> str:
    """A GPU by nsys's number and its name: two of a kind in one machine bear the same name."""
    number = use.device if use.gpu is None else use.gpu
    return f"GPU {number}" if use.name is None else f"GPU {number} {use.name}"


# density ---------------------------------------------------------------------------------------------------------


def _columns(window: Window, series: int) -> int:
    """How many columns the finest level has."""
    columns = BASE_COLUMNS
    while columns * FINER * max(series, 1) <= _MAX_CELLS and window.dur_ns // (columns * FINER) >= _MIN_COLUMN_NS:
        columns *= FINER
    return columns


def _edges(window: Window, columns: int) -> pl.Series:
    return pl.select(window.start_ns + pl.int_range(columns + 1, dtype=pl.Int64) * window.dur_ns // columns).to_series()


def _coarser(level: pl.DataFrame) -> pl.DataFrame:
    group = (pl.int_range(pl.len()) // FINER).alias("group")
    sums = level.group_by(group, maintain_order=True).agg(
        pl.col("start_ns").first(), pl.col("end_ns").last(), pl.exclude("start_ns", "end_ns", "group").sum()
    )
    return sums.drop("group")


@dataclass(frozen=True, slots=True)
class _Part:
    """The time of a lane's part: what the merged frames in ``held`` cover, less what those in ``taken`` do.

    Sums of such times need no frame of the part's own instants, which would have to be cut out of millions of others.
    """

    held: tuple[pl.DataFrame, ...]
    taken: tuple[pl.DataFrame, ...] = ()

    def ns(self, covered: Callable[[pl.DataFrame], pl.Series]) -> pl.Series:
        """By what is covered of each stretch of time by a merged frame."""
        held = reduce(add, map(covered, self.held))
        return reduce(sub, map(covered, self.taken), held)


Parts = dict[str, _Part]


def _density_lanes(trace: Trace, window: Window) -> list[tuple[Lane, Parts]]:
    """Every lane with those of its parts that there are in the window."""
    lanes = []
    for key, use in enumerate(gpu_uses(trace)):
        name = gpu_label(use)
        pieces = {part: _Part((frame,)) for part, frame in pieces_over(trace, use, window).items()}
        lanes.append((Lane(f"gpu{key}", f"{name}: work and causes of idle time", "gpu", ()), pieces))
        lanes += _stream_lanes(trace, key, use, window)
        lanes += _copy_lanes(trace, key, use, window)
    for pid, tid in _drivers(trace, window):
        label = f"thread {tid} {thread_name(trace, pid, tid) or ''}".strip()
        lanes.append((Lane(f"thread{pid}.{tid}", label, "thread", ()), _thread_parts(trace, pid, tid, window)))
    return [_there(lane, parts, window) for lane, parts in lanes]


def _there(lane: Lane, parts: Parts, window: Window) -> tuple[Lane, Parts]:
    whole = pl.DataFrame({"start_ns": [window.start_ns], "end_ns": [window.end_ns]})
    there = {name: part for name, part in parts.items() if part.ns(partial(covered_ns, whole)).item()}
    return replace(lane, parts=tuple(there)), there


def _by_first(layers: Iterable[tuple[str, pl.DataFrame]]) -> Parts:
    """Instants by the first layer that holds at them: disjoint, together all that the layers cover."""
    parts: Parts = {}
    earlier: list[pl.DataFrame] = []
    for name, own in layers:
        both = [shared for other in earlier if (shared := common(own, other)).height]
        parts[name] = _Part((own,), (union(pl.concat(both)),) if both else ())
        earlier.append(own)
    return parts


def _merged(rows: pl.DataFrame, which: pl.Expr) -> pl.DataFrame:
    """The instants of the rows for which ``which`` holds."""
    return union(selected(rows, which, "start_ns", "end_ns"))


def _stream_lanes(trace: Trace, key: int, use: GpuUse, window: Window) -> list[tuple[Lane, Parts]]:
    ops = ops_of(trace, use)
    streams = _streams(ops, use, window)
    if len(streams) == 1:  # a single stream says what the GPU's own lane says
        return []
    kinds = [kind for kind in BUSY_PARTS if kind in ops["kind"].unique()]
    kernels = pieces_over(trace, use, window)["kernel"]

    def instants(kind: str, own: pl.Expr) -> pl.DataFrame:
        if kind == "kernel" and not any(summed(ops, ((pl.col("kind") == kind) & ~own).sum())):
            return kernels  # they run on this stream alone, as nearly always
        return _merged(ops, own & (pl.col("kind") == kind))

    return [
        (
            Lane(f"gpu{key}.stream{index}", label, "stream", ()),
            _by_first((kind, instants(kind, own)) for kind in kinds),
        )
        for index, (label, own) in enumerate(streams)
    ]


def _streams(ops: pl.DataFrame, use: GpuUse, window: Window) -> list[tuple[str, pl.Expr]]:
    """The streams with most time in the window, then the rest together: which operations are theirs."""
    time = pl.min_horizontal("end_ns", pl.lit(window.end_ns)) - pl.max_horizontal("start_ns", pl.lit(window.start_ns))
    found = (
        ops.lazy()
        .group_by("pid", "stream")
        .agg(time.clip(lower_bound=0).sum().alias("time"), _touches(window).any().alias("there"))
        .filter("there")
        .sort(["time", "pid", "stream"], descending=[True, False, False])
        .collect(engine="streaming")  # 7 MB for ten million rows, instead of 500
    )
    chosen = found.head(_MAX_STREAMS).sort("pid", "stream")
    streams = []
    for pid, stream in chosen.select("pid", "stream").iter_rows():
        of_process = f" of process {pid}" if len(use.pids) > 1 else ""
        streams.append((f"stream {stream}{of_process}", (pl.col("pid") == pid) & (pl.col("stream") == stream)))
    if found.height > chosen.height:
        rest = ~pl.any_horizontal(own for _, own in streams).fill_null(value=False)
        streams.append((f"{found.height - chosen.height} more streams", rest))
    return streams


def _copy_lanes(trace: Trace, key: int, use: GpuUse, window: Window) -> list[tuple[Lane, Parts]]:
    copies = ops_of(trace, use).filter((pl.col("kind") == "memcpy") & _touches(window))
    labels = trace.memcpys.select("label").collect()["label"].gather(copies["row"])
    copies = copies.select(_SPAN).with_columns(labels)
    return [
        (
            Lane(f"gpu{key}.{label}", f"copies {label}", "copies", ()),
            {"memcpy": _Part((_merged(copies, pl.col("label") == label),))},
        )
        for label in sorted(labels.unique())
    ]


def _thread_parts(trace: Trace, pid: int, tid: int, window: Window) -> Parts:
    """The thread ledger: ``PARTS``, disjoint, together the window."""
    parts = _by_first(thread_instants(trace, pid, tid).items())
    called = parts.values()
    host = _Part(
        (span(window.start_ns, window.end_ns), *(frame for part in called for frame in part.taken)),
        tuple(frame for part in called for frame in part.held),
    )
    return parts | {"host": host}


def _drivers(trace: Trace, window: Window) -> list[tuple[int, int]]:
    """The driver threads that handed over most operations; of a run without any GPU those with most OS calls."""
    driving = feeds(trace, window).select("pid", "tid").unique().sort("pid", "tid")
    if driving.is_empty() and not gpu_uses(trace):
        return _calling_threads(trace, window)
    if driving.height <= _MAX_THREADS:
        return list(driving.iter_rows())
    counts = api_calls(trace).group_by("pid", "tid").len()
    ranked = driving.join(counts, on=["pid", "tid"], how="left", maintain_order="left")
    order = ranked.sort(["len", "pid", "tid"], descending=[True, False, False]).head(_MAX_THREADS)
    return list(order.sort("pid", "tid").select("pid", "tid").iter_rows())


def _calling_threads(trace: Trace, window: Window) -> list[tuple[int, int]]:
    """The threads with most OS calls: a thread that works calls often, one that idles sits in a single wait."""
    calls = classified_os_calls(trace).filter(_touches(window)).drop_nulls(["pid", "tid"])
    ranked = calls.group_by("pid", "tid").len().sort(["len", "pid", "tid"], descending=[True, False, False])
    return list(ranked.head(_MAX_THREADS).sort("pid", "tid").select("pid", "tid").iter_rows())


# events ----------------------------------------------------------------------------------------------------------


def _gpu_events(
    trace: Trace, key: int, use: GpuUse, *, outer: Window, window: Window
) -> tuple[pl.DataFrame, list[tuple[Lane, pl.DataFrame]]]:
    """Its bubbles, and its lanes with their events."""
    gaps = _gaps(trace, use, outer, window)
    reach = _reach(gaps, window)
    pieces = _pieces(gaps, causes_over(trace, use, outer), reach)
    ops = _touching(ops_of(trace, use), Window("explicit", reach.start_ns, reach.end_ns + 1))
    ops = ops.with_columns(part=pl.col("kind").cast(pl.String), name=op_labels(trace, ops))
    bubbles = _bubbles(gaps, pieces, ops).with_columns(gpu=pl.lit(gpu_label(use)))

    idle = _idle_rows(pieces, window)
    lanes = [(Lane(f"gpu{key}.idle", f"{gpu_label(use)}: idle, by cause", "gpu", _parts_of(idle)), idle)]
    ops = _touching(ops, window)
    streams = ops.filter(pl.col("kind") != "graph")
    for index, (label, theirs) in enumerate(_streams(streams, use, window)):
        own = _event_rows(streams.filter(theirs), window)
        lanes.append((Lane(f"gpu{key}.stream{index}", label, "stream", _parts_of(own)), own))
    copies = _event_rows(ops.filter(pl.col("kind") == "memcpy"), window)
    graphs = _event_rows(ops.filter(pl.col("kind") == "graph"), window)
    for kind, label, own in (("copies", "copies", copies), ("graphs", "CUDA graphs", graphs)):
        if own.height:
            lanes.append((Lane(f"gpu{key}.{kind}", label, kind, _parts_of(own)), own))
    return bubbles, lanes


def _thread_events(trace: Trace, pid: int, tid: int, window: Window) -> list[tuple[Lane, pl.DataFrame]]:
    own = (pl.col("pid") == pid) & (pl.col("tid") == tid)
    label = f"thread {tid} {thread_name(trace, pid, tid) or ''}".strip()
    names = api_names(trace).select("name_id", name="base_name")
    calls = _touching(api_calls(trace).with_columns(call_classes(trace).alias("part")), window)
    calls = calls.filter(own).join(names, on="name_id", how="left", maintain_order="left")
    os_calls = _touching(classified_os_calls(trace), window).filter(own).rename({"class": "part"})
    os_calls = named(trace, os_calls)
    rows = [("api", f"{label}: CUDA API", calls), ("os", f"{label}: OS calls", os_calls)]
    named_parts = pl.col("part").cast(pl.String)
    made = [(kind, words, _event_rows(frame.with_columns(named_parts), window)) for kind, words, frame in rows]
    return [
        (Lane(f"thread{pid}.{tid}.{kind}", words, kind, _parts_of(frame)), frame)
        for kind, words, frame in made
        if frame.height or kind == "api"
    ]


def _touches(window: Window) -> pl.Expr:
    return (pl.col("start_ns") < window.end_ns) & (pl.col("end_ns") >= window.start_ns)


def _touching(rows: pl.DataFrame, window: Window) -> pl.DataFrame:
    """The rows, sorted by start, that have an instant in the window."""
    begun = rows.head(rows["start_ns"].search_sorted(window.end_ns))
    return begun.filter(pl.col("end_ns") >= window.start_ns)


def _event_rows(rows: pl.DataFrame, window: Window) -> pl.DataFrame:
    whole = rows.select(*_SPAN, "part", "name", dur_ns=pl.col("end_ns") - pl.col("start_ns"))
    return clip(whole, window.start_ns, window.end_ns).with_columns(
        count=pl.lit(1, pl.Int64), bubble=pl.lit(None, pl.Int64)
    )


def _parts_of(rows: pl.DataFrame) -> tuple[str, ...]:
    there = set(rows["part"].unique())
    return tuple(part for part in (*OP_KINDS, *dict.fromkeys((*CAUSES, *PARTS))) if part in there)


def _gaps(trace: Trace, use: GpuUse, outer: Window, window: Window) -> pl.DataFrame:
    """Gaps of the outer window that reach into this one: ``start_ns end_ns``."""
    # one busy stretch on either side of the window bounds them
    busy = neighbourhood(busy_of(trace, use), window.start_ns, window.end_ns)
    idle = complement(busy, outer.start_ns, outer.end_ns)
    return idle.filter((pl.col("start_ns") < window.end_ns) & (pl.col("end_ns") > window.start_ns))


def _reach(gaps: pl.DataFrame, window: Window) -> Window:
    """The window with the gaps that reach into it."""
    if gaps.is_empty():
        return window
    return Window("explicit", min(window.start_ns, gaps["start_ns"][0]), max(window.end_ns, gaps["end_ns"][-1]))


def _pieces(gaps: pl.DataFrame, causes: Mapping[str, pl.DataFrame], reach: Window) -> pl.DataFrame:
    """Every instant of the gaps by its cause: ``start_ns end_ns part bubble`` (which of the gaps), by start."""
    nearby = [
        neighbourhood(causes[cause], reach.start_ns, reach.end_ns).with_columns(part=pl.lit(cause)) for cause in CAUSES
    ]
    pieces = clip(pl.concat(nearby), reach.start_ns, reach.end_ns)  # the outer window may have cut the gaps
    bubbles = assign(pieces["start_ns"], gaps).alias("bubble")
    return pieces.with_columns(bubbles).drop_nulls("bubble").sort("start_ns")


def _bubbles(gaps: pl.DataFrame, pieces: pl.DataFrame, ops: pl.DataFrame) -> pl.DataFrame:
    """The gaps with their causes, which each gap is full of, and the operations around them."""
    ns = pl.col("end_ns") - pl.col("start_ns")
    split = pieces.select("bubble", *(pl.when(part=cause).then(ns).otherwise(0).alias(cause) for cause in CAUSES))
    causes = split.group_by("bubble", maintain_order=True).sum().drop("bubble")
    before = ops.unique("end_ns", keep="last", maintain_order=True).select(start_ns="end_ns", before="name")
    after = ops.unique("start_ns", keep="first", maintain_order=True).select(end_ns="start_ns", after="name")
    told = gaps.with_columns(dur_ns=ns).hstack(causes)
    told = told.join(before, on="start_ns", how="left", maintain_order="left")
    return told.join(after, on="end_ns", how="left", maintain_order="left")


def _idle_rows(pieces: pl.DataFrame, window: Window) -> pl.DataFrame:
    return clip(pieces, window.start_ns, window.end_ns).with_columns(
        name=pl.col("part"), count=pl.lit(1, pl.Int64), dur_ns=pl.col("end_ns") - pl.col("start_ns")
    )


def _stacked(bubbles: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(bubbles) if bubbles else pl.DataFrame()


def op_labels(trace: Trace, ops: pl.DataFrame) -> pl.Series:
    """What to call each GPU operation: a kernel's short name and quant type, a copy's label and size, …"""
    keys = ops.select(pl.col("kind").cast(pl.String), "row").with_row_index("at")
    rows = {kind: keys.filter(pl.col("kind") == kind) for kind in ("kernel", "memcpy", "memset")}
    ids = trace.kernels.select("name_id").collect()["name_id"].gather(rows["kernel"]["row"])
    kernels = rows["kernel"].select("at", name_id=ids).join(_kernel_labels(trace), on="name_id", how="left")
    copies = trace.memcpys.select("label", "bytes").collect()[rows["memcpy"]["row"]]
    copied = copies.select(told=pl.format("memcpy {} {} B", pl.col("label").cast(pl.String), "bytes"))["told"]
    sets = trace.memsets.select("bytes").collect()[rows["memset"]["row"]]
    filled = sets.select(told=pl.format("memset {} B", "bytes"))["told"]
    told = pl.concat(
        [
            kernels.select("at", pl.col("told").fill_null("kernel")),
            rows["memcpy"].select("at", told=copied),
            rows["memset"].select("at", told=filled),
        ]
    )
    named_ops = keys.select("at").join(told, on="at", how="left", maintain_order="left")
    return named_ops["told"].fill_null("CUDA graph")


@once_per_trace
def _kernel_labels(trace: Trace) -> pl.DataFrame:
    """``name_id told`` of every kernel name."""
    facts = kernel_facts(trace).select("name_id", "quant")
    names = strings_of(trace, facts["name_id"]).rename({"string_id": "name_id"})
    short = pl.Series("short", [parse_name(name).short for name in names["value"]], dtype=pl.String)
    told = pl.concat_str("short", "quant", separator=" ", ignore_nulls=True)
    return names.with_columns(short).join(facts, on="name_id", how="left").select("name_id", told=told)


# landmarks -------------------------------------------------------------------------------------------------------


def _bubble_landmarks(trace: Trace, window: Window) -> list[Landmark]:
    try:
        found = gaps(trace, window=window)
    except MissingTableError:
        return []
    rows = [
        (-row["dur_ns"], row["start_ns"], row["end_ns"], gpu_label(device.use))
        for device in found.devices
        for row in device.longest.head(BUBBLES).iter_rows(named=True)
    ]
    order = ("largest", "second largest", "third largest")
    return [
        Landmark(f"{order[rank]} bubble: {human_ns(end - start)} on {name}", _with_margin(start, end, window))
        for rank, (_, start, end, name) in enumerate(sorted(rows)[:BUBBLES])
    ]


def _step_landmarks(steps: pl.DataFrame, window: Window, recorded: Window) -> list[Landmark]:
    """The median and the slowest decode step, and the first prefill."""
    inside = steps.filter((pl.col("begin_ns") >= window.start_ns) & (pl.col("end_ns") <= window.end_ns))
    period = pl.col("end_ns") - pl.col("begin_ns")
    decode = inside.filter((pl.col("phase") == "decode") & ~pl.col("last_of_request")).sort(period, "begin_ns")
    warm = decode.filter(~pl.col("cold"))
    prefill = steps.filter(pl.col("phase") == "prefill").sort("begin_ns").head(1)
    chosen = []
    if warm.height:
        chosen.append(("a median decode step", warm[warm.height // 2]))
    if decode.height:
        chosen.append(("the slowest decode step", decode[-1]))
    if prefill.height:
        chosen.append(("the first prefill", prefill))
    spans = [(title, step["begin_ns"][0], step["end_ns"][0]) for title, step in chosen]
    return [
        Landmark(f"{title}: {human_ns(end - begin)}", _with_margin(begin, end, recorded)) for title, begin, end in spans
    ]


def _with_margin(start: int, end: int, limit: Window) -> Window:
    margin = max((end - start) // 8, 5_000)
    return Window("explicit", max(start - margin, limit.start_ns), min(end + margin, limit.end_ns))
