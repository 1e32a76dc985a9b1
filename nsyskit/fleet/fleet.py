"""``run_fleet``: find the traces, make a part of each, put the parts together."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nsyskit.errors import OutputError, TraceFormatError
from nsyskit.fleet.content import UNKNOWN, Stamp, fingerprint, stamp
from nsyskit.fleet.hosts import digests, labels, user_key, without_hosts
from nsyskit.fleet.inputs import Item, find_items
from nsyskit.fleet.part import Part
from nsyskit.fleet.reduce import Found, reduce
from nsyskit.fleet.result import Duplicate, Failure, FleetResult
from nsyskit.fleet.schedulers import Scheduler, make_scheduler
from nsyskit.fleet.store import Store
from nsyskit.fleet.task import Outcome, Task


@dataclass(frozen=True, slots=True)
class Options:
    """How a fleet is read.

    Attributes:
        scheduler: ``local``, ``processes`` or ``dask``; dask_address: of a cluster that runs already.
        workers: processes on this machine; None takes the cores that this process may use.
        memory: bytes that one trace may take; 0 takes a worker's share of its machine.
        timeout_s: seconds that one trace may take; 0 for any.
        threads: of polars in each worker.
        host_names: show the hosts' own names instead of ``host-1``, ``host-2``, …
        nsys: the nsys to export rep files with, on the workers.
    """

    scheduler: str = "processes"
    dask_address: str | None = None
    workers: int | None = None
    memory: int = 0
    timeout_s: float = 0.0
    threads: int = 1
    host_names: bool = False
    nsys: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Told whenever it changes. ``kept``: of those done, parts of an earlier run. ``note``: something to be told."""

    done: int
    of: int
    failed: int
    kept: int
    dashboard: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """What is kept in mind of a part: spellings of its host, and whether a run folder's facts are in it."""

    hosts: tuple[str, ...]
    run: bool


Tell = Callable[[Progress], None]


def run_fleet(
    named: Sequence[str], out: Path, *, options: Options | None = None, tell: Tell = lambda _progress: None
) -> FleetResult:
    """Analyze every trace behind ``named`` (folders, patterns, manifests, traces, URLs), keep parts in ``out``, reduce.

    A trace that cannot be read is listed and stops nothing. Interrupted, the same call goes on where it stopped.

    Raises:
        UsageError: nothing to do, or options that do not fit.
        OutputError: ``out`` holds something else or cannot be written.
        ClusterError: the Dask cluster is gone.
        TraceFormatError: not one trace could be read.
    """
    options = options or Options()
    key = None if options.host_names else user_key()
    items = find_items(named)
    store = Store(out)
    try:
        mapped = _Mapper(items, store, options, key, tell)
        outcomes = mapped.run()
    finally:
        store.close()
    return _reduced(items, outcomes, mapped.origins, key, store.load)


class _Mapper:
    """Hands tasks to a scheduler and keeps what comes back."""

    def __init__(self, items: Sequence[Item], store: Store, options: Options, key: bytes | None, tell: Tell) -> None:
        self._items, self._store, self._options, self._tell = items, store, options, tell
        self._key = key.hex() if key else ""
        self.origins: dict[str, Origin] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._stamps: dict[str, Stamp] = {}
        self._prints: dict[str, str] = {}
        self._busy: set[str] = set()
        self._kept = self._failed = 0
        self._dashboard: str | None = None

    def run(self) -> Mapping[str, Outcome]:
        """Location -> outcome."""
        for item in self._items:
            self._stamps[item.location] = own = stamp(item.location)
            entry = self._store.known(own)
            if entry is not None and self._take(item, Outcome(entry.content, entry.key)):
                self._kept += 1
        todo = deque(item for item in self._items if item.location not in self._outcomes)
        self._report()
        if todo:
            self._look_alike(todo)
            scheduler = make_scheduler(
                self._options.scheduler, address=self._options.dask_address, workers=self._options.workers,
                memory=self._options.memory, tell=self._note,
            )  # fmt: skip
            try:
                self._dashboard = scheduler.dashboard
                self._report()
                self._work(todo, scheduler)
            finally:
                scheduler.close()
        return self._outcomes

    def _look_alike(self, todo: Sequence[Item]) -> None:
        """Fingerprints of those that could hold the same as another, by their size."""
        sizes = Counter(self._stamps[item.location].size for item in todo)
        for item in todo:
            own = self._stamps[item.location]
            if own is not UNKNOWN and sizes[own.size] > 1:
                self._prints[item.location] = fingerprint(item.location, own)

    def _work(self, todo: deque[Item], scheduler: Scheduler) -> None:
        running: dict[str, Item] = {}
        sizes = self._store.keys_of_size()
        while todo or running:
            for _ in range(len(todo)):
                if len(running) >= scheduler.width():
                    break
                item = todo.popleft()
                look = self._prints.get(item.location)
                if look is not None and look in self._busy:
                    todo.append(item)  # the other will tell whether this is the same
                    continue
                if look is not None:
                    self._busy.add(look)
                running[item.location] = item
                scheduler.submit(self._task(item, sizes))
            for task, outcome in scheduler.finished():
                item, own = running.pop(task.location), self._stamps[task.location]
                self._busy.discard(self._prints.get(item.location, ""))
                self._finish(item, own, outcome)
                if outcome.key:
                    sizes.setdefault(own.size, set()).add(outcome.key)

    def _finish(self, item: Item, own: Stamp, outcome: Outcome) -> None:
        if outcome.error is None:
            changed = stamp(item.location) != own  # written while it was read: nobody knows what the part is of
            self._store.put(outcome, UNKNOWN if changed else own)
            if not self._take(item, outcome):
                outcome = Outcome(error=f"{item.name}: its part is damaged; run the same again")
        if outcome.error is not None:
            self._outcomes[item.location] = outcome
            self._failed += 1
        self._report()

    def _take(self, item: Item, outcome: Outcome) -> bool:
        """Accept an outcome whose part is in the store."""
        if outcome.key not in self.origins:
            part = self._store.load(outcome.key)
            if part is None:
                return False
            self.origins[outcome.key] = Origin(tuple(part.facts["hosts"]), run=bool(part.facts["run"]))
        self._outcomes[item.location] = replace(outcome, facts=None, rows=None)  # the store has them
        return True

    def _task(self, item: Item, sizes: Mapping[int, set[str]]) -> Task:
        own, options = self._stamps[item.location], self._options
        return Task(
            name=item.name, location=item.location, members=own.members, known=tuple(sorted(sizes.get(own.size, ()))),
            host_key=self._key, names=options.host_names, nsys=options.nsys, memory=options.memory,
            timeout_s=options.timeout_s, threads=options.threads,
        )  # fmt: skip

    def _note(self, text: str) -> None:
        self._report(text)

    def _report(self, note: str | None = None) -> None:
        done = len(self._outcomes)
        self._tell(Progress(done, len(self._items), self._failed, self._kept, self._dashboard, note))


def _reduced(
    items: Sequence[Item], outcomes: Mapping[str, Outcome], origins: Mapping[str, Origin], key: bytes | None,
    load: Callable[[str], Part | None],
) -> FleetResult:  # fmt: skip
    """Count each content once, give hosts their labels, reduce."""
    chosen = _chosen(items, outcomes, origins)
    distinct = [item for item in items if chosen.get(outcomes[item.location].content) is item]
    own = [origins[outcomes[item.location].key] for item in distinct]
    hosts = [_host(item, origin, key) for item, origin in zip(distinct, own, strict=True)]
    shown = labels(hosts) if key is not None else {host: host for host in hosts if host}
    words = _words(distinct, hosts, own, shown, key) if key is not None else {}

    def named(text: str) -> str:
        return without_hosts(key, text, words) if key is not None else text

    failures = [
        Failure(named(item.name), named(outcome.error), outcome.fault)
        for item in items
        if (outcome := outcomes[item.location]).error is not None
    ]
    if not distinct:
        raise TraceFormatError(
            f"none of {len(items)} traces could be read; the first: {failures[0].error}", hint="check what you named"
        )
    duplicates = [
        Duplicate(named(item.name), named(chosen[outcome.content].name))
        for item in items
        if (outcome := outcomes[item.location]).error is None and chosen[outcome.content] is not item
    ]
    found = (
        Found(named(item.name), shown.get(host or ""), item.labels, _loaded(outcomes[item.location].key, load))
        for item, host in zip(distinct, hosts, strict=True)
    )
    return reduce(found, failed=failures, duplicates=duplicates)


def _chosen(items: Sequence[Item], outcomes: Mapping[str, Outcome], origins: Mapping[str, Origin]) -> dict[str, Item]:
    """Content -> the trace that stands for it: the first by name, before all others one with a run folder's facts."""
    chosen: dict[str, Item] = {}
    for item in items:
        outcome = outcomes[item.location]
        if outcome.error is None:
            first = chosen.setdefault(outcome.content, item)
            if origins[outcome.key].run and not origins[outcomes[first.location].key].run:
                chosen[outcome.content] = item
    return chosen


def _loaded(key: str, load: Callable[[str], Part | None]) -> Part:
    part = load(key)
    if part is None:
        raise OutputError(f"part {key} was lost meanwhile", hint="run the same again: only that one is made anew")
    return part


def _host(item: Item, origin: Origin, key: bytes | None) -> str | None:
    """What stands for the host that a trace was made on: the manifest's word first."""
    told = item.labels.get("host")
    if told is not None:
        return told if key is None else next(iter(digests(key, told)), None)
    return next(iter(origin.hosts), None)


def _words(
    items: Sequence[Item], hosts: Sequence[str | None], own: Sequence[Origin], shown: Mapping[str, str], key: bytes
) -> dict[str, str]:
    """Digest of every spelling of a host -> its label."""
    words: dict[str, str] = {}
    for item, host, origin in zip(items, hosts, own, strict=True):
        if host is not None:
            for spelling in (*origin.hosts, *digests(key, item.labels.get("host"))):
                words.setdefault(spelling, shown[host])
    return words
