"""``python -m bench``: nsyskit against four reports of ``nsys stats``, in turn, on one trace."""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

DATA = Path(__file__).parent / "data"
NEW_REPORTS = "cuda_api_sum,cuda_gpu_kern_sum,cuda_gpu_mem_time_sum,cuda_gpu_mem_size_sum"
OLD_REPORTS = "cudaapisum,gpukernsum,gpumemtimesum,gpumemsizesum"  # before 2023
MOST_LAID_OUT = 10_000_000  # the generator holds all rows; more kernels are the same ones again, later
_PAUSE_NS = 1_000_000_000
SHARE_OF_KERNELS = 0.95  # of the GPU's rows in the trace; the rest are copies


@dataclass(frozen=True, slots=True)
class Contender:
    """A whole process: what it is called, its words, what its environment adds."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """Wall seconds of a process and the most memory it held, MB."""

    seconds: float
    megabytes: float


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
        peers = peers_of(nsys, trace, Path(scratch))
        ours = ours_of(trace, Path(scratch), everything=options.all)
        rounds = in_turn([*ours, *peers], options.runs)
        said = f"{options.kernels:,} kernels asked for ({held(trace)}); {options.runs} rounds; nsys {version_of(nsys)}"
        print(said, "", table([*ours, *peers], rounds, reference=len(ours)), sep="\n")
        print(f"\nSQLite alone, reading the same columns of kernels and API calls on one thread: {floor(trace):.2f} s")
    return 0


def ours_of(trace: Path, scratch: Path, *, everything: bool) -> list[Contender]:
    """Nsyskit's runs. Where nothing else is said the cache is off: every run decodes the rows anew."""
    analyze, cold = [sys.executable, "-m", "nsyskit", "analyze"], {"NSYSKIT_CACHE_BYTES": "0"}
    found = [Contender("nsyskit analyze", [*analyze, str(trace)], cold)]
    if everything:
        page = ["--html", str(scratch / "page.html"), "--force"]
        tables = parquet_of(trace, scratch / "parquet")
        warm = {"NSYSKIT_CACHE": str(scratch / "cache")}
        found += [
            Contender("… --format json (all analyses)", [*analyze, str(trace), "--format=json"], cold),
            Contender("… --format json, columns in the cache", [*analyze, str(trace), "--format=json"], warm),
            Contender("… --format json, Parquet directory", [*analyze, str(tables), "--format=json"], cold),
            Contender("… --html", [*analyze, str(trace), *page], cold),
        ]
    return found


def peers_of(nsys: str, trace: Path, scratch: Path) -> list[Contender]:
    """Nsys stats, and nsys-ai where it is installed, each on a copy of its own: they write beside their input."""
    copy = Path(shutil.copy(trace, _made(scratch / "nsys")))
    found = [Contender("nsys stats", [nsys, "stats", "--quiet", f"--report={reports_of(nsys)}", str(copy)])]
    if other := shutil.which("nsys-ai"):
        copy = Path(shutil.copy(trace, _made(scratch / "nsys-ai")))
        found.append(Contender("nsys-ai summary", [other, "summary", str(copy)]))
    return found


def parquet_of(trace: Path, folder: Path) -> Path:
    """The trace's tables as ``nsys export --type parquetdir`` lays them out, which nsys makes of rep files only."""
    import polars as pl

    from nsyskit.errors import TraceFormatError
    from nsyskit.ingest.sqlite import SqliteSource

    source = SqliteSource(trace)
    _made(folder)
    for name in sorted(source.table_names()):
        columns = []
        for column in sorted(source.columns(name)):
            with suppress(TraceFormatError):  # texts that nobody reads
                columns.append(source.read(name, [column]))
        pl.concat(columns, how="horizontal").write_parquet(folder / f"{name}.parquet")
    return folder


def in_turn(contenders: Sequence[Contender], rounds: int) -> list[list[Run]]:
    """Every contender once a round, after one round that does not count."""
    return [[timed(one) for one in contenders] for _ in range(rounds + 1)][1:]


def timed(one: Contender) -> Run:
    """A whole process whose output nobody reads; its input is in memory, so that it does not count who read it last."""
    for word in one.argv:
        _read(Path(word))
    began = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    process = subprocess.Popen(one.argv, env=os.environ | dict(one.environment), **quiet)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{one.name} ended with code {process.returncode}")
    return Run(time.perf_counter() - began, usage.ru_maxrss / 1024)


def _read(path: Path) -> None:
    for file in path.rglob("*") if path.is_dir() else [path] if path.is_file() else []:
        with file.open("rb", buffering=0) as content:
            while content.read(1 << 22):
                pass


def table(contenders: Sequence[Contender], rounds: Sequence[Sequence[Run]], *, reference: int) -> str:
    """Wall seconds and memory as Markdown, and the ratio to the reference of the same round."""
    lines = ["| | s, min | median | max | of nsys stats, min | median | max | MB |", "|---|" + "---:|" * 7]
    for at, one in enumerate(contenders):
        seconds = [runs[at].seconds for runs in rounds]
        ratios = [runs[at].seconds / runs[reference].seconds for runs in rounds]
        cells = [f"{value:.2f}" for group in (seconds, ratios) for value in (min(group), median(group), max(group))]
        memory = max(runs[at].megabytes for runs in rounds)
        lines.append(f"| {one.name} | {' | '.join(cells)} | {memory:,.0f} |")
    return "\n".join(lines)


def floor(trace: Path) -> float:
    """Seconds in which SQLite decodes the columns that the analyses read of the two large tables, and nothing else."""
    columns = {
        "CUPTI_ACTIVITY_KIND_KERNEL": "start end deviceId contextId streamId correlationId globalPid demangledName",
        "CUPTI_ACTIVITY_KIND_RUNTIME": "start end globalTid correlationId nameId eventClass",
    }
    began = time.perf_counter()
    with closing(sqlite3.connect(f"file:{trace}?mode=ro&immutable=1", uri=True)) as connection:
        for name, words in columns.items():
            connection.execute(f"SELECT {', '.join(f'max({word})' for word in words.split())} FROM {name}").fetchall()
    return time.perf_counter() - began


def version_of(nsys: str) -> str:
    """As nsys says it."""
    return subprocess.run([nsys, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]


def build(kernels: int) -> Path:
    """The trace: a llama-server without CUDA graphs, one launch a kernel. Kept from run to run."""
    folder = DATA / f"{kernels}-kernels"
    trace = folder / "trace.sqlite"
    if not trace.exists():
        laid_out = min(kernels, MOST_LAID_OUT)
        source = build(laid_out) if laid_out < kernels else None
        print(f"building a trace of {kernels:,} kernels …", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=_made(DATA)) as scratch:
            if source is None:
                rows = round(kernels / SHARE_OF_KERNELS)
                argv = [sys.executable, "-m", "traces.synth", "demo", "--graph=eager", f"--gpu-rows={rows}",
                        "--schema=2023.4", "--truth=sums", f"--output={scratch}"]  # fmt: skip
                subprocess.run(argv, check=True, cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL)
            else:
                repeated(Path(shutil.copy(source, Path(scratch) / "trace.sqlite")), round(kernels / laid_out))
            Path(scratch, "trace.sqlite").replace(_made(folder) / "trace.sqlite")
    return trace


def repeated(trace: Path, times: int) -> None:
    """Let a trace happen several times, one after the other: later, with correlation ids of its own each time."""
    with closing(sqlite3.connect(trace)) as connection:
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in tables}
        events = {name: of for name, of in columns.items() if {"start", "end"} <= set(of)}
        calls = "SELECT max(end) - min(start), max(correlationId) FROM CUPTI_ACTIVITY_KIND_RUNTIME"
        span, ids = connection.execute(calls).fetchone()
        later = {"start": "start + :again * :span", "end": "end + :again * :span"}
        later |= {"correlationId": "correlationId + :again * :ids"}
        for name, of in events.items():
            (rows,) = connection.execute(f"SELECT max(rowid) FROM {name}").fetchone()
            values = ", ".join(later.get(column, column) for column in of)
            for again in range(1, times):
                copy = f"INSERT INTO {name} SELECT {values} FROM {name} WHERE rowid <= :rows"
                connection.execute(copy, {"again": again, "span": span + _PAUSE_NS, "ids": ids, "rows": rows})
        connection.commit()


def reports_of(nsys: str) -> str:
    """The four reports by the names that this nsys knows them by."""
    said = subprocess.run([nsys, "stats", "--help-reports"], capture_output=True, text=True, check=False).stdout
    return NEW_REPORTS if "cuda_api_sum" in said else OLD_REPORTS


def held(trace: Path) -> str:
    """What the trace holds, by nsyskit's own count."""
    from nsyskit import open_trace

    tables = open_trace(trace).meta.tables
    wanted = {"kernels": "_KERNEL", "API calls": "_RUNTIME", "copies": "_MEMCPY"}
    rows = {what: count for what, end in wanted.items() for name, count in tables.items() if name.endswith(end)}
    return ", ".join(f"{count:,} {what}" for what, count in rows.items())


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
    parser.add_argument("-n", "--runs", type=int, default=5, help="rounds that count [5]")
    parser.add_argument("--kernels", type=int, default=1_000_000, help="kernels in the trace [1000000]")
    parser.add_argument("--all", action="store_true", help="every way to run nsyskit, not only the text report")
    parser.add_argument("--nsys", default="nsys", help="the nsys to compare with [the one on PATH]")
    parser.add_argument("--profile", action="store_true", help="say where nsyskit's time goes instead")
    return parser


if __name__ == "__main__":
    sys.exit(main())
