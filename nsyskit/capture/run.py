"""One run: everything that its stages share, and the stages that all kinds of program have."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nsyskit.capture.clock import Clock
from nsyskit.capture.disk import full_error, full_folder
from nsyskit.capture.secrets import hide_secrets
from nsyskit.errors import CaptureError, NsysError, NsyskitError
from nsyskit.nsys import importer, importer_mend, run_watched

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nsyskit.capture.config import CaptureConfig
    from nsyskit.capture.disk import DiskWatch
    from nsyskit.capture.endpoints import ServerSamples
    from nsyskit.capture.interrupts import Interrupts
    from nsyskit.capture.load import Request
    from nsyskit.capture.nvml import NvmlSampler
    from nsyskit.capture.processes import Processes
    from nsyskit.capture.ui import Ui
    from nsyskit.nsys import Nsys
    from nsyskit.runfolder import RunFolder
    from nsyskit.trace import Trace

TRIES = 3
_ERROR_WORDS = ("error", "fail", "unable", "cannot", "could not", "exception", "terminate called", "no such", "invalid")


@dataclass(slots=True, kw_only=True)
class Run:
    """A capture while it runs. What its stages find out gathers here and goes into ``run.json``."""

    config: CaptureConfig
    nsys: Nsys | None
    folder: RunFolder
    ui: Ui
    processes: Processes
    interrupts: Interrupts
    nvml: NvmlSampler
    disk: DiskWatch
    clock: Clock
    notes: list[str] = field(default_factory=list)
    times: dict[str, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    samples: ServerSamples | None = None
    returncode: int | None = None
    ended_by_us: bool = False
    first_output_ns: int | None = None
    trace: Trace | None = None

    def note(self, text: str) -> None:
        """Something to know, in ``run.json`` and on stderr."""
        self.notes.append(text)
        self.ui.note(text)

    def mark(self, name: str) -> None:
        """A moment of the run, in Unix nanoseconds."""
        self.times[f"{name}_ns"] = self.clock.now_ns()

    def tell_nsys(self, argv: Sequence[str], *, progress: Callable[[float], None] | None = None) -> tuple[int, str]:
        """Run an nsys command beside the program, and keep what it says."""
        code, said = run_watched(argv, progress, environment=self.processes.environment, watch=self.disk)
        self.log(argv, said)
        return code, said

    @property
    def grace_s(self) -> float:
        """How long a program may take to end; with a full disk nsys would keep it waiting for ever."""
        return 2.0 if self.disk.found_full else self.config.stop_timeout_s

    def log(self, argv: Sequence[str], said: str) -> None:
        """Add to ``nsys.log``; a full disk must not hide the error that it caused."""
        try:
            with self.folder.nsys_log.open("a", encoding="utf-8") as file:
                file.write(f"$ {' '.join(hide_secrets(argv))}\n{said}\n")
        except OSError as error:
            self.notes.append(f"nsys.log is not whole ({error.strerror})")


def last_errors(*logs: Path, lines: int = 2) -> str:
    """The last lines of a program's output that speak of an error, else its last line, as one line."""
    spoken: list[str] = []
    for log in logs:
        try:
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - 65536))
                text = file.read().decode(errors="replace")
        except OSError:
            continue
        spoken += [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    said = [line for line in spoken if any(word in line.lower() for word in _ERROR_WORDS)] or spoken[-1:]
    return " | ".join(line[:300] for line in said[-lines:])


def check_session_free(run: Run) -> None:
    """Refuse a session name that is taken: the session is somebody else's.

    Raises:
        CaptureError: with the command that ends that session.
    """
    if run.nsys is None:
        return
    name = run.config.session
    _, said = run_watched((str(run.nsys.path), "sessions", "list"))
    if any(line.split()[-1:] == [name] for line in said.splitlines()):
        raise CaptureError(
            f"an nsys session named {name} is already there", hint=f"end it with: nsys shutdown --session={name}"
        )


def launch_error(run: Run) -> NsyskitError | None:
    """What nsys itself said when it could not launch the program, None when it did not complain."""
    said = last_errors(run.folder.program_err, run.folder.program_out, lines=5)
    if "not allowed in this state" in said:
        name = run.config.session
        return CaptureError(
            f"an nsys session named {name} is already there", hint=f"end it with: nsys shutdown --session={name}"
        )
    if "Program not found" in said:
        return CaptureError(f"{run.config.program[0]} was not found by nsys", hint="give its full path")
    return None


def nsys_stumbled(run: Run) -> bool:
    """Whether nsys failed by itself before it launched anything: about one launch in thirty of 2022.4 does.

    Its agent races with its command line: an exception of its own, or a connection that is reset.
    """
    said = [line for log in (run.folder.program_out, run.folder.program_err) for line in text_lines(log)]
    own = (
        "Throw in function",
        "Dynamic exception type",
        "std::exception::what",
        "[boost::",
        "[QuadD",
        "Connection reset",
    )
    return bool(said) and all(line.strip().startswith(own) or "QuadD" in line for line in said)


def try_again(run: Run) -> None:
    """Prepare another try of the same under a new session name; nothing of the last one is left."""
    run.processes.end_all()
    name = run.config.session
    run.config = replace(run.config, session=f"{name}-again")
    run.note("nsys failed by itself before it launched the program, and was tried again")


def text_lines(log: Path) -> list[str]:
    """The lines of a short log that are not blank."""
    try:
        text = log.read_bytes()[:65536].decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.replace("\r", "\n").splitlines() if line.strip()]


def missing_rep(run: Run, said: str) -> NsyskitError:
    """Why there is no rep file after nsys claimed to have written one."""
    assert run.nsys is not None  # noqa: S101  only nsys could have written one
    text = said.lower()
    full = full_folder(run.folder.path)
    if full is not None or "no space left" in text or "disk is full" in text:
        return full_error(full or run.folder.path)
    if "importer" in text or importer(run.nsys) is None:
        return NsysError(
            f"nsys {run.nsys.version_text} does not find its importer and left no rep file",
            hint=f"mend it with: {importer_mend(run.nsys)}",
        )
    last = [line.strip() for line in said.splitlines() if line.strip()][-1:]
    return NsysError(
        f"nsys wrote no rep file{f' ({last[0][:200]})' if last else ''}",
        hint=f"see {run.folder.nsys_log}, and whether {run.folder.path} and TMPDIR have room",
    )


def wait_for_exit(run: Run, process: subprocess.Popen[bytes], title: str) -> None:
    """Wait for a process, telling how long it has been running."""
    begin = time.monotonic()
    with run.ui.stage(title) as advance:
        while process.poll() is None:
            advance(None, f"{time.monotonic() - begin:.0f} s")
            run.disk()
            time.sleep(0.05)
