"""The capture of a program's whole life: llama-bench, llama-cli and any other."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from nsyskit.capture.address import option
from nsyskit.capture.plan import profile_argv, stop_argv
from nsyskit.capture.run import TRIES, Run, launch_error, missing_rep, nsys_stumbled, try_again, wait_for_exit
from nsyskit.errors import CaptureError, NsyskitError, OutputError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

    from nsyskit.capture.config import ProgramKind

_NSYS_WRITES_S = 600.0
_STUCK_S = 2.0


def run_program(run: Run) -> None:
    """Run a program under nsys until it ends; an interruption ends the window first, then the program.

    Raises:
        CaptureError: it could not be started.
        NsysError: nsys wrote no rep file.
    """
    for _ in range(TRIES - 1):
        _run_once(run)
        if run.nsys is None or run.folder.rep.exists() or not nsys_stumbled(run):
            return _check_rep(run)
        try_again(run)
    _run_once(run)
    return _check_rep(run)


def _run_once(run: Run) -> None:
    argv = run.config.program if run.nsys is None else profile_argv(run.config, run.nsys)
    run.mark("begin")
    with run.folder.program_err.open("wb") as err:
        process = _start(run, argv, err)
        try:
            wait_for_exit(run, process, "running the program")
        except BaseException:
            with run.interrupts.deferred():
                _end_early(run, process)
            raise
        finally:
            run.returncode = process.poll()
            run.mark("end")


def _start(run: Run, argv: tuple[str, ...], err: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start it; where the first output matters, through a pipe that is timed."""
    if run.config.kind not in {"cli", "completion"}:
        with run.folder.program_out.open("wb") as out:
            return run.processes.start(argv, stdout=out, stderr=err)
    reading, writing = os.pipe()
    try:
        process = run.processes.start(argv, stdout=writing, stderr=err)
    finally:
        os.close(writing)
    threading.Thread(target=_copy, args=(run, reading, run.folder.program_out), daemon=True).start()
    return process


def _copy(run: Run, reading: int, path: Path) -> None:
    """Copy a pipe to a file until its end, noting when the first text after the echoed prompt came."""
    echo = prompt_echo(run.config.program, run.config.kind)
    seen = b""
    with os.fdopen(reading, "rb", buffering=0) as pipe, path.open("wb", buffering=0) as file:
        while chunk := pipe.read(65536):
            at_ns = run.clock.now_ns()
            with suppress(OSError):  # a full disk must not stop the program
                file.write(chunk)
            if echo is not None and run.first_output_ns is None:
                seen += chunk
                _, found, answer = seen.partition(echo) if echo else (b"", b"", seen)
                if answer.strip() and bool(found) is bool(echo):
                    run.first_output_ns = at_ns


def prompt_echo(program: Sequence[str], kind: ProgramKind) -> bytes | None:
    """What stands before the first token in a program's output: the prompt; None when that is not known."""
    prompt = option(program, "-p", "--prompt")
    if kind == "completion" and "--no-display-prompt" in program:
        return b""
    if prompt is None:
        return None
    return f"> {prompt}".encode() if kind == "cli" else prompt.strip().encode()


def _end_early(run: Run, process: subprocess.Popen[bytes]) -> None:
    """Keep the window so far, then end the program."""
    if process.poll() is None and run.nsys is not None and not run.disk.found_full:
        with run.ui.stage("writing the rep file") as advance:
            run.tell_nsys(stop_argv(run.config, run.nsys), progress=lambda share: advance(share, ""))
    if process.poll() is None:
        run.ended_by_us = True
        with run.ui.stage("ending the program"):
            killed = run.processes.end_program(process, grace_s=run.grace_s, hurry=run.interrupts.hurry)
            if killed:
                run.note(f"the program did not end within {run.config.stop_timeout_s:g} s of SIGTERM and was killed")
    deadline = time.monotonic() + (_STUCK_S if run.disk.found_full else _NSYS_WRITES_S)
    while process.poll() is None and time.monotonic() < deadline and not run.interrupts.hurry():
        time.sleep(0.05)


def _check_rep(run: Run) -> None:
    if run.nsys is None or run.folder.rep.exists():
        return
    complaint: NsyskitError | None = launch_error(run)
    if complaint is None:
        said = "\n".join(_tail(path) for path in (run.folder.program_out, run.folder.program_err))
        complaint = missing_rep(run, said)
    if isinstance(complaint, CaptureError | OutputError):
        run.returncode = None  # nsys's code, not the program's
    raise complaint


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-8192:].decode(errors="replace").replace("\r", "\n")
    except OSError:
        return ""
