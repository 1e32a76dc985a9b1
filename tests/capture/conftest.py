"""Captures as a user runs them: nsyskit in a process of its own, its folder, and what it leaves running."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
needs_nsys = pytest.mark.skipif(shutil.which("nsys") is None, reason="no nsys on PATH")


def program(name: str, *args: object) -> list[str]:
    return [sys.executable, str(PROGRAMS / name), *map(str, args)]


@dataclass
class Captured:
    """A capture that runs or has run."""

    process: subprocess.Popen
    folder: Path
    out: str = ""
    err: str = ""
    marks: list[str] = field(default_factory=list)

    @property
    def code(self) -> int:
        return self.process.returncode

    @property
    def facts(self) -> dict:
        return json.loads((self.folder / "run.json").read_text())

    def wait(self, timeout: float = 60) -> "Captured":
        out, err = self.process.communicate(timeout=timeout)
        self.out += out
        self.err += err
        return self

    def until(self, text: str, timeout: float = 30) -> None:
        """Read its stderr up to a line that holds this text."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            line = self.process.stderr.readline()
            self.err += line
            if text in line:
                return
            assert line, f"ended before {text!r}: {self.err}"
        raise AssertionError(f"no {text!r} in {self.err}")

    def signal(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)


@pytest.fixture
def capture(tmp_path):
    """Start a capture: ``capture(options, program)``. At the end nothing of it may be left running."""
    mark = f"NSYSKIT_TEST={os.getpid()}-{tmp_path.name}"
    name, _, value = mark.partition("=")
    started = []

    def start(options, words, *, folder="run", env=None, wait=True) -> Captured:
        target = folder if isinstance(folder, Path) else tmp_path / folder
        argv = [sys.executable, "-m", "nsyskit", "capture", "-o", target, *options, "--", *words]
        process = subprocess.Popen(
            list(map(str, argv)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            env=os.environ | {name: value} | (env or {}),
        )  # fmt: skip
        started.append(Captured(process, target))
        return started[-1].wait() if wait else started[-1]

    yield start
    for captured in started:
        captured.process.kill()
    assert left_running(mark) == []


def left_running(mark: str) -> list[str]:
    """Command lines of processes that carry this in their environment; zombies have none."""
    deadline = time.monotonic() + 2
    while True:
        left = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    left.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)
