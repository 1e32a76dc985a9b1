"""One run in several reports, one a rank or rpc-server: clocks aligned, who worked and who idled meanwhile.

nsys counts each report's time from its own session's start and writes down when that was in UTC. Tried with nsys 2022.4
and 2023.4, `profile` and sessions, on one machine: an event's time plus that start is the system clock's time to within
8 µs. Between machines it is as good as their clocks agree, which no report tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final, Literal

import polars as pl

from nsyskit.analysis.devices import DeviceLedger, devices
from nsyskit.analysis.gpus import busy_of, gpu_uses
from nsyskit.analysis.several_gpus import together
from nsyskit.analysis.trust import trust
from nsyskit.analysis.windows import parse_window, steady_window, window_all, window_gpu
from nsyskit.errors import MissingTableError, UsageError
from nsyskit.intervals import clip, complement, intersect, length, union
from nsyskit.trace import Trace, TraceMeta, Window

Clock = Literal["one machine", "several machines", "unknown machines"]
ONE_MACHINE_NS: Final = 10_000
"""How far two reports of one machine may be apart once aligned; 8 µs is the most that was seen."""


@dataclass(frozen=True, slots=True)
class Rank:
    """One report.

    Attributes:
        name: what tells it from the others.
        number: of its process in the job, as the launcher set it; None where it set none.
        shift_ns: added to its times to get those of the first report.
        ledgers: of its GPUs, over the common window.
        busy_ns: when any of its GPUs did anything.
        warnings: what makes its numbers less than certain.
    """

    name: str
    number: int | None
    shift_ns: int
    ledgers: tuple[DeviceLedger, ...]
    busy_ns: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RanksResult:
    """Several reports over one window. Ranks are named by their place in ``ranks``.

    Attributes:
        window: what all of them cover, in the first one's clock.
        clock: what is known of where they ran; ``uncertainty_ns`` is None where clocks of several machines are not
            known to agree.
        busy_count: ``busy ns share``: the window by how many ranks' GPUs did anything; sums to it.
        busy_sets: ``places ns``: the window by whose did, most first; sums to it.
        waits: ``waiting other idle_ns low_ns high_ns``: ``waiting`` did nothing while ``other`` was busy; the least and
            the most of it with the other's clock moved by the uncertainty either way, null where that is unknown.
        shared: GPUs that more than one report shows at work: ``(uuid, places)``.
    """

    window: Window
    clock: Clock
    uncertainty_ns: int | None
    ranks: tuple[Rank, ...]
    busy_count: pl.DataFrame
    busy_sets: pl.DataFrame
    waits: pl.DataFrame
    shared: tuple[tuple[str, tuple[int, ...]], ...]


def ranks(traces: Sequence[Trace], *, names: Sequence[str] = (), window: str | None = None) -> RanksResult:
    """Put reports of one run on one clock.

    Args:
        traces: at least two.
        names: what to call them; their files' names where none are given.
        window: ``steady``, ``gpu`` or ``all``, what all of them cover of it; or ``START:END`` in the first one's clock.
            None: steady where all have that, else gpu.

    Raises:
        UsageError: fewer than two, or they have no time in common.
        MissingTableError: a report does not tell when its session began, or holds no GPU work.
    """
    if len(traces) < 2:
        raise UsageError("one report is no several ranks", hint="name two or more, or use nsyskit analyze")
    names = names or [trace.meta.name for trace in traces]
    shifts = _shifts(traces, names)
    common = _common(traces, shifts, window)
    clock = _clock([trace.meta for trace in traces])
    uncertainty = ONE_MACHINE_NS if clock == "one machine" else None
    busy = [_busy(trace, shift) for trace, shift in zip(traces, shifts, strict=True)]
    count, sets = together(busy, common)
    return RanksResult(
        window=common,
        clock=clock,
        uncertainty_ns=uncertainty,
        ranks=tuple(
            _rank(trace, name, shift, rows, common)
            for trace, name, shift, rows in zip(traces, names, shifts, busy, strict=True)
        ),
        busy_count=count,
        busy_sets=sets,
        waits=_waits(busy, common, uncertainty),
        shared=_shared(traces),
    )


def rank_names(traces: Sequence[Path]) -> list[str]:
    """File names; those of equal name are told apart by the folder they lie in, else by a number."""
    plain = [path.absolute().name for path in traces]
    counts = Counter(plain)
    names = [
        f"{path.absolute().parent.name}/{name}" if counts[name] > 1 else name
        for path, name in zip(traces, plain, strict=True)
    ]
    again = Counter(names)
    return [f"{name} ({place})" if again[name] > 1 else name for place, name in enumerate(names, 1)]


def _shifts(traces: Sequence[Trace], names: Sequence[str]) -> list[int]:
    starts = []
    for trace, name in zip(traces, names, strict=True):
        if not gpu_uses(trace):
            raise MissingTableError(f"GPU work in {name}", hint="name reports of programs that used a GPU")
        start = trace.meta.capture.session_start_utc_ns
        if start is None:
            raise MissingTableError(
                f"session start in {name}, so that it cannot be aligned",
                hint="export its rep file again with nsys 2022.4 or later",
            )
        starts.append(start)
    return [start - starts[0] for start in starts]


def _common(traces: Sequence[Trace], shifts: Sequence[int], text: str | None) -> Window:
    """What all reports cover, in the first one's clock."""
    if text is not None and text not in {"all", "gpu", "steady"}:
        return parse_window(text, traces[0])
    steady = [steady_window(trace) for trace in traces] if text in {None, "steady"} else []
    found = [window for window in steady if window is not None]
    if text == "steady" and len(found) < len(traces):
        raise UsageError("not every report has a steady window", hint="use --window gpu or START:END")
    if len(found) < len(traces):
        found = [window_all(trace) if text == "all" else window_gpu(trace) for trace in traces]
    start = max(window.start_ns + shift for window, shift in zip(found, shifts, strict=True))
    end = min(window.end_ns + shift for window, shift in zip(found, shifts, strict=True))
    if start >= end:
        raise UsageError("the reports have no time in common", hint="name reports of one run, or --window START:END")
    return Window(found[0].kind, start, end)


def _clock(metas: Sequence[TraceMeta]) -> Clock:
    """Where the reports come from: by the GPUs that their machines have, else by the machines' names."""
    gpus = [{gpu.uuid for gpu in meta.gpus if gpu.uuid} for meta in metas]
    if all(one & other for one, other in combinations(gpus, 2)):
        return "one machine"
    machines = {meta.capture.host for meta in metas}
    if None in machines:
        return "unknown machines"
    return "one machine" if len(machines) == 1 else "several machines"


def _busy(trace: Trace, shift: int) -> pl.DataFrame:
    """When any GPU of a report did anything, in the first one's clock."""
    rows = [busy_of(trace, use) for use in gpu_uses(trace)]
    return _moved(union(pl.concat(rows)), shift)


def _moved(rows: pl.DataFrame, shift: int) -> pl.DataFrame:
    return rows.with_columns(pl.col("start_ns", "end_ns") + shift)


def _rank(trace: Trace, name: str, shift: int, busy: pl.DataFrame, common: Window) -> Rank:
    own = Window(common.kind, common.start_ns - shift, common.end_ns - shift)
    return Rank(
        name=name,
        number=trace.meta.capture.rank,
        shift_ns=shift,
        ledgers=devices(trace, window=own).devices,
        busy_ns=length(clip(busy, common.start_ns, common.end_ns)),
        warnings=tuple(note.message for note in trust(trace, window=own) if note.level != "note"),
    )


def _waits(busy: Sequence[pl.DataFrame], common: Window, uncertainty: int | None) -> pl.DataFrame:
    rows = []
    for waiting, own in enumerate(busy):
        idle = complement(own, common.start_ns, common.end_ns)
        for other, fellow in enumerate(busy):
            if other == waiting:
                continue
            off = (0,) if uncertainty is None else (0, -uncertainty, uncertainty)
            found = [length(intersect(idle, _moved(fellow, by))) for by in off]
            known = (None, None) if uncertainty is None else (min(found), max(found))
            rows.append((waiting, other, found[0], *known))
    schema = dict.fromkeys(("waiting", "other", "idle_ns", "low_ns", "high_ns"), pl.Int64)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _shared(traces: Sequence[Trace]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    places: dict[str, list[int]] = {}
    for place, trace in enumerate(traces):
        uuids = {gpu.gpu: gpu.uuid for gpu in trace.meta.gpus}
        for uuid in sorted({uuid for use in gpu_uses(trace) if use.gpu is not None and (uuid := uuids.get(use.gpu))}):
            places.setdefault(uuid, []).append(place)
    return tuple((uuid, tuple(found)) for uuid, found in sorted(places.items()) if len(found) > 1)
