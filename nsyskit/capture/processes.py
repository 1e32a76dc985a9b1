"""Start processes, find everything that came out of them, and end that and nothing else.

nsys starts an agent that belongs to nobody and puts the program into a session of its own: neither the process group
nor the parent leads to it. So each process of a capture carries a mark in its environment, which children inherit.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MARK = "NSYSKIT_CAPTURE"


@dataclass(frozen=True, slots=True)
class Found:
    """A living process. ``started`` (clock ticks since boot) tells it from a later one of the same pid."""

    pid: int
    ppid: int
    started: int
    name: str

    @property
    def is_nsys(self) -> bool:
        return self.name in {"nsys", "QdstrmImporter"} or self.name.startswith("nsys-")


class Processes:
    """The processes of one capture."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.mark = f"{os.getpid()}-{secrets.token_hex(6)}"
        self.environment = {**environment, MARK: self.mark}
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        argv: Sequence[str],
        *,
        stdout: IO[bytes] | int = subprocess.DEVNULL,
        stderr: IO[bytes] | int = subprocess.DEVNULL,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own: a Ctrl-C of the terminal reaches nsyskit alone."""
        process = subprocess.Popen(
            argv, stdin=stdin, stdout=stdout, stderr=stderr, env=self.environment, start_new_session=True
        )
        self._started.append(process)
        return process

    def alive(self) -> tuple[Found, ...]:
        """Every living process of this capture: marked, or below one that was started."""
        table = _process_table()
        ours = {process.pid for process in self._started if process.returncode is None}
        mark = f"{MARK}={self.mark}".encode()
        return tuple(entry for pid, entry in table.items() if _has_mark(pid, mark) or _below(entry, table, ours))

    def program(self) -> tuple[Found, ...]:
        """The traced program's processes: those that are not nsys's own."""
        return tuple(process for process in self.alive() if not process.is_nsys)

    def program_roots(self) -> tuple[Found, ...]:
        """The topmost of the program's processes; the rest is theirs to end."""
        program = self.program()
        pids = {process.pid for process in program}
        return tuple(process for process in program if process.ppid not in pids)

    def still_there(self, process: Found) -> bool:
        """Whether a process that was found before still lives; cheaper than finding it again."""
        current = _read_stat(process.pid)
        return current is not None and current.started == process.started

    def end_program(
        self, process: subprocess.Popen[bytes], *, grace_s: float, hurry: Callable[[], bool] = lambda: False
    ) -> bool:
        """SIGTERM to the program, SIGKILL to what is left of it after the grace; True when it took the SIGKILL.

        ``process`` is what the program runs under: as long as that lives, the program may be yet to come.
        """
        deadline = time.monotonic() + grace_s
        asked: set[Found] = set()
        while self.program() or process.poll() is None:
            if time.monotonic() >= deadline or hurry():
                left = self.program()
                _signal(left, signal.SIGKILL)
                self._wait_gone(self.program, 5.0, lambda: False)
                return bool(left)
            if asked and not self.program():
                return False
            fresh = set(self.program_roots()) - asked
            _signal(fresh, signal.SIGTERM)
            asked |= fresh
            time.sleep(0.05)
        return False

    def end_all(self, *, grace_s: float = 3.0) -> tuple[str, ...]:
        """End whatever is left, nsys included; the names of what had to be killed."""
        if self._wait_gone(self.alive, 0.0, lambda: False):
            return ()
        _signal(self.alive(), signal.SIGTERM)
        killed: tuple[Found, ...] = ()
        if not self._wait_gone(self.alive, grace_s, lambda: False):
            killed = self.alive()
            _signal(killed, signal.SIGKILL)
            self._wait_gone(self.alive, 5.0, lambda: False)
        return tuple(sorted({process.name for process in killed}))

    def _wait_gone(self, what: Callable[[], tuple[Found, ...]], timeout_s: float, hurry: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + timeout_s
        while True:
            self._reap()
            if not what():
                return True
            if time.monotonic() >= deadline or hurry():
                return False
            time.sleep(0.05)

    def _reap(self) -> None:
        for process in self._started:
            process.poll()


def left_behind() -> tuple[Found, ...]:
    """Processes of captures whose nsyskit is gone: it was killed before it could end them."""
    table = _process_table()
    prefix = f"{MARK}=".encode()
    left = []
    for pid, entry in table.items():
        mark = next((v for v in _environment_of(pid) if v.startswith(prefix)), None)
        if mark is not None and pid != os.getpid():
            owner = mark[len(prefix) :].partition(b"-")[0]
            if not owner.isdigit() or int(owner) not in table:
                left.append(entry)
    return tuple(left)


def _signal(processes: Iterable[Found], number: signal.Signals) -> None:
    for process in processes:
        current = _read_stat(process.pid)
        if current is not None and current.started == process.started:  # the pid is still the process we saw
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def _process_table() -> dict[int, Found]:
    entries = (_read_stat(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208  names suffice
    return {entry.pid: entry for entry in entries if entry is not None}


def _read_stat(pid: int) -> Found | None:
    """A process from ``/proc``, None when it is gone or a zombie that its parent has not collected."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    if not fields or fields[0] in {"Z", "X"}:
        return None
    return Found(pid, int(fields[1]), int(fields[19]), head.partition("(")[2])


def _environment_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _has_mark(pid: int, mark: bytes) -> bool:
    return mark in _environment_of(pid)


def _below(entry: Found, table: Mapping[int, Found], roots: set[int]) -> bool:
    seen: set[int] = set()
    current: Found | None = entry
    while current is not None and current.pid not in seen:
        if current.pid in roots:
            return True
        seen.add(current.pid)
        current = table.get(current.ppid)
    return False
