"""Programs captured beside the main one, such as the rpc-servers of an ``--rpc`` run."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsyskit.capture.address import listens, option
from nsyskit.capture.clean import clean_trace
from nsyskit.capture.plan import profile_argv, stop_argv
from nsyskit.capture.processes import Processes
from nsyskit.capture.run import last_errors, missing_rep
from nsyskit.capture.secrets import hide_secrets
from nsyskit.capture.store import write_json
from nsyskit.errors import CaptureError, NsyskitError
from nsyskit.nsys import export
from nsyskit.runfolder import SCHEMA, RunFolder

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

    from nsyskit.capture.config import CaptureConfig
    from nsyskit.capture.run import Run

_DEFAULT_RPC_PORT = 50052
_LISTEN_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Beside:
    """One program beside, its processes apart from the main one's."""

    config: CaptureConfig
    folder: RunFolder
    processes: Processes
    process: subprocess.Popen[bytes]


@contextmanager
def run_beside(run: Run, configs: Sequence[CaptureConfig]) -> Iterator[None]:
    """Have these programs run and captured for as long as the main one takes.

    Raises:
        CaptureError: one of them did not begin to listen.
    """
    started: list[Beside] = []
    try:
        for config in configs:
            started.append(_start(run, config))
            _wait_listening(run, started[-1])
        yield
    finally:
        with run.interrupts.deferred():
            for beside in started:
                _end(run, beside)


def _start(run: Run, config: CaptureConfig) -> Beside:
    folder = RunFolder(config.folder)
    folder.path.mkdir(parents=True)
    argv = config.program if run.nsys is None else profile_argv(config, run.nsys)
    own = Processes({**run.processes.environment})
    with folder.program_out.open("wb") as out, folder.program_err.open("wb") as err:
        return Beside(config, folder, own, own.start(argv, stdout=out, stderr=err))


def _wait_listening(run: Run, beside: Beside) -> None:
    port = int(option(beside.config.program, "-p", "--port") or _DEFAULT_RPC_PORT)
    deadline = time.monotonic() + _LISTEN_TIMEOUT_S
    with run.ui.stage(f"waiting for {beside.config.program[0]} to listen on port {port}"):
        while time.monotonic() < deadline:
            pids = [process.pid for process in beside.processes.program()]
            if pids and listens(pids, port):
                return
            if beside.process.poll() is not None:
                said = last_errors(beside.folder.program_err, beside.folder.program_out)
                raise CaptureError(
                    f"{beside.config.program[0]} ended with exit code {beside.process.returncode}: {said}",
                    hint=f"its output is in {beside.folder.path}",
                )
            time.sleep(0.1)
    raise CaptureError(
        f"{beside.config.program[0]} did not listen on port {port} within {_LISTEN_TIMEOUT_S:g} s",
        hint="name its port with -p or --port",
    )


def _end(run: Run, beside: Beside) -> None:
    """Stop its window, end it, export its trace; what fails is a note of the main run."""
    said = ""
    if beside.process.poll() is None and run.nsys is not None:
        _, said = run.tell_nsys(stop_argv(beside.config, run.nsys))
    beside.processes.end_program(beside.process, grace_s=beside.config.stop_timeout_s, hurry=run.interrupts.hurry)
    beside.processes.end_all(grace_s=10.0)
    state = "complete"
    try:
        if run.nsys is not None:
            if not beside.folder.rep.exists():
                raise missing_rep(run, said)
            export(run.nsys, beside.folder.rep, beside.folder.sqlite, kind="sqlite")
            if beside.config.redact:
                for note in clean_trace(beside.folder):
                    run.note(f"{beside.folder.path.name}: {note}")
    except NsyskitError as error:
        state = "failed"
        run.note(f"{beside.folder.path.name}: {error}")
    facts = {
        "schema": SCHEMA, "kind": beside.config.kind, "command": list(hide_secrets(beside.config.program)),
        "outcome": {"state": state},
    }  # fmt: skip
    write_json(beside.folder.run_json, facts)
