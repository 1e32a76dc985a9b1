"""``python -m traces.synth PRESET -o FOLDER``: write a synthetic trace and what is true about it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from traces.synth.build import lay_out
from traces.synth.layout import Layout
from traces.synth.presets import PRESETS, SHIPPED, Preset
from traces.synth.truth import build as build_truth
from traces.synth.writer import PROVENANCE, write

_FULL_TRUTH_ROWS = 3_000_000


def main(arguments: list[str] | None = None) -> int:
    """Parse, lay out, write."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        for name, preset in PRESETS.items():
            print(f"{name:28} {preset.about}")
        return 0
    if options.ship:
        for name in SHIPPED:
            main([name, "-o", str(Path(__file__).resolve().parents[1] / name)])
        return 0
    if options.preset not in PRESETS:
        parser.error(f"no preset {options.preset!r}; --list shows them")
    preset = vary(PRESETS[options.preset], options)
    started = time.perf_counter()
    layout = lay_out(preset, options.seed)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    save(layout, folder, name=options.preset, seed=options.seed, truth=options.truth)
    rows = len(layout.ops["start"])
    print(f"{folder}: {rows} GPU rows, {len(layout.api['start'])} API rows, {time.perf_counter() - started:.1f} s")
    return 0


def save(layout: Layout, folder: Path, *, name: str, seed: int, truth: str = "auto") -> dict[str, Any]:
    """Write ``trace.sqlite`` and ``truth.json``; returns the latter's contents."""
    full = truth == "full" or (truth == "auto" and len(layout.ops["start"]) <= _FULL_TRUTH_ROWS)
    provenance = {
        "what": PROVENANCE,
        "preset": name,
        "seed": seed,
        "schema": layout.schema,
        "truth": "full" if full else "sums",
    }
    document = build_truth(layout, provenance=provenance, full=full)
    write(layout, folder / "trace.sqlite", name=name, seed=seed)
    (folder / "truth.json").write_text(json.dumps(document, indent=1) + "\n")
    return document


def vary(preset: Preset, options: argparse.Namespace) -> Preset:
    """A preset with the command line's changes."""
    plain = {name: getattr(options, name) for name in (
        "threads", "slots", "schema", "drop_graphs", "drop_api", "steps", "processes", "pdl", "rounds",
    )}  # fmt: skip
    preset = replace(preset, **{name: value for name, value in plain.items() if value is not None})
    inner = {"graph": options.graph, "second_stream": options.second_stream or None}
    preset = replace(preset, options=replace(preset.options, **{k: v for k, v in inner.items() if v is not None}))
    if options.gpus:
        preset = replace(preset, gpus=preset.gpus[:1] * options.gpus)
    if options.no_osrt:
        preset = replace(preset, osrt=False)
    if options.unsorted:
        preset = replace(preset, unsorted=True)
    return sized(preset, options.gpu_rows) if options.gpu_rows else preset


def sized(preset: Preset, gpu_rows: int) -> Preset:
    """A preset with about as many GPU rows: a short run says how many a step makes."""
    trial = {steps: len(lay_out(replace(preset, steps=steps), 0).ops["start"]) for steps in (16, 48)}
    per_step = max(1.0, (trial[48] - trial[16]) / 32)
    return replace(preset, steps=max(1, round((gpu_rows - trial[16]) / per_step) + 16))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m traces.synth", description=__doc__)
    parser.add_argument("preset", nargs="?", default="demo")
    parser.add_argument("-o", "--output", default="synthetic", help="folder for trace.sqlite and truth.json")
    parser.add_argument("--list", action="store_true", help="name the presets")
    parser.add_argument("--ship", action="store_true", help="write the traces that lie in the repository anew")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="server: ubatches in all; bench: tokens generated per repetition")
    parser.add_argument("--rounds", type=int, help="rounds of speculative decoding")
    parser.add_argument("--gpu-rows", type=int, help="about so many GPU rows (sets --steps)")
    parser.add_argument("--schema", choices=("2023.4", "2025"))
    parser.add_argument("--graph", choices=("eager", "graph", "node"))
    parser.add_argument("--threads", type=int, help="contexts of one process, each with its own driver thread")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--gpus", type=int, help="GPUs of the preset's first kind")
    parser.add_argument("--slots", type=int)
    parser.add_argument("--second-stream", action="store_true")
    parser.add_argument("--pdl", type=float, help="share of kernels that begin before their predecessor ends")
    parser.add_argument("--drop-graphs", type=float, help="share of graph launches that lose their GPU rows")
    parser.add_argument("--drop-api", type=float, help="share of API rows that are lost")
    parser.add_argument("--no-osrt", action="store_true")
    parser.add_argument("--unsorted", action="store_true")
    parser.add_argument(
        "--truth", choices=("auto", "full", "sums"), default="auto",
        help=f"auto: sums only beyond {_FULL_TRUTH_ROWS} GPU rows",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
