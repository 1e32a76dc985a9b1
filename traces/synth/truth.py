"""What a perfect analysis of the file must find, from the schedule: its own knowledge of what each row is for, and sums
over pieces of time (``sweep``). Follows the definitions to the letter; traces/README.md says where they needed reading.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from traces.synth import world as w
from traces.synth.layout import Layout, has_call, key, long_calls
from traces.synth.sweep import NOTHING, Spans, Sweep, Union, join
from traces.synth.tape import I64, Bools, Columns, take
from traces.synth.world import Step

CAUSES: Final = ("unknown", "peer", "dispatch", "submit", "sync", "cuda", "profiler", "blocked", "os", "host")
BUSY: Final = ("kernel", "graph", "memcpy", "memset")
GAP_EDGES: Final = (1_000, 5_000, 50_000, 500_000, 5_000_000)
PARTS: Final = ("sync", "submit", "cuda", "blocked", "os", "host")
SUBMIT, SYNC, CUDA = range(3)
_SUBMITTING = (w.R_LAUNCH, w.R_CAPTURED, w.R_GRAPH_LAUNCH, w.R_COPY, w.R_MEMSET, w.R_PREFETCH)
_WAITING = (w.R_SYNC, w.R_SYNC_COPY)
_PROFILER_WORDS = ("flush", "overhead", "buffer")

Window = tuple[int, int]
Json = dict[str, Any]


def spans(columns: Columns, where: Bools | None = None) -> Spans:
    """Start and end of a table's rows, or of those for which ``where`` holds."""
    return (columns["start"], columns["end"]) if where is None else (columns["start"][where], columns["end"][where])


@dataclass(frozen=True)
class Facts:
    """A layout with what the analyses of it share."""

    layout: Layout

    @cached_property
    def api_key(self) -> I64:
        return key(self.layout.api)

    @cached_property
    def blocked_copies(self) -> I64:
        """Keys of asynchronous copies with pageable memory whose call did not return before the copy was done."""
        ops = self.layout.ops
        pageable = (ops["type"] == w.MEMCPY) & ((ops["src"] == w.PAGEABLE) | (ops["dst"] == w.PAGEABLE))
        blocked: I64 = key(ops)[pageable & has_call(ops) & (ops["api_end"] >= ops["end"])]
        return blocked

    @cached_property
    def call_class(self) -> I64:
        """Of each API row, its class."""
        role = self.layout.api["role"]
        kind = np.where(np.isin(role, _SUBMITTING), SUBMIT, np.where(np.isin(role, _WAITING), SYNC, CUDA))
        blocked = (role == w.R_COPY) & np.isin(self.api_key, self.blocked_copies)
        return np.where(blocked, SYNC, kind).astype(np.int64)

    @cached_property
    def lost_launches(self) -> Bools:
        """API rows that launched a graph of which the file shows nothing."""
        api = self.layout.api
        lost: Bools = (api["role"] == w.R_GRAPH_LAUNCH) & ~np.isin(self.api_key, key(self.layout.ops))
        return lost

    def lost_spans(self, threads: Iterable[int], until: int) -> Spans:
        """From each lost launch to the end of the next sync of its thread."""
        api = self.layout.api
        parts = [NOTHING]
        for thread in threads:
            mine = api["thread"] == thread
            waits = take(api, mine & (self.call_class == SYNC))
            lost = take(api, mine & self.lost_launches)
            at = np.searchsorted(waits["start"], lost["end"])
            ends = np.append(waits["end"], until)[at]
            parts.append((lost["start"], ends))
        return join(*parts)

    def losers(self, gpu: int, window: Window) -> list[int]:
        """Threads whose lost launches may have run on the GPU: its drivers, and threads of their processes of which
        the file shows on no GPU anything.
        """
        threads = self.layout.world.threads
        drivers = self.drivers(gpu, window).tolist()
        processes = {threads[thread].process.number for thread in drivers}
        others = {thread for one in self.gpus() if one != gpu for thread in self.drivers(one, window).tolist()}
        shy = [one.number for one in threads if one.process.number in processes and one.number not in others]
        return sorted({*drivers, *shy})

    def drivers(self, gpu: int, window: Window) -> I64:
        """Threads of whose calls an operation of the GPU that starts in the window comes."""
        ops = self.layout.ops
        inside = (ops["start"] >= window[0]) & (ops["start"] < window[1])
        return np.unique(ops["thread"][inside & (ops["gpu"] == gpu) & has_call(ops)])

    def gpus(self) -> list[int]:
        return sorted(set(self.layout.ops["gpu"].tolist()))

    def fed_by(self, process: int) -> I64:
        """GPUs on which the process has operations."""
        ops = self.layout.ops
        return np.unique(ops["gpu"][ops["proc"] == process])


@dataclass(frozen=True)
class Pieces:
    """A GPU's window cut into pieces, each of one kind: a part of busy, or a cause of idleness."""

    sweep: Sweep
    busy: Bools
    parts: dict[str, Bools]
    ops: Columns

    def totals(self, names: Iterable[str], where: Bools | None = None) -> Json:
        everywhere = np.ones_like(self.busy) if where is None else where
        return {name: self.sweep.total(self.parts[name] & everywhere) for name in names}


def device_pieces(facts: Facts, gpu: int, window: Window, *cuts: Spans) -> Pieces:
    """Definitions, section 3. ``cuts``: further spans at whose ends to cut."""
    ops = take(facts.layout.ops, facts.layout.ops["gpu"] == gpu)
    causes = _cause_spans(facts, ops, gpu, window)
    sweep = Sweep(window, spans(ops), *causes.values(), *cuts)
    kinds = [sweep.cover(spans(ops, ops["type"] == kind)) for kind in (w.KERNEL, w.GRAPH, w.MEMCPY, w.MEMSET)]
    busy = np.logical_or.reduce(kinds)
    parts = dict(zip(BUSY, _first_of(kinds), strict=True)) | _idle(facts, sweep, busy, ops, causes)
    return Pieces(sweep, busy, parts, ops)


def device_ledger(facts: Facts, gpu: int, window: Window) -> Json:
    """Definitions, section 3, as the report has it."""
    pieces = device_pieces(facts, gpu, window)
    ops, sweep = pieces.ops, pieces.sweep
    kernel_sum = _clipped_sum(ops, ops["type"] == w.KERNEL, window)
    kinds = {f"{name}_ns": total for name, total in pieces.totals(BUSY).items()}
    return {
        "gpu": gpu, "window_ns": window[1] - window[0], "busy_ns": sweep.total(pieces.busy), **kinds,
        "kernel_sum_ns": kernel_sum, "overlap_ns": kernel_sum - kinds["kernel_ns"],
        "idle_ns": sweep.total(~pieces.busy), "idle": pieces.totals(CAUSES), "gap_hist": _gap_hist(pieces),
        "samples": _sampled(facts, pieces, facts.drivers(gpu, window)),
        "drivers": [_thread_id(facts, thread) for thread in facts.drivers(gpu, window).tolist()],
    }  # fmt: skip


def _sampled(facts: Facts, pieces: Pieces, threads: I64) -> Json:
    """CPU samples of driver threads in idle instants that user code or the operating system owns: innermost frames."""
    samples, bounds = facts.layout.samples, pieces.sweep.bounds
    inside = (samples["start"] >= bounds[0]) & (samples["start"] < bounds[-1])
    mine = take(samples, inside & np.isin(samples["thread"], threads))
    at = np.searchsorted(bounds, mine["start"], side="right") - 1
    found: Json = {}
    for cause in GROUPS["host-bound"]:
        chains = mine["chain"][pieces.parts[cause][at]].tolist()
        frames = Counter(facts.layout.world.chains[chain][0] for chain in chains)
        if frames:
            found[cause] = dict(sorted(frames.items(), key=lambda item: (-item[1], item[0])))
    return found


def _gap_hist(pieces: Pieces) -> list[Json]:
    """Stretches of idleness by length; a bin takes its lower edge."""
    idle = np.concatenate([[False], ~pieces.busy, [False]])
    bounds = pieces.sweep.bounds
    length = bounds[np.flatnonzero(idle[:-1] & ~idle[1:])] - bounds[np.flatnonzero(~idle[:-1] & idle[1:])]
    bins = np.digitize(length, GAP_EDGES)
    return [
        {"from_ns": low, "count": int((bins == at).sum()), "total_ns": int(length[bins == at].sum())}
        for at, low in enumerate((0, *GAP_EDGES))
    ]


def _cause_spans(facts: Facts, ops: Columns, gpu: int, window: Window) -> dict[str, Spans]:
    """Spans of every cause of idleness, ``host`` aside; ``lost``: a graph launch of which nothing is shown."""
    layout = facts.layout
    threads = facts.drivers(gpu, window)
    api, osrt = layout.api, layout.osrt
    ours = np.isin(api["thread"], threads)
    waiting = has_call(ops) & (ops["api_end"] < ops["start"])
    os_ours = np.isin(osrt["thread"], threads)
    return {
        "lost": facts.lost_spans(facts.losers(gpu, window), window[1]),
        "dispatch": (ops["api_end"][waiting], ops["start"][waiting]),
        "submit": spans(api, ours & (facts.call_class == SUBMIT)),
        "sync": spans(api, ours & (facts.call_class == SYNC)),
        "cuda": spans(api, ours & (facts.call_class == CUDA)),
        "profiler": spans(layout.overheads, _profiling(facts, threads)),
        "blocked": spans(osrt, os_ours & (osrt["blocked"] == 1)),
        "os": spans(osrt, os_ours & (osrt["blocked"] == 0)),
        "peer": join(
            NOTHING, *(_peer(facts, ops, waiting, gpu, process) for process in np.unique(ops["proc"]).tolist())
        ),
    }


def _peer(facts: Facts, ops: Columns, waiting: Bools, gpu: int, process: int) -> Spans:
    """Where an operation of this process waits and another GPU that it feeds is busy."""
    everything = facts.layout.ops
    fed = facts.fed_by(process)
    others = spans(everything, np.isin(everything["gpu"], fed[fed != gpu]))
    mine = waiting & (ops["proc"] == process)
    handed = (ops["api_end"][mine], ops["start"][mine])
    if not len(others[0]) or not len(handed[0]):
        return NOTHING
    sweep = Sweep((int(handed[0].min()), int(handed[1].max())), others, handed)
    both = sweep.cover(others) & sweep.cover(handed)
    return sweep.bounds[:-1][both], sweep.bounds[1:][both]


def _profiling(facts: Facts, threads: I64) -> Bools:
    overheads = facts.layout.overheads
    names = facts.layout.world.strings.values
    telling = [any(word in names[at].lower() for word in _PROFILER_WORDS) for at in overheads["name"].tolist()]
    owners = np.unique([facts.layout.world.threads[thread].process.number for thread in threads.tolist()] or [-1])
    same = np.isin(overheads["proc"], owners) & np.array(telling, dtype=bool)
    counts: Bools = np.isin(overheads["thread"], threads) | same
    return counts


def _idle(facts: Facts, sweep: Sweep, busy: Bools, ops: Columns, causes: dict[str, Spans]) -> dict[str, Bools]:
    covered = {cause: sweep.cover(where) for cause, where in causes.items()}
    called = covered["submit"] | covered["sync"] | covered["cuda"]
    orphans = np.unique(ops["start"][~has_call(ops)])
    ends_at = sweep.next_start(busy)
    ends_at_orphan = np.isin(ends_at, orphans) & (ends_at < sweep.window[1])
    unknown = covered["lost"] | (~called & ends_at_orphan)
    if not len(facts.layout.api["start"]):
        unknown = np.ones_like(busy)
    rules = [busy, unknown, *(covered[cause] for cause in CAUSES[1:-1]), np.ones_like(busy)]
    return dict(zip(CAUSES, _first_of(rules)[1:], strict=True))


def _first_of(rules: list[Bools]) -> list[Bools]:
    """Of each piece, only the first rule that holds."""
    taken = np.zeros_like(rules[0])
    parts = []
    for rule in rules:
        parts.append(rule & ~taken)
        taken = taken | rule
    return parts


def _clipped_sum(columns: Columns, where: Bools, window: Window) -> int:
    start, end = spans(columns, where)
    return int(np.maximum(0, np.minimum(end, window[1]) - np.maximum(start, window[0])).sum())


def _thread_id(facts: Facts, thread: int) -> Json:
    one = facts.layout.world.threads[thread]
    return {"pid": one.process.pid, "tid": one.tid}


def thread_ledger(facts: Facts, thread: int, gpus: list[int], window: Window) -> Json:
    """Definitions, section 4."""
    layout = facts.layout
    api, osrt, ops = layout.api, layout.osrt, layout.ops
    mine, os_mine = api["thread"] == thread, osrt["thread"] == thread
    families = [
        spans(api, mine & (facts.call_class == SYNC)), spans(api, mine & (facts.call_class == SUBMIT)),
        spans(api, mine & (facts.call_class == CUDA)), spans(osrt, os_mine & (osrt["blocked"] == 1)),
        spans(osrt, os_mine & (osrt["blocked"] == 0)),
    ]  # fmt: skip
    feeding = spans(ops, np.isin(ops["gpu"], gpus))
    sweep = Sweep(window, feeding, *families)
    busy = sweep.cover(feeding)
    rules = [*(sweep.cover(family) for family in families), np.ones_like(busy)]
    ledger: Json = {**_thread_id(facts, thread), "name": layout.world.threads[thread].name,
                    "window_ns": window[1] - window[0], "gpus": gpus}  # fmt: skip
    for part, where in zip(PARTS, _first_of(rules), strict=True):
        ledger[f"{part}_busy_ns"] = sweep.total(where & busy)
        ledger[f"{part}_idle_ns"] = sweep.total(where & ~busy)
    return ledger


def _feeds(facts: Facts, window: Window) -> dict[int, list[int]]:
    """Driver threads and the GPUs that each feeds."""
    feeds: dict[int, list[int]] = {}
    for gpu in facts.gpus():
        for thread in facts.drivers(gpu, window).tolist():
            feeds.setdefault(thread, []).append(gpu)
    return dict(sorted(feeds.items()))


def sync_facts(facts: Facts, window: Window) -> Json:
    """Definitions, section 5. Calls, sums and shares: whole calls that start in the window. ``wait_ns``, ``idle_ns``:
    clipped, a union per thread, summed over threads.
    """
    api = facts.layout.api
    inside = (api["start"] >= window[0]) & (api["start"] < window[1])
    functions = inside & (api["role"] == w.R_SYNC)
    waiting = inside & (facts.call_class == SYNC)
    took = api["end"] - api["start"]
    total, everything = int(took[functions].sum()), int(took[inside].sum())
    wait, idle = _waited(facts, window)
    return {
        "calls": int(functions.sum()), "total_ns": total, "api_total_ns": everything,
        "share_of_api": total / everything if everything else None,
        "sync_copy_share": int(took[waiting].sum()) / everything if everything else None,
        "wait_ns": wait, "idle_ns": idle,
        "wait_share": wait / (wait + idle) if (wait + idle) * 100 >= max(1, window[1] - window[0]) else None,
        "by_class": _by_class(facts, functions), "copies_by_class": _by_class(facts, waiting & ~functions),
    }  # fmt: skip


def _waited(facts: Facts, window: Window) -> tuple[int, int]:
    api, ops = facts.layout.api, facts.layout.ops
    feeds = _feeds(facts, window)
    wait = idle = 0
    for thread in np.unique(api["thread"]).tolist():
        waits = spans(api, (api["thread"] == thread) & (facts.call_class == SYNC))
        feeding = spans(ops, np.isin(ops["gpu"], feeds.get(thread, [])))
        sweep = Sweep(window, waits, feeding)
        inside, busy = sweep.cover(waits), sweep.cover(feeding)
        wait += sweep.total(inside & busy)
        idle += sweep.total(inside & ~busy)
    return wait, idle


def _by_class(facts: Facts, which: Bools) -> Json:
    """Each call's class: what was unfinished on what it waits for, and how much of it the GPU was busy."""
    api = facts.layout.api
    calls = take(api, which)
    names = ("no_wait", "upload", "gpu_wait", "host_bound")
    kind = np.full(len(calls["start"]), 3)
    feeds = _feeds(facts, windows(facts)["all"])
    for thread, device in sorted(set(zip(calls["thread"].tolist(), calls["device"].tolist(), strict=True))):
        here = (calls["thread"] == thread) & (calls["device"] == device)
        kind[here] = _classify(facts, take(calls, here), device, feeds.get(thread, []))
    took = calls["end"] - calls["start"]
    return {
        name: {"calls": int((kind == at).sum()), "total_ns": int(took[kind == at].sum())}
        for at, name in enumerate(names)
    }


def _classify(facts: Facts, calls: Columns, device: int, fed: list[int]) -> I64:
    """Classes of the calls of one thread on one device; ``fed``: the GPUs that the thread feeds."""
    ops = facts.layout.ops
    context = take(ops, (ops["proc"] == calls["proc"][0]) & (ops["device"] == device))
    anything, beyond_upload = np.zeros((2, len(calls["start"])), dtype=bool)
    for stream in np.unique(context["stream"]).tolist():
        awaits = (calls["stream"] == stream) | (calls["stream"] < 0)
        queue = take(context, context["stream"] == stream)
        upload = (queue["type"] == w.MEMCPY) & (queue["what"] == w.HTOD)
        anything |= awaits & _unfinished(queue, calls)
        beyond_upload |= awaits & _unfinished(take(queue, ~upload), calls)
    busy = Union.of(spans(ops, np.isin(ops["gpu"], fed))).within(spans(calls))
    mostly = busy * 2 >= calls["end"] - calls["start"]
    return np.where(~anything, 0, np.where(~beyond_upload, 1, np.where(mostly, 2, 3))).astype(np.int64)


def _unfinished(queue: Columns, calls: Columns) -> Bools:
    """Of each call, whether the queue holds something handed over before it that is not done when it begins. Of
    operations without a call the file says only when they ran: they count if they run during the wait.
    """
    known = has_call(queue)
    return _any_after(queue["api_end"][known], queue["end"][known], calls["start"], calls["start"]) | _any_after(
        queue["start"][~known], queue["end"][~known], calls["end"] - 1, calls["start"]
    )


def _any_after(entered: I64, done: I64, by: I64, at: I64) -> Bools:
    """Whether among what had entered ``by`` then, anything is done later than ``at``."""
    if not len(entered):
        return np.zeros(len(by), dtype=bool)
    order = np.argsort(entered, kind="stable")
    latest = np.maximum.accumulate(done[order])
    index = np.searchsorted(entered[order], by, side="right") - 1
    return (index >= 0) & (latest[np.maximum(index, 0)] > at)


def launch_facts(facts: Facts) -> Json:
    """Definitions, section 6, over the whole file."""
    ops, api = facts.layout.ops, facts.layout.api
    kernels = take(ops, ops["type"] == w.KERNEL)
    paired = take(kernels, has_call(kernels))
    first = take(paired, np.unique(key(paired), return_index=True)[1])
    queue = first["start"] - first["api_end"]
    role = api["role"]
    launches = int((role == w.R_GRAPH_LAUNCH).sum())
    shown = len(np.intersect1d(facts.api_key[role == w.R_GRAPH_LAUNCH], key(ops)))
    names = ((w.KERNEL, "kernels"), (w.MEMCPY, "memcpys"), (w.MEMSET, "memsets"), (w.GRAPH, "graphs"))
    orphans = {name: int(((ops["type"] == kind) & ~has_call(ops)).sum()) for kind, name in names}
    return {
        "kernel_pairs": len(paired["start"]), "launch_pairs": len(first["start"]),
        "api_ns_total": int((first["api_end"] - first["api_start"]).sum()),
        "queue_count": int((queue >= 0).sum()), "queue_ns_total": int(queue[queue >= 0].sum()),
        "kern_ns_total": int((paired["end"] - paired["start"]).sum()),
        "shorter_than_launch_count": int(
            ((first["end"] - first["start"]) < (first["api_end"] - first["api_start"])).sum()
        ),
        "orphans": orphans, "excluded_capture": _captured(api),
        "graph": {
            "launches": launches, "captures": int((role == w.R_END_CAPTURE).sum()),
            "instantiations": int((role == w.R_INSTANTIATE).sum()), "updates": int((role == w.R_UPDATE).sum()),
            "destroys": int((role == w.R_DESTROY).sum()), "shown": shown,
            "coverage": shown / launches if launches else None,
        },
    }  # fmt: skip


def _captured(api: Columns) -> int:
    """Launches between the begin and the end of a capture, both of which are in the file."""
    role, capture = api["role"], api["capture"]
    framed = np.intersect1d(capture[role == w.R_BEGIN_CAPTURE], capture[role == w.R_END_CAPTURE])
    return int(((role == w.R_CAPTURED) & np.isin(capture, framed)).sum())


def copy_facts(facts: Facts) -> list[Json]:
    """Copies by label, memory on the host's side, and purpose."""
    ops = facts.layout.ops
    copies = take(ops, ops["type"] == w.MEMCPY)
    host = np.where(copies["src"] == w.DEVICE, copies["dst"], copies["src"])
    groups = np.stack([copies["what"], host, copies["purpose"]])
    rows = []
    for label, memory, purpose in np.unique(groups, axis=1).T.tolist():
        mine = take(copies, (groups == np.array([[label], [memory], [purpose]])).all(axis=0))
        rows.append({
            "label": w.COPY_NAMES[label], "memory": w.MEMORY_NAMES[memory], "purpose": w.PURPOSES[purpose],
            "count": len(mine["start"]), "bytes": int(mine["bytes"].sum()),
            "total_ns": int((mine["end"] - mine["start"]).sum()),
            "blocked": int(np.isin(key(mine), facts.blocked_copies).sum()),
        })  # fmt: skip
    return rows


def kernel_facts(facts: Facts) -> tuple[list[Json], list[Json]]:
    """Kernels by demangled name, and by the category that the schedule meant."""
    ops = facts.layout.ops
    kernels = take(ops, ops["type"] == w.KERNEL)
    took = kernels["end"] - kernels["start"]
    classes = facts.layout.world.kernels.catalogue.classes
    counts = np.bincount(kernels["what"], minlength=len(classes)).tolist()
    totals = np.bincount(kernels["what"], weights=took, minlength=len(classes)).astype(np.int64).tolist()
    by_name: dict[str, list[Any]] = {}
    by_category: dict[str, list[int]] = {}
    for one, count, total in zip(classes, counts, totals, strict=True):
        if count:
            named = by_name.setdefault(one.demangled, [0, 0, one.short, one.category])
            named[0], named[1] = named[0] + count, named[1] + total
            sums = by_category.setdefault(one.category, [0, 0])
            sums[0], sums[1] = sums[0] + count, sums[1] + total
    names = [
        {"name": name, "short": v[2], "category": v[3], "count": v[0], "total_ns": v[1]} for name, v in by_name.items()
    ]
    categories = [{"category": name, "count": v[0], "total_ns": v[1]} for name, v in by_category.items()]
    return _by_total(names), _by_total(categories)


def role_facts(facts: Facts) -> list[Json]:
    """Matrix kernels of decode steps by the tensor that they multiply with: sums over all layers, and by layer."""
    ops = facts.layout.ops
    world = facts.layout.world
    decode = np.array([step.n_tokens if step.phase == "decode" else 0 for step in world.steps] + [0])
    batch = decode[ops["step"]]
    which = (ops["type"] == w.KERNEL) & (ops["part"] >= 0) & (batch > 0)
    mine, batch = take(ops, which), batch[which]
    took = mine["end"] - mine["start"]
    rows: dict[tuple[int, str], Json] = {}
    for n_tokens, part in np.unique(np.stack([batch, mine["part"]]), axis=1).T.tolist():
        own = (batch == n_tokens) & (mine["part"] == part)
        what, count, total = world.kernels.catalogue.parts[part], int(own.sum()), int(took[own].sum())
        row = rows.setdefault((n_tokens, what.role), {
            "n_tokens": n_tokens, "role": what.role, "count": 0, "total_ns": 0, "bytes": 0, "layers": {},
        })  # fmt: skip
        row["count"], row["total_ns"] = row["count"] + count, row["total_ns"] + total
        row["bytes"] += count * what.bytes
        row["layers"][str(what.layer)] = total
    return sorted(rows.values(), key=lambda row: (row["n_tokens"], -row["total_ns"], row["role"]))


def _by_total(rows: list[Json]) -> list[Json]:
    return sorted(rows, key=lambda row: (-row["total_ns"], row.get("name") or row.get("category")))


def api_facts(facts: Facts) -> list[Json]:
    """API calls by name as stored: count and sum."""
    return _named(facts, facts.layout.api)


def _named(facts: Facts, table: Columns) -> list[Json]:
    took = table["end"] - table["start"]
    names = facts.layout.world.strings.values
    rows = []
    for name in np.unique(table["name"]).tolist():
        mine = table["name"] == name
        rows.append({"name": names[name], "count": int(mine.sum()), "total_ns": int(took[mine].sum())})
    return _by_total(rows)


def step_facts(facts: Facts) -> list[Json]:
    """The steps as they were run. Operations belong to the step that issued them, waits to the step they start in."""
    layout = facts.layout
    steps = layout.world.steps
    n = len(steps)
    ops, api = layout.ops, layout.api
    kernels, copies = ops["type"] == w.KERNEL, ops["type"] == w.MEMCPY
    counts = {
        "kernels": _per_step(ops, kernels, n), "graph_rows": _per_step(ops, ops["type"] == w.GRAPH, n),
        "launches": _per_step(api, api["role"] == w.R_LAUNCH, n),
        "captured_launches": _per_step(api, api["role"] == w.R_CAPTURED, n),
        "graph_launches": _per_step(api, api["role"] == w.R_GRAPH_LAUNCH, n), "copies": _per_step(ops, copies, n),
    }  # fmt: skip
    moved = {
        purpose: _per_step(ops, copies & (ops["purpose"] == at), n, ops["bytes"])
        for at, purpose in enumerate(w.PURPOSES)
    }
    begins = set(zip(api["thread"].tolist(), api["start"].tolist(), strict=True)) if n else set()
    rows = []
    for at, step in enumerate(steps):
        sizes = {purpose: values[at] for purpose, values in moved.items() if values[at]}
        rows.append(
            {
                **_step(step, layout),
                "begin_in_file": (step.thread, step.begin) in begins,
                **{name: v[at] for name, v in counts.items()},
                "bytes": sizes,
            }
        )
    return rows


def _per_step(table: Columns, which: Bools, n: int, weights: I64 | None = None) -> list[int]:
    mine = which & (table["step"] >= 0)
    values = None if weights is None else weights[mine]
    counts: list[int] = np.bincount(table["step"][mine], weights=values, minlength=n).astype(np.int64).tolist()
    return counts


def _step(step: Step, layout: Layout) -> Json:
    return {
        "index": step.index, "pid": layout.world.processes[step.process].pid,
        "tid": layout.world.threads[step.thread].tid, "context": step.context, "phase": step.phase,
        "n_tokens": step.n_tokens, "n_outputs": step.n_outputs, "n_seq": step.n_seq, "n_kv": step.n_kv,
        "requests": list(step.requests), "n_generating": step.n_generating,
        "begin_ns": step.begin, "forward_end_ns": step.forward_end,
        "end_ns": step.end, "last_of_request": step.last_of_request, "holds_capture": step.warm,
    }  # fmt: skip


def phase_facts(steps: list[Step]) -> Json:
    """Per phase: steps, tokens, and the sum of the periods of those that another step of the request follows."""
    phases: Json = {}
    for phase in ("prefill", "decode", "mixed"):
        mine = [step for step in steps if step.phase == phase]
        followed = [step for step in mine if not step.last_of_request]
        if mine:
            period = sum(step.end - step.begin for step in followed)
            tokens = sum(step.n_tokens for step in followed)
            phases[phase] = {
                "count": len(mine), "tokens": sum(step.n_tokens for step in mine),
                "outputs": sum(step.n_outputs for step in mine), "periods": len(followed), "period_ns": period,
                "period_tokens": tokens, "ms_per_token": period / tokens / 1e6 if tokens else None,
            }  # fmt: skip
    return phases


def windows(facts: Facts) -> dict[str, Window]:
    """The windows of section 2 that apply."""
    ops, api, steps = facts.layout.ops, facts.layout.api, facts.layout.world.steps
    gpu = (int(ops["start"].min()), int(ops["end"].max()))
    first = min(gpu[0], int(api["start"].min())) if len(api["start"]) else gpu[0]
    last = max(gpu[1], int(api["end"].max())) if len(api["end"]) else gpu[1]
    found = {"all": (first, last), "gpu": gpu}
    warm = warm_up(steps)
    if warm < len(steps):
        ordered = sorted(steps, key=lambda step: step.begin)
        found["steady"] = (ordered[warm].begin, max(step.end for step in ordered))
    return found


def warm_up(steps: list[Step]) -> int:
    """How many steps are warm-up: up to the first two in a row that are neither the first of their phase nor hold a
    graph capture, an instantiation or a module load.
    """
    ordered = sorted(steps, key=lambda step: step.begin)
    seen: set[str] = set()
    cold: list[bool] = []
    for step in ordered:
        cold.append(step.warm or step.phase not in seen)
        seen.add(step.phase)
    for at in range(len(cold)):
        if not any(cold[at : at + 2]):
            return at
    return len(cold)


GROUPS: Final = {
    "pipeline-bound": ("peer",), "launch-bound": ("dispatch", "submit"), "sync-bound": ("sync",),
    "driver-bound": ("cuda",), "host-bound": ("host", "os", "blocked"), "none": ("unknown", "profiler"),
}  # fmt: skip


def verdict_facts(facts: Facts, window: Window) -> Json:
    """Definitions, section 10, on the GPU with most busy time, inside the steps of the window."""
    launch = launch_facts(facts)
    shown = launch["kernel_pairs"] + sum(launch["orphans"].values())
    error = _trust_error(launch, shown + int((facts.layout.ops["type"] == w.GRAPH).sum()))
    if error:
        return {"bottleneck": "none", "error": error}
    steps = _step_spans(facts.layout.world.steps)
    choices = {gpu: device_pieces(facts, gpu, window, steps) for gpu in facts.gpus()}
    inside = {gpu: pieces.sweep.cover(steps) for gpu, pieces in choices.items()}
    busy = {gpu: pieces.sweep.total(pieces.busy & inside[gpu]) for gpu, pieces in choices.items()}
    gpu = max(busy, key=lambda one: (busy[one], -one))
    return _judge(gpu, choices[gpu], inside[gpu])


def _trust_error(launch: Json, shown: int) -> str | None:
    if launch["graph"]["launches"] and not launch["graph"]["shown"]:
        return "graphs_missing"
    return None if shown else "kernels_missing"


def _step_spans(steps: list[Step]) -> Spans:
    return np.array([step.begin for step in steps]), np.array([step.end for step in steps])


def _judge(gpu: int, pieces: Pieces, inside: Bools) -> Json:
    sweep = pieces.sweep
    total, busy = sweep.total(inside), sweep.total(pieces.busy & inside)
    parts = pieces.totals((*BUSY, *CAUSES), inside)
    groups = {name: sum(parts[cause] for cause in causes) for name, causes in GROUPS.items()}
    within = sweep.cover(_gpu_segments(pieces.ops))
    host = groups["host-bound"]
    between = sum(sweep.total(pieces.parts[cause] & inside & within) for cause in GROUPS["host-bound"])
    ranked = sorted(groups, key=lambda name: -groups[name])
    first, second = groups[ranked[0]], groups[ranked[1]]
    name = ranked[0]
    if not busy:
        name = "idle"
    elif busy >= 0.85 * total:
        name = "copy-bound" if parts["memcpy"] >= 0.3 * busy else "gpu-bound"
    elif first - second <= 0.1 * first:
        name = "mixed"
    elif name == "host-bound" and between * 2 >= host:
        name = "cpu-offload-bound"
    return {
        "bottleneck": name, "gpu": gpu, "inside_ns": total, "busy_ns": busy,
        "busy_share": busy / total if total else None,
        "parts": parts, "groups": groups, "host_between_segments_ns": between,
        "bounds": {cause: total / (total - parts[cause]) for cause in CAUSES if 0 < parts[cause] < total},
    }  # fmt: skip


def _gpu_segments(ops: Columns) -> Spans:
    """Of each step, from its first operation on the GPU to its last."""
    mine = take(ops, ops["step"] >= 0)
    if not len(mine["start"]):
        return NOTHING
    n = int(mine["step"].max()) + 1
    first = np.full(n, np.iinfo(np.int64).max)
    last = np.zeros(n, dtype=np.int64)
    np.minimum.at(first, mine["step"], mine["start"])
    np.maximum.at(last, mine["step"], mine["end"])
    return first[last > 0], last[last > 0]


def step_ledgers(facts: Facts, gpu: int, window: Window) -> list[Json]:
    """Per step, what the GPU did: parts of busy and causes of idleness that are not zero. Sums to the step."""
    steps = facts.layout.world.steps
    pieces = device_pieces(facts, gpu, window, _step_spans(steps))
    order = np.argsort([step.begin for step in steps], kind="stable")
    begins = np.array([steps[at].begin for at in order.tolist()])
    ends = np.array([steps[at].end for at in order.tolist()])
    at = np.searchsorted(begins, pieces.sweep.bounds[:-1], side="right") - 1
    inside = (at >= 0) & (pieces.sweep.bounds[1:] <= ends[np.maximum(at, 0)])
    ledgers: list[Json] = [{} for _ in steps]
    for name, where in pieces.parts.items():
        mine = where & inside
        sums = np.bincount(at[mine], weights=pieces.sweep.length[mine], minlength=len(steps)).astype(np.int64)
        for place in np.flatnonzero(sums).tolist():
            ledgers[int(order[place])][name] = int(sums[place])
    return ledgers


def build(layout: Layout, *, provenance: Json, full: bool = True) -> Json:
    """The document. ``full=False`` leaves out what needs a sweep or a list of steps, for very large traces."""
    facts = Facts(layout)
    found = windows(facts)
    names, categories = kernel_facts(facts)
    document: Json = {
        "schema": "nsyskit.synthetic-truth/1", "provenance": provenance, "facts": layout.facts,
        "sources": {"cuda": True, "osrt": layout.osrt_collected and len(layout.osrt["start"]) > 0,
                    "samples": len(layout.samples["start"]) > 0},
        "removed": layout.removed, "rows": _rows(layout),
        "gpus": [{"gpu": gpu.number, "name": gpu.model.name} for gpu in layout.world.gpus],
        "kernels": names, "categories": categories, "api": api_facts(facts),
        "api_duplicates": _named(facts, take(layout.api, long_calls(layout))) if layout.backtraces else [],
        "os": _named(facts, layout.osrt),
        "copies": copy_facts(facts), "launch": launch_facts(facts), "phases": phase_facts(layout.world.steps),
        "program": layout.program, "windows": {},
    }  # fmt: skip
    for kind, window in found.items():
        document["windows"][kind] = {"start_ns": window[0], "end_ns": window[1]}
        if full:
            document["windows"][kind] |= _window(facts, window)
    if full:
        document["verdict"] = verdict_facts(facts, found.get("steady", found["gpu"]))
        document["roles"] = role_facts(facts)
        document["steps"] = _steps(facts, document["verdict"].get("gpu"), found["all"])
    return document


def _steps(facts: Facts, gpu: int | None, window: Window) -> list[Json]:
    """The steps; with their ledgers where one thread drives, so that steps do not overlap."""
    rows = step_facts(facts)
    if gpu is not None and len({step.thread for step in facts.layout.world.steps}) == 1:
        for row, ledger in zip(rows, step_ledgers(facts, gpu, window), strict=True):
            row["ledger"] = ledger
    return rows


def _window(facts: Facts, window: Window) -> Json:
    return {
        "devices": [device_ledger(facts, gpu, window) for gpu in facts.gpus()],
        "threads": [thread_ledger(facts, thread, gpus, window) for thread, gpus in _feeds(facts, window).items()],
        "sync": sync_facts(facts, window),
    }


def _rows(layout: Layout) -> Json:
    kinds = np.bincount(layout.ops["type"], minlength=4).tolist()
    return {
        "kernels": kinds[w.KERNEL], "memcpys": kinds[w.MEMCPY], "memsets": kinds[w.MEMSET], "graphs": kinds[w.GRAPH],
        "api_calls": len(layout.api["start"]), "syncs": len(layout.syncs["start"]),
        "os_calls": len(layout.osrt["start"]), "overheads": len(layout.overheads["start"]),
        "samples": len(layout.samples["start"]),
    }  # fmt: skip
