"""Capture, analyse and sum up a set of short llama.cpp runs. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Run:
    """One capture: options of ``nsyskit capture``, the command, environment switches; ``nsys`` False runs it bare."""

    name: str
    command: tuple[str, ...]
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    nsys: bool = True
    needs_gpu: bool = False


def plan(args: argparse.Namespace) -> list[Run]:
    """Every capture for the models at hand."""
    layers = () if args.cpu else ("-ngl", "99")
    bench = ("llama-bench", "-m", str(args.model), "-p", "512", "-n", "64", "-r", "2", *layers, "-o", "jsonl")
    server = ("llama-server", "-m", str(args.model), *layers)
    load = ("--requests", "12", "--prompt-tokens", "128", "--max-tokens", "32")
    kernels, spans = ("--profile", "kernels"), ("--profile", "spans")
    runs = [
        Run("bench-untraced", bench, nsys=False),
        Run("bench-spans", bench, spans, needs_gpu=True),
        Run("bench-kernels", bench, kernels),
        Run("bench-eager", bench, kernels, {"GGML_CUDA_DISABLE_GRAPHS": "1"}, needs_gpu=True),
        Run("bench-fa0", (*bench, "-fa", "0"), kernels),
        Run("bench-fa1", (*bench, "-fa", "1"), kernels),
        Run("server-1", (*server, "-np", "1"), (*kernels, *load, "--concurrency", "1")),
        Run("server-4", (*server, "-np", "4"), (*kernels, *load, "--concurrency", "4")),
    ]
    runs += [
        Run(f"batch-{n}", ("llama-batched-bench", "-m", str(args.model), *layers, "-npp", "64", "-ntg", "32",
                           "-npl", str(n), "-c", "4096"), kernels)
        for n in (7, 8, 9)
    ]  # fmt: skip
    if args.q8:
        runs.append(Run("bench-q8", (*bench[:2], str(args.q8), *bench[3:]), kernels))
    if args.moe:
        moe = (
            "llama-bench",
            "-m",
            str(args.moe),
            "-p",
            "64",
            "-n",
            "16",
            "-r",
            "1",
            *layers,
            "-ncmoe",
            "99",
            "-o",
            "jsonl",
        )
        runs.append(Run("moe-cpu", moe, kernels, needs_gpu=True))
    wanted = [run for run in runs if not args.only or run.name in args.only]
    return [run for run in wanted if not (args.cpu and run.needs_gpu)]


def command_of(run: Run, folder: Path) -> list[str]:
    """What is executed for a run."""
    if not run.nsys:
        return list(run.command)
    return [sys.executable, "-m", "nsyskit", "capture", "-q", "-o", str(folder), *run.options, "--", *run.command]


def execute(run: Run, folder: Path) -> dict[str, Any]:
    """Capture and analyse one run; a failure becomes its row."""
    done = subprocess.run(
        command_of(run, folder), env=os.environ | run.env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"name": run.name, "error": (done.stderr.strip().splitlines() or ["failed"])[-1]}
    if not run.nsys:
        from nsyskit.ggml.outputs import parse_output  # noqa: PLC0415 - only this one run needs it

        return {"name": run.name, "program": [vars_of(numbers) for numbers in parse_output(done.stdout)]}
    analysed = subprocess.run(
        [sys.executable, "-m", "nsyskit", "analyze", str(folder), "--format", "json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if analysed.returncode:
        return {"name": run.name, "error": analysed.stderr.strip()}
    return {"name": run.name, **row_of(json.loads(analysed.stdout))}


def vars_of(numbers: Any) -> dict[str, Any]:
    return {"label": numbers.label, "tokens_per_s": numbers.tokens_per_s, "trace_tokens_per_s": None}


def row_of(document: dict[str, Any]) -> dict[str, Any]:
    """The few numbers of an analysis that the summary shows."""
    devices = document.get("devices") or []
    ledger = (document.get("steps") or {}).get("ledger") or (devices[0] if devices else None)
    return {
        "verdict": document["verdict"]["bottleneck"],
        "busy_share": ledger["busy_ns"] / ledger["window_ns"] if ledger else None,
        "program": medians([row for row in document.get("program") or [] if row["tokens_per_s"]]),
        "trust": [note["code"] for note in document["trust"] if note["level"] != "note"],
    }


def medians(numbers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a workload: a server prints every request, and what counts is the usual one."""
    kinds: dict[tuple[int | None, int | None], list[dict[str, Any]]] = {}
    for number in numbers:
        kinds.setdefault((number["n_prompt"], number["n_gen"]), []).append(number)
    rows = []
    for same in kinds.values():
        label = same[0]["label"] if len(same) == 1 else f"{same[0]['label'].split()[-1]} × {len(same)}"
        values = {
            key: median(known) if (known := [number[key] for number in same if number[key] is not None]) else None
            for key in ("tokens_per_s", "trace_tokens_per_s")
        }
        rows.append({"label": label, **values})
    return rows


def summary(rows: list[dict[str, Any]]) -> str:
    """A Markdown table, one line a program's number."""
    lines = [
        "| capture | verdict | GPU busy | what | program tok/s | trace tok/s | difference | trust |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['name']} | failed: {row['error']} | | | | | | |")
            continue
        busy = "–" if row.get("busy_share") is None else f"{row['busy_share']:.1%}"
        head = f"| {row['name']} | {row.get('verdict', 'untraced')} | {busy} |"
        for number in row["program"] or [{"label": "–", "tokens_per_s": None}]:
            told, seen = number["tokens_per_s"], number.get("trace_tokens_per_s")
            difference = f"{seen / told - 1:+.1%}" if told and seen else "–"
            trust = ", ".join(row.get("trust", []))
            lines.append(f"{head} {number['label']} | {_rate(told)} | {_rate(seen)} | {difference} | {trust} |")
    return "\n".join(lines) + "\n"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--q8", type=Path)
    parser.add_argument("--moe", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu-runs"))
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--cpu", action="store_true", help="no GPU here: leave out what needs one")
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    runs = plan(args)
    if args.dry_run:
        for run in runs:
            switches = "".join(f"{name}={value} " for name, value in run.env.items())
            print(switches + shlex.join(command_of(run, args.output / run.name)))
        return
    args.output.mkdir(parents=True, exist_ok=True)
    doctor = subprocess.run([sys.executable, "-m", "nsyskit", "doctor"], capture_output=True, text=True, check=False)
    (args.output / "doctor.txt").write_text(doctor.stdout, encoding="utf-8")
    rows = []
    for run in runs:
        print(f"{run.name} …", file=sys.stderr)
        rows.append(execute(run, args.output / run.name))
    text = summary(rows)
    (args.output / "summary.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
