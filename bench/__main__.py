"""``python -m bench``: nsyskit's whole report against four reports of ``nsys stats``, in turn, on one trace."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

DATA = Path(__file__).parent / "data"
NEW_REPORTS = "cuda_api_sum,cuda_gpu_kern_sum,cuda_gpu_mem_time_sum,cuda_gpu_mem_size_sum"
OLD_REPORTS = "cudaapisum,gpukernsum,gpumemtimesum,gpumemsizesum"  # before 2023
SHARE_OF_KERNELS = 0.95  # of the GPU's rows in the trace; the rest are copies


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall seconds of whole processes."""

    name: str
    seconds: tuple[float, ...]

    def row(self) -> str:
        low, middle, high = min(self.seconds), median(self.seconds), max(self.seconds)
        return f"| {self.name} | {low:.2f} | {middle:.2f} | {high:.2f} |"


def main() -> int:
    """Parse, build the trace where it is missing, run in turn, print."""
    options = _parser().parse_args()
    trace = build(options.kernels)
    if options.profile:
        profile(trace)
        return 0
    nsys = shutil.which(options.nsys)
    if nsys is None:
        print(f"{options.nsys} was not found: put nsys on PATH or name it with --nsys", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="nsyskit-bench-") as scratch:
        # nsys may write beside its input and answer from what lies there: it gets a copy of its own
        copied = Path(shutil.copy(trace, scratch))
        ours = [sys.executable, "-m", "nsyskit", "analyze", str(trace)]
        theirs = [nsys, "stats", "--quiet", f"--report={reports_of(nsys)}", str(copied)]
        pairs = paired(ours, theirs, options.runs)
    version = subprocess.run([nsys, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    print(table(pairs, version=version, kernels=options.kernels, rows=count_rows(trace)))
    return 0


def build(kernels: int) -> Path:
    """The trace: a llama-server without CUDA graphs, one launch a kernel. Kept from run to run."""
    folder = DATA / f"{kernels}-kernels"
    trace = folder / "trace.sqlite"
    if not trace.exists():
        print(f"building a trace of {kernels:,} kernels …", file=sys.stderr)
        rows = round(kernels / SHARE_OF_KERNELS)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=_made(DATA)) as scratch:
            argv = [sys.executable, "-m", "traces.synth", "demo", "--graph=eager", f"--gpu-rows={rows}",
                    "--schema=2023.4", "--truth=sums", f"--output={scratch}"]  # fmt: skip
            subprocess.run(argv, check=True, cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL)
            Path(scratch, "trace.sqlite").replace(_made(folder) / "trace.sqlite")
    return trace


def reports_of(nsys: str) -> str:
    """The four reports by the names that this nsys knows them by."""
    said = subprocess.run([nsys, "stats", "--help-reports"], capture_output=True, text=True, check=False).stdout
    return NEW_REPORTS if "cuda_api_sum" in said else OLD_REPORTS


def paired(ours: Sequence[str], theirs: Sequence[str], runs: int) -> tuple[Timing, Timing]:
    """Both commands in turn, after one run of each that does not count."""
    timed(ours)
    timed(theirs)
    seconds = [(timed(ours), timed(theirs)) for _ in range(runs)]
    return Timing("nsyskit analyze", tuple(a for a, _ in seconds)), Timing("nsys stats", tuple(b for _, b in seconds))


def timed(argv: Sequence[str]) -> float:
    """Wall seconds of a whole process whose output nobody reads."""
    began = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return time.perf_counter() - began


def table(pairs: tuple[Timing, Timing], *, version: str, kernels: int, rows: dict[str, int]) -> str:
    """The result as Markdown: wall seconds, and the ratio of each pair."""
    ours, theirs = pairs
    ratios = Timing("ratio of each pair", tuple(a / b for a, b in zip(ours.seconds, theirs.seconds, strict=True)))
    held = ", ".join(f"{count:,} {what}" for what, count in rows.items())
    head = f"{kernels:,} kernels asked for ({held}); {len(ours.seconds)} pairs; nsys {version}; wall seconds"
    lines = [head, "", "| | min | median | max |", "|---|---:|---:|---:|", *(t.row() for t in (ours, theirs, ratios))]
    return "\n".join(lines)


def count_rows(trace: Path) -> dict[str, int]:
    """What the trace holds, by nsyskit's own count."""
    from nsyskit import open_trace

    tables = open_trace(trace).meta.tables
    wanted = {"kernels": "_KERNEL", "API calls": "_RUNTIME", "copies": "_MEMCPY"}
    return {what: rows for what, end in wanted.items() for name, rows in tables.items() if name.endswith(end)}


def profile(trace: Path) -> None:
    """Where one run spends its time, stage by stage, one after the other on one thread of Python."""
    began = [time.perf_counter(), time.process_time()]

    def stage(name: str) -> None:
        now = [time.perf_counter(), time.process_time()]
        print(f"| {name} | {now[0] - began[0]:.2f} | {now[1] - began[1]:.2f} |")
        began[:] = now

    print("| stage | wall s | CPU s |\n|---|---:|---:|")
    from nsyskit.analysis.analyze import OVERVIEW, SECTIONS, analyze
    from nsyskit.analysis.steps import find_steps
    from nsyskit.analysis.trust import trust
    from nsyskit.errors import MissingTableError
    from nsyskit.ingest import open_trace
    from nsyskit.report.text import render_text

    stage("imports")
    opened = open_trace(trace)
    stage("open")
    for table in ("api_calls", "kernels"):
        opened.tables[table].select("start_ns").collect()
        stage(f"read {table}")
    find_steps(opened)
    stage("pair calls with operations, find steps")
    for name in (name for name in SECTIONS if name in OVERVIEW):
        with suppress(MissingTableError):
            SECTIONS[name](opened)
        stage(name)
    trust(opened)
    stage("trust")
    report = analyze(opened, only=["verdict"])
    began[:] = time.perf_counter(), time.process_time()
    render_text(report, width=100)
    stage("render")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("-n", "--runs", type=int, default=5, help="pairs of runs that count [5]")
    parser.add_argument("--kernels", type=int, default=1_000_000, help="kernels in the trace [1000000]")
    parser.add_argument("--nsys", default="nsys", help="the nsys to compare with [the one on PATH]")
    parser.add_argument("--profile", action="store_true", help="say where nsyskit's time goes instead")
    return parser


if __name__ == "__main__":
    sys.exit(main())
