"""Runs cases in a child process, so that a crash, a hang or a flood of memory costs one case and is counted."""

from __future__ import annotations

import faulthandler
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from nsyskit.cli import one_line
from nsyskit.errors import NsyskitError

HANG_S = 10
MEMORY_KB = 1 << 20
"""Allowed beyond what the process needed before the case."""

Target = Callable[[Random, Path], None]


def targets() -> dict[str, Target]:
    from tests.fuzz import kept, pages, texts, traces

    return {
        "sqlite-bytes": traces.sqlite_bytes, "sqlite-rows": traces.sqlite_rows, "sqlite-many": traces.sqlite_many,
        "parquet": traces.parquet, "gguf": texts.gguf, "logs": texts.logs, "rules": texts.rules,
        "runs": kept.runs, "history": kept.history, "columns": kept.kept_columns, "fleet-inputs": kept.fleet_inputs,
        "fleet-parts": kept.fleet_parts, "recipes": kept.recipes, "pages": pages.pages,
    }  # fmt: skip


@dataclass(slots=True)
class Tally:
    """Cases by outcome, and of each kind of crash the first case."""

    outcomes: Counter[str] = field(default_factory=Counter)
    crashes: dict[str, int] = field(default_factory=dict)

    def add(self, case: int, outcome: str, detail: str = "") -> None:
        self.outcomes[outcome] += 1
        if outcome == "crash":
            self.crashes.setdefault(detail, case)


def outcome_of(target: Target, seed: int, case: int, folder: Path) -> tuple[str, str]:
    """``right``, ``refused`` or ``crash`` with its place."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    try:
        target(Random(f"{seed}:{case}"), folder)
        outcome, detail = "right", ""
    except NsyskitError as error:
        said = one_line(error)
        known = error.exit_code >= 2 and error.hint and len(said) < 1_000 and said.isprintable()
        outcome, detail = ("refused", "") if known else ("crash", f"no clear line: {said[:200]}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome, detail = "crash", _place(error)
    if time.monotonic() - started > HANG_S:
        outcome, detail = "crash", f"slow: {time.monotonic() - started:.0f} s"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return ("crash", f"memory: {grown >> 10} MiB") if grown > MEMORY_KB else (outcome, detail)


def _place(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/nsyskit/" in frame.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "harness"
    return f"{type(error).__name__} at {where}: {str(error).splitlines()[0][:120] if str(error) else ''}"


def worker(name: str, seed: int, first: int, last: int) -> None:
    """One line a case on stdout; a case that the process does not survive has none."""
    target = targets()[name]
    faulthandler.enable()
    out = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stdout = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="nsyskit-fuzz-") as scratch:
        for case in range(first, last):
            folder = Path(scratch) / str(case)
            folder.mkdir()
            faulthandler.dump_traceback_later(HANG_S + 50, exit=True)
            out.write(json.dumps([case, *outcome_of(target, seed, case, folder)]) + "\n")
            faulthandler.cancel_dump_traceback_later()
            shutil.rmtree(folder, ignore_errors=True)


def _one_thread() -> dict[str, str]:
    """Cases are small: threads would only wait for one another, and several runs share the cores."""
    return {**os.environ, "POLARS_MAX_THREADS": "1", "RUST_BACKTRACE": "0"}


def run(name: str, *, seed: int, first: int, cases: int, minutes: float, batch: int = 2_000) -> Tally:
    """All cases from ``first`` on, or as many as the time allows."""
    tally = Tally()
    case, last, ends = first, first + cases, time.monotonic() + 60 * minutes
    while case < last and time.monotonic() < ends:
        argv = [
            sys.executable,
            "-m",
            "tests.fuzz",
            "--worker",
            name,
            str(seed),
            str(case),
            str(min(last, case + batch)),
        ]
        with tempfile.TemporaryFile() as errors:
            child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True, env=_one_thread())
            assert child.stdout is not None
            for line in child.stdout:
                with suppress(json.JSONDecodeError):
                    number, outcome, detail = json.loads(line)
                    if outcome == "crash" and detail not in tally.crashes:
                        print(f"{name} case {number}: {detail}", flush=True)
                    tally.add(number, outcome, detail)
                    case = number + 1
                if time.monotonic() > ends:
                    child.terminate()
                    break
            code = child.wait()
            if code not in {0, -15}:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                detail = f"the process died ({code}): {said[-1][:160] if said else ''}"
                print(f"{name} case {case}: {detail}", flush=True)
                tally.add(case, "crash", detail)
                case += 1
    return tally
