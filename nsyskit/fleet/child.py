"""A process of its own for reading traces: one that dies, hangs or takes too much memory takes nothing else with it.

``python -m nsyskit.fleet.child SCRATCH`` reads one task a line and answers with one outcome a line; it ends when its
owner does.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from nsyskit.fleet.task import Outcome, Task, failed
from nsyskit.units import human_bytes

_LOOK_S: Final = 0.1
_PIECE: Final = 1 << 16
_IDLE_S: Final = 30.0
_OOM: Final = b"memory allocation"


class _Died(Exception):  # noqa: N818 - says what happened
    """The child is gone; ``final``: trying again would end the same way."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


class Child:
    """Owns one process; starts it when first needed and again when it is gone. For one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch = Path(tempfile.mkdtemp(prefix="nsyskit-fleet-"))
        self._said = (self._scratch / "stderr").open("w+b")
        self._inside = self._scratch / "work"
        self._buffer = b""
        self._threads = 0
        self._closed = False
        atexit.register(self.close)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def run(self, task: Task) -> Outcome:
        """The outcome of a task. A process that died under it is replaced and given one more try."""
        for last in (False, True):
            try:
                return self._ask(task)
            except _Died as died:
                self._stop()
                if died.final or last or self._closed:
                    return failed(task, f"{task.name} was given up: {died}")
        raise AssertionError  # pragma: no cover - the loop returns

    def interrupt(self) -> None:
        """End what another thread runs here; to be closed afterwards."""
        self._closed = True
        if (process := self._process) is not None:
            _kill(process)

    def close(self) -> None:
        """End the process and remove what it left."""
        self._closed = True
        self._stop()
        self._said.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
        atexit.unregister(self.close)

    def _ask(self, task: Task) -> Outcome:
        process = self._started(task.threads)
        assert process.stdin is not None  # noqa: S101 - as it was opened
        try:
            process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise _Died(self._last_words()) from error
        return Outcome.from_plain(json.loads(self._answer(process, task)))

    def _answer(self, process: subprocess.Popen[bytes], task: Task) -> bytes:
        assert process.stdout is not None  # noqa: S101 - as it was opened
        until = time.monotonic() + task.timeout_s if task.timeout_s else None
        while b"\n" not in self._buffer:
            if select.select([process.stdout], [], [], _LOOK_S)[0]:
                more = os.read(process.stdout.fileno(), _PIECE)
                if not more:
                    raise _Died(self._last_words())
                self._buffer += more
            if task.memory and own_memory(process.pid) > task.memory:
                raise _Died(
                    f"reading it took more than {human_bytes(task.memory)} of memory; "
                    "allow more with --memory, with fewer --workers, or capture a shorter window",
                    final=True,
                )  # fmt: skip
            if until is not None and time.monotonic() > until:
                raise _Died(f"reading it took more than {task.timeout_s:g} s; allow more with --timeout", final=True)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _started(self, threads: int) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None and threads == self._threads:
            return self._process
        self._stop()
        shutil.rmtree(self._inside, ignore_errors=True)
        self._inside.mkdir()
        self._said.truncate(0)
        self._buffer, self._threads = b"", threads
        environment = os.environ | {
            "POLARS_MAX_THREADS": str(threads),
            # polars' allocator: hand pages back between traces
            "_RJEM_MALLOC_CONF": "dirty_decay_ms:200,muzzy_decay_ms:0",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nsyskit.fleet.child", str(self._inside)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=environment, start_new_session=True,
        )  # fmt: skip
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        _kill(process)
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close() if pipe else None
        process.wait()

    def _last_words(self) -> str:
        """Why the process ended by itself, from its exit code and what it wrote."""
        code = self._process.wait() if self._process else 0
        self._said.seek(0)
        if _OOM in self._said.read()[-_PIECE:]:
            return "memory ran out while reading it; use fewer --workers or a machine with more memory"
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return (
            f"the process that read it was {how}, twice; run again if that came from outside, else use fewer --workers"
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process and what it started: an nsys that exports."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def own_memory(pid: int) -> int:
    """Bytes of memory that are this process's alone; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = [line.split() for line in status.splitlines() if line.startswith(("RssAnon:", "VmSwap:"))]
    return sum(int(words[1]) * 1024 for words in found)


def serve(scratch: Path) -> None:
    """Answer tasks from stdin until it closes; then end at once, whatever is being done."""
    from nsyskit.fleet.task import run_task  # noqa: PLC0415 - where it is needed

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may speak on the line of answers
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks, scratch), daemon=True).start()
    while True:
        try:
            values = json.loads(tasks.get(timeout=_IDLE_S))
        except queue.Empty:
            return  # whoever needs it starts another
        task = replace(Task(**values), members=tuple(values["members"]), known=tuple(values["known"]))
        answers.write(json.dumps(run_task(task, scratch).plain()).encode() + b"\n")
        answers.flush()


def _listen(tasks: queue.SimpleQueue[bytes], scratch: Path) -> None:
    for line in sys.stdin.buffer:
        tasks.put(line)
    shutil.rmtree(scratch.parent, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
