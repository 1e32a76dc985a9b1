"""Facts about the machine and the program for ``run.json``; each is None where it cannot be had."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsyskit.capture.config import find_tool, model_path

if TYPE_CHECKING:
    from collections.abc import Sequence

_VERSION_TIMEOUT_S = 20.0


def host_facts() -> dict[str, Any]:
    """The machine, without its name."""
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def model_facts(program: Sequence[str]) -> dict[str, Any] | None:
    """The model that the command line names, and its size where it is a file here."""
    named = model_path(program)
    if named is None:
        return None
    path = Path(named)
    size = path.stat().st_size if path.is_file() else None
    return {"model": path.name if size is not None else named, "size_bytes": size}


def llama_build(program: Sequence[str]) -> dict[str, Any] | None:
    """The build of a llama.cpp tool, by asking it."""
    tool = program[find_tool(program)]
    try:
        answer = subprocess.run(
            [tool, "--version"], capture_output=True, text=True, errors="replace", timeout=_VERSION_TIMEOUT_S,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_build(answer.stdout + answer.stderr)


def parse_build(text: str) -> dict[str, Any] | None:
    """Build number and commit out of ``--version``: of ``version: 0.7.0 (build 11669, commit …)`` and the older
    ``version: 4689 (90e4dba4)``.
    """
    line = next((line.strip() for line in text.splitlines() if line.strip().startswith("version:")), None)
    if line is None:
        return None
    new = re.search(r"build (\d+), commit ([\w-]+)", line)
    old = re.search(r"version: (\d+) \(([\w-]+)\)", line)
    found = new or old
    return {"version": line.partition(":")[2].strip(), "build_number": int(found[1]) if found else None,
            "build_commit": found[2] if found else None}  # fmt: skip
