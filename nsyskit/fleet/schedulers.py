"""Where map tasks run: in this process, in processes of this machine, on a Dask cluster. Results are the same."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import uuid4

from nsyskit import __version__
from nsyskit.errors import NsyskitError, UsageError
from nsyskit.fleet.child import Child
from nsyskit.fleet.task import Outcome, Task, failed, run_task

_SHARE_OF_MEMORY: Final = 0.8
_CONNECT_S: Final = 20.0
_NO_WORKERS_S: Final = 60.0
_LOOK_S: Final = 2.0
_AHEAD: Final = 2
_KEPT: Final = "start it and run the same again: what is done is kept"


class ClusterError(NsyskitError):
    """The workers of a fleet are gone for good."""

    exit_code = 8


Finished = list[tuple[Task, Outcome]]


class Scheduler(Protocol):
    """Takes tasks and gives outcomes, in any order. ``dashboard`` is a link for people, where there is one."""

    @property
    def dashboard(self) -> str | None: ...

    def width(self) -> int:
        """How many tasks are worth handing over at once."""
        ...

    def submit(self, task: Task) -> None: ...

    def finished(self) -> Finished:
        """What is done since the last call; waits a moment for it."""
        ...

    def close(self) -> None: ...


class Local:
    """In this process, one after the other: for debugging. No limit of memory or time holds."""

    dashboard = None

    def __init__(self) -> None:
        self._tasks: list[Task] = []

    def width(self) -> int:
        return 1

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def finished(self) -> Finished:
        tasks, self._tasks = self._tasks, []
        done = []
        for task in tasks:
            with tempfile.TemporaryDirectory(prefix="nsyskit-fleet-") as scratch:
                done.append((task, run_task(task, Path(scratch))))
        return done

    def close(self) -> None:
        """Nothing is left."""


class Processes:
    """As many processes as workers, each with one trace at a time."""

    dashboard = None

    def __init__(self, workers: int, memory: int) -> None:
        self._workers = workers
        self._memory = memory or machine_memory() // workers
        self._pool = futures.ThreadPoolExecutor(workers)
        self._pending: dict[futures.Future[Outcome], Task] = {}

    def width(self) -> int:
        return self._workers * _AHEAD

    def submit(self, task: Task) -> None:
        task = replace(task, memory=self._memory)
        self._pending[self._pool.submit(in_child, task)] = task

    def finished(self) -> Finished:
        done, _ = futures.wait(self._pending, timeout=1, return_when=futures.FIRST_COMPLETED)
        return [(self._pending.pop(future), future.result()) for future in done]

    def close(self) -> None:
        for future in self._pending:
            future.cancel()
        children = take_children()
        for child in children:
            child.interrupt()
        self._pool.shutdown(wait=True)
        for child in children:
            child.close()


_children: dict[int, Child] = {}
_children_lock = threading.Lock()


def in_child(task: Task) -> Outcome:
    """Run a task in this thread's own child process. Also what a Dask worker runs."""
    with _children_lock:
        child = _children.get(threading.get_ident()) or _children.setdefault(threading.get_ident(), Child())
    return child.run(task)


def take_children() -> list[Child]:
    """All children of this process, to be closed."""
    with _children_lock:
        taken = list(_children.values())
        _children.clear()
    return taken


def on_dask_worker(task: Task) -> dict[str, Any]:
    """Run a task on a Dask worker, within its share of the worker's memory."""
    if not task.memory:
        from distributed import get_worker  # noqa: PLC0415 - only there

        worker = get_worker()
        limit = getattr(getattr(worker, "memory_manager", None), "memory_limit", None) or machine_memory()
        task = replace(task, memory=int(limit * _SHARE_OF_MEMORY) // max(1, worker.state.nthreads))
    return in_child(task).plain()


class Dask:
    """A Dask cluster: one that runs at ``address``, or one of ``workers`` processes of this machine."""

    def __init__(
        self, address: str | None, *, workers: int, memory: int, tell: Callable[[str], None] = lambda _text: None
    ) -> None:
        try:
            import distributed  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise UsageError("Dask is not installed", hint="pip install 'nsyskit[fleet]'") from error
        self._distributed: Any = distributed
        self._tell, self._memory = tell, memory
        self._cluster: Any = None
        for name in ("distributed.client", "distributed.core", "distributed.batched", "distributed.scheduler",
                     "distributed.nanny", "distributed.worker", "tornado.application"):  # fmt: skip
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters of it is told in words of ours
        self._client: Any = self._connected(address, workers)
        self.dashboard: str | None = self._client.dashboard_link
        self._pending: dict[Any, Task] = {}
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._threads, self._asked = 0, 0.0
        self._empty_since: float | None = None
        self._check_workers()

    def _connected(self, address: str | None, workers: int) -> Any:
        if address is None:
            self._cluster = self._distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1",
                silence_logs=logging.CRITICAL,
            )  # fmt: skip
        try:
            return self._distributed.Client(self._cluster or address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:  # TimeoutError is an OSError
            raise UsageError(
                f"no Dask scheduler answers at {address}", hint="check --dask-address and that the scheduler runs"
            ) from error

    def _check_workers(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=_CONNECT_S)
            found = self._client.run(installed_version)
        except (TimeoutError, self._distributed.TimeoutError) as error:
            raise ClusterError(
                "the cluster has no workers", hint="start some (`dask worker ADDRESS`) and run the same again"
            ) from error
        odd = sorted({str(version) for version in found.values() if version != __version__})
        if odd:
            raise UsageError(
                f"workers of the cluster have another nsyskit: {', '.join(odd)}",
                hint=f"install nsyskit {__version__} on them",
            )

    def width(self) -> int:
        if time.monotonic() - self._asked > 1:
            self._asked = time.monotonic()
            with contextlib.suppress(OSError):
                self._threads = sum(self._client.nthreads().values())
        return max(1, self._threads * _AHEAD)

    def submit(self, task: Task) -> None:
        task = replace(task, memory=self._memory)
        key = f"nsyskit-fleet-{next(self._numbers)}-{uuid4().hex[:8]}"
        future = self._client.submit(on_dask_worker, task, key=key, pure=False)
        self._pending[future] = task
        future.add_done_callback(self._done.put)

    def finished(self) -> Finished:
        try:
            future = self._done.get(timeout=1)
        except queue.Empty:
            self._watch()
            return []
        task = self._pending.pop(future)
        outcome = self._outcome(future, task)
        future.release()
        return [(task, outcome)]

    def _outcome(self, future: Any, task: Task) -> Outcome:
        while True:
            try:
                return Outcome.from_plain(future.result(timeout=_LOOK_S))
            except (TimeoutError, self._distributed.TimeoutError):
                self._watch()  # it was done, and went with the worker that held it: another makes it again
            except futures.CancelledError as error:
                raise ClusterError("the Dask scheduler is gone", hint=_KEPT) from error
            except self._distributed.KilledWorker:
                said = "the workers that read it were killed, one after the other"
                return failed(task, f"{task.name} was given up: {said}; use workers with more memory")
            except Exception as error:  # noqa: BLE001 - of a worker, of any kind; the others go on
                self._watch()
                said = f"its worker said {type(error).__name__}: {error}"
                return failed(task, f"{task.name} was given up: {said}; look there")

    def _watch(self) -> None:
        """Waits for workers to come back, but not for ever."""
        if self._client.status not in {"running", "connecting"}:
            raise ClusterError("the Dask scheduler is gone", hint=_KEPT)
        self.width()
        if self._threads:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = time.monotonic()
            self._tell("all workers are gone; waiting for others")
        elif time.monotonic() - self._empty_since > _NO_WORKERS_S:
            raise ClusterError(
                "all workers of the cluster are gone", hint="start some and run the same again: what is done is kept"
            )

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._client.cancel(list(self._pending), force=True)
        with contextlib.suppress(Exception):
            self._client.close()
            if self._cluster is not None:
                self._cluster.close()


def installed_version() -> str:
    """Asked of every worker."""
    return __version__


def machine_memory() -> int:
    """Bytes that this machine, or the group that this process is confined to, can give."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(Path(file).read_text(encoding="ascii")))
    return int(total * _SHARE_OF_MEMORY)


def make_scheduler(
    kind: str, *, address: str | None = None, workers: int | None = None, memory: int = 0,
    tell: Callable[[str], None] = lambda _text: None,
) -> Scheduler:  # fmt: skip
    """The scheduler of a name: ``local``, ``processes`` or ``dask``.

    Raises:
        UsageError: options that do not fit it, no such cluster, Dask is not installed.
        ClusterError: the cluster has no workers.
    """
    if address is not None and kind != "dask":
        raise UsageError(f"--dask-address does not fit --scheduler {kind}", hint="use --scheduler dask")
    if kind == "dask":
        return Dask(address, workers=workers or _cores(), memory=memory, tell=tell)
    if kind == "local":
        return Local()
    return Processes(workers or _cores(), memory)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
