"""What a fleet costs: from one worker to two, from 20 traces to 2,000, and with a worker killed on the way.

    python -m bench.fleet --speedup              # 200 traces of 100,000 kernels, one and two workers in turn
    python -m bench.fleet --scale 20 200 2000    # small traces: is the cost per trace the same?
    python -m bench.fleet --killed               # the process under a trace is killed again and again: equal bytes?

A few traces are laid out by ``traces.synth`` with seeds of their own; the others are copies with another host and run
number written into their metadata, so that every file has a content of its own and is read and analyzed in full. They
lie in ``bench/data`` and are deleted at the end. Whole commands are timed from outside; CPU seconds are those of
all their processes, which other work on the machine does not add to.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT / "bench" / "data" / f"fleet-{os.getpid()}"
KERNELS = 100_000
_DISTINCT = 20


@dataclass(frozen=True, slots=True)
class Run:
    """One command: wall and CPU seconds, and the most memory that one of its processes took."""

    traces: int
    workers: int
    wall_s: float
    cpu_s: float
    peak_bytes: int

    def row(self) -> str:
        each = f"{self.wall_s / self.traces * 1e3:.0f} | {self.cpu_s / self.traces * 1e3:.0f}"
        return (
            f"| {self.traces:,} | {self.workers} | {self.wall_s:.1f} | {self.cpu_s:.1f} | {each} "
            f"| {self.peak_bytes / 1e6:.0f} |"
        )


HEAD = (
    "| traces | workers | wall s | CPU s | wall ms a trace | CPU ms a trace | peak MB of a process |\n"
    "|---:|---:|---:|---:|---:|---:|---:|"
)


def traces(count: int, *, options: Sequence[str], name: str) -> Path:
    """A folder with as many traces: some laid out, the rest varied."""
    folder = DATA / f"{name}-{count}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for seed in range(min(count, _DISTINCT)):
        made = DATA / f".{name}-{seed}"
        if not (made / "trace.sqlite").exists():
            argv = [sys.executable, "-m", "traces.synth", "demo", *options, "--truth=sums", f"--seed={seed + 1}"]
            subprocess.run([*argv, f"--output={made}"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    for at in range(count):
        path = folder / f"{at:05}.sqlite"
        shutil.copyfile(DATA / f".{name}-{at % _DISTINCT}" / "trace.sqlite", path)
        with closing(sqlite3.connect(path)) as connection:
            for row in (("DEVICE_DISPLAY_NAME", f"node{at % 16}"), ("RUN", str(at))):
                connection.execute("INSERT INTO META_DATA_CAPTURE VALUES (?, ?)", row)
            connection.commit()
    return folder


def timed(folder: Path, out: Path, *, workers: int, killer: threading.Event | None = None) -> Run:
    """Run the command once, from nothing."""
    shutil.rmtree(out, ignore_errors=True)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    argv = [sys.executable, "-m", "nsyskit", "fleet", str(folder), "-o", str(out), "--workers", str(workers), "-q"]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL)
    if killer is not None:
        threading.Thread(target=kill_readers, args=(process.pid, killer), daemon=True).start()
    peak = 0
    while process.poll() is None:
        peak = max([peak, *(memory(pid) for pid in readers(process.pid))])
        time.sleep(0.1)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        sys.exit(f"the fleet ended with code {process.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(len(list(folder.iterdir())), workers, wall, cpu, peak)


def readers(pid: int) -> list[int]:
    """The processes that read traces for a command."""
    with suppress(OSError):
        return [int(one) for task in Path(f"/proc/{pid}/task").iterdir()
                for one in (task / "children").read_text().split()]  # fmt: skip
    return []


def memory(pid: int) -> int:
    with suppress(OSError, StopIteration, ValueError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 0


def kill_readers(pid: int, done: threading.Event) -> None:
    """Every three seconds, one of them."""
    at = 0
    while not done.wait(3.0):
        found = readers(pid)
        if found:
            with suppress(ProcessLookupError):
                os.kill(found[at % len(found)], signal.SIGKILL)
            at += 1
    print(f"killed {at} processes")


def speedup(count: int, pairs: int) -> None:
    folder = traces(count, options=["--graph=eager", "--schema=2023.4", f"--gpu-rows={round(KERNELS / 0.95)}"],
                    name="large")  # fmt: skip
    size = next(folder.iterdir()).stat().st_size / 1e6
    print(f"\n{count} traces of {KERNELS:,} kernels, {size:.1f} MB each; {load()}\n")
    print(HEAD)
    for _ in range(pairs):
        runs = []
        for workers in (1, 2):
            runs.append(timed(folder, DATA / "out", workers=workers))
            print(f"{runs[-1].row()} {load()}", flush=True)
        print(f"speed-up {runs[0].wall_s / runs[1].wall_s:.2f}", flush=True)
    shutil.rmtree(folder)


def scale(counts: Sequence[int]) -> None:
    print(f"\nsmall traces; {load()}\n\n{HEAD}")
    for count in counts:
        folder = traces(count, options=["--steps=24"], name="small")
        print(f"{timed(folder, DATA / 'out', workers=2).row()} {load()}", flush=True)
        shutil.rmtree(folder)


def killed() -> None:
    folder = traces(40, options=["--steps=24"], name="small")
    timed(folder, DATA / "calm", workers=2)
    done = threading.Event()
    print(f"\n{HEAD}\n{timed(folder, DATA / 'out', workers=2, killer=done).row()}")
    done.set()
    calm, out = ({str(file.relative_to(at)): file.read_bytes() for file in at.rglob("*") if file.is_file()}
                 for at in (DATA / "calm", DATA / "out"))  # fmt: skip
    time.sleep(0.2)
    print(f"the same {len(calm)} files, byte for byte: {calm == out}")


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


def main() -> int:
    """Parse, measure, clean up."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--speedup", action="store_true")
    parser.add_argument("--traces", type=int, default=200, help="for --speedup [200]")
    parser.add_argument("--pairs", type=int, default=1, help="for --speedup [1]")
    parser.add_argument("--scale", type=int, nargs="+", metavar="TRACES")
    parser.add_argument("--killed", action="store_true")
    options = parser.parse_args()
    try:
        if options.speedup:
            speedup(options.traces, options.pairs)
        if options.scale:
            scale(options.scale)
        if options.killed:
            killed()
    finally:
        shutil.rmtree(DATA, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
