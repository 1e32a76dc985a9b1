"""Small captures by the real nsys on PATH."""

from __future__ import annotations

import subprocess
from pathlib import Path

_PROFILE = ("nsys", "profile", "--trace=osrt", "--sample=none", "--cpuctxsw=none", "--force-overwrite=true")


def capture(report: Path, *program: str) -> Path:
    """A rep file of a program's OS runtime calls.

    nsys 2022.4 was seen to end with code 1 once in some hundred captures on a busy machine; so it may try twice.
    """
    argv = [*_PROFILE, f"--output={report}", *program]
    for _ in range(2):
        done = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
        if done.returncode == 0 and report.exists():
            return report
    raise AssertionError(f"nsys failed twice with code {done.returncode}:\n{done.stdout}{done.stderr}")
