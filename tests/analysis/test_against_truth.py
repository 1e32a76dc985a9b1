"""Every number against synthetic traces whose truth is known, to the nanosecond.

The generator lays out what happens and writes down what each row was meant to be; the analyses see only the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import zip_longest
from typing import Any

import polars as pl
import pytest
from synthetic import PRESETS, Synthetic, synthesize

from nsyskit.analysis.analyze import analyze
from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.copies import copies, copy_purposes, memory_operations
from nsyskit.analysis.devices import BUSY_PARTS, devices
from nsyskit.analysis.faults import lost_calls
from nsyskit.analysis.hotspots import category_sum, kernel_hotspots
from nsyskit.analysis.launch import launch, launch_pairs
from nsyskit.analysis.step_costs import LEDGER_PARTS, step_rows, steps
from nsyskit.analysis.steps import find_steps
from nsyskit.analysis.sums import api_sum, osrt_sum
from nsyskit.analysis.sync import sync
from nsyskit.analysis.threads import PARTS, threads
from nsyskit.analysis.windows import steady_window, window_all, window_gpu

SMALLER = {
    "gemma3-4b-f16-turing": ("--steps", "14"),
    "tinyllama-q4km-a100": ("--steps", "3"),
    "moe-cpu-experts-3060": ("--steps", "8"),
    "pdl-hopper": ("--steps", "8"),
    "speculative": ("--rounds", "3"),
}
"""Presets that would take the longest, made shorter."""

VARIED = {
    "other seed": ("demo", "--seed", "7"),
    "third seed": ("two-gpus-layer-split", "--seed", "3"),
    "one slot": ("demo", "--slots", "1"),
    "four slots": ("slots-32", "--slots", "4", "--steps", "40"),
    "thirty-two slots": ("slots-32", "--seed", "5", "--steps", "30"),
    "eight threads": ("launch-bound", "--threads", "8", "--steps", "4"),
    "two processes": ("bench-node", "--processes", "2", "--steps", "4"),
    "second stream": ("demo", "--graph", "eager", "--second-stream"),
    "graphs lost": ("m-rope", "--drop-graphs", "0.3", "--seed", "2"),
    "older schema": ("backend-sampling", "--schema", "2023.4"),
    "unsorted": ("slots-32", "--unsorted", "--steps", "20"),
}
"""Other seeds and shapes of the presets."""

LOSSY = {
    "damaged": ("damaged",),
    "demo": ("demo", "--drop-api", "0.01"),
    "bench": ("bench-graph", "--drop-api", "0.01"),
    "slots": ("slots-32", "--drop-api", "0.01", "--seed", "4"),
    "two GPUs": ("two-gpus-layer-split", "--drop-api", "0.01"),
}
"""Traces that lost one in a hundred of their API rows."""

WHOLE = {name: (name, *SMALLER.get(name, ())) for name in PRESETS if name not in LOSSY} | VARIED


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[tuple[str, ...]], Synthetic]:
    """Every trace is written and read once."""

    @cache
    def make(recipe: tuple[str, ...]) -> Synthetic:
        preset, *options = recipe
        return synthesize(tmp_path_factory.mktemp("synthetic"), preset, *options)

    return make


@pytest.fixture(params=WHOLE)
def whole(request, made) -> Synthetic:
    """A trace that lost no API rows."""
    return made(WHOLE[request.param])


@pytest.fixture(params=[*WHOLE, *(f"{name}, lossy" for name in LOSSY)])
def case(request, made) -> Synthetic:
    """Any trace: ledgers, sums and pairs are exact for the file as it is, whatever was lost."""
    return made((WHOLE | {f"{name}, lossy": recipe for name, recipe in LOSSY.items()})[request.param])


@pytest.fixture(params=LOSSY)
def lossy(request, made) -> Synthetic:
    return made(LOSSY[request.param])


# --- windows and ledgers


def test_windows(whole):
    found = {"all": window_all(whole.trace), "gpu": window_gpu(whole.trace), "steady": steady_window(whole.trace)}
    true = {kind: (window["start_ns"], window["end_ns"]) for kind, window in whole.truth["windows"].items()}
    assert {kind: (window.start_ns, window.end_ns) for kind, window in found.items() if window} == true


def test_device_ledgers(case):
    for window, true in case.windows:
        found = {
            ledger.use.gpu: {
                **{name: getattr(ledger, name) for name in _LEDGER},
                "idle": dict(ledger.idle),
            }
            for ledger in devices(case.trace, window=window).devices
        }
        assert found == {
            device["gpu"]: {
                **{name: device[name] for name in _LEDGER},
                "idle": {cause: device["idle"].get(cause, 0) for cause in CAUSES},
            }
            for device in true["devices"]
        }, window.kind


_LEDGER = (
    "window_ns", "busy_ns", "kernel_ns", "graph_ns", "memcpy_ns", "memset_ns", "kernel_sum_ns", "overlap_ns", "idle_ns",
)  # fmt: skip


def test_thread_ledgers(case):
    for window, true in case.windows:
        found = {
            (thread.pid, thread.tid): [(thread.busy[part], thread.idle[part]) for part in PARTS]
            for thread in threads(case.trace, window=window).threads
        }
        assert found == {
            (thread["pid"], thread["tid"]): [(thread[f"{part}_busy_ns"], thread[f"{part}_idle_ns"]) for part in PARTS]
            for thread in true["threads"]
        }, window.kind


def test_sync(case):
    for window, true in case.windows:
        found = sync(case.trace, window=window)
        for name in ("calls", "total_ns", "wait_ns", "idle_ns"):
            assert getattr(found, name) == true["sync"][name], (window.kind, name)
        for name in ("share_of_api", "sync_copy_share", "wait_share"):
            assert getattr(found, name) == pytest.approx(true["sync"][name], rel=1e-12), (window.kind, name)
        assert _found_classes(found.by_class) == _true_classes(true["sync"]["by_class"]), window.kind
        copied, truly = _found_classes(found.copies_by_class), _true_classes(true["sync"]["copies_by_class"])
        if "no_wait" in truly:  # a blocking copy waits for itself; the truth names what was unfinished before it
            assert "no_wait" not in copied
            assert [sum(parts) for parts in zip(*copied.values(), strict=True)] == [
                sum(parts) for parts in zip(*truly.values(), strict=True)
            ], window.kind
        else:
            assert copied == truly, window.kind


def _found_classes(rows: pl.DataFrame) -> dict[str, tuple[int, int]]:
    return {row["class"]: (row["calls"], row["total_ns"]) for row in rows.iter_rows(named=True) if row["calls"]}


def _true_classes(classes: Mapping[str, Mapping[str, int]]) -> dict[str, tuple[int, int]]:
    return {name: (row["calls"], row["total_ns"]) for name, row in classes.items() if row["calls"]}


# --- sums, copies, launches


def test_sums(case):
    doubled = Counter({row["name"]: row["count"] for row in case.truth["api_duplicates"]})
    doubled_ns = Counter({row["name"]: row["total_ns"] for row in case.truth["api_duplicates"]})
    calls = _printed(case.truth["api"], doubled, doubled_ns)
    assert _totals(api_sum(case.trace).rows, "name") == calls
    if case.truth["sources"]["osrt"]:
        assert _totals(osrt_sum(case.trace).rows, "name") == _printed(case.truth["os"], Counter(), Counter())


def _printed(rows: Iterable[Mapping[str, Any]], more: Counter[str], more_ns: Counter[str]) -> dict[str, Any]:
    """Calls by the name that nsys prints: without a version of four digits."""
    sums: dict[str, tuple[int, int]] = {}
    for row in rows:
        head, _, tail = row["name"].rpartition("_v")
        name = head if head and len(tail) == 4 and tail.isdecimal() else row["name"]
        count, total = sums.get(name, (0, 0))
        sums[name] = count + row["count"] + more[row["name"]], total + row["total_ns"] + more_ns[row["name"]]
    return sums


def _totals(rows: pl.DataFrame, key: str) -> dict[str, tuple[int, int]]:
    return {row[key]: (row["count"], row["total_ns"]) for row in rows.iter_rows(named=True)}


def test_kernels_and_categories(case):
    kernels = {row["name"]: (row["count"], row["total_ns"], row["category"]) for row in case.truth["kernels"]}
    rows = kernel_hotspots(case.trace).rows
    found = {row["name"]: (row["count"], row["total_ns"], row["category"]) for row in rows.iter_rows(named=True)}
    assert found == kernels
    categories = {row["category"]: (row["count"], row["total_ns"]) for row in case.truth["categories"]}
    assert _totals(category_sum(case.trace).rows, "category") == categories


def test_memory_operations(case):
    found = memory_operations(case.trace).group_by("label", "memory").agg(
        pl.len(), pl.col("bytes").sum(), (pl.col("end_ns") - pl.col("start_ns")).sum(), pl.col("blocking").sum()
    )  # fmt: skip
    true: dict[tuple[str, str], list[int]] = {}
    for row in case.truth["copies"]:
        sums = true.setdefault((row["label"], row["memory"]), [0, 0, 0, 0])
        for place, name in enumerate(("count", "bytes", "total_ns", "blocked")):
            sums[place] += row[name]
    memset = found.filter(pl.col("label") == "memset")["len"].sum()
    assert {tuple(row[:2]): list(row[2:]) for row in found.iter_rows() if row[0] != "memset"} == true
    assert memset == case.truth["rows"]["memsets"]
    window = window_all(case.trace)
    assert copies(case.trace, window=window).blocking_count == sum(row["blocked"] for row in case.truth["copies"])


def test_launches_and_graphs(case):
    true = case.truth["launch"]
    found = launch(case.trace, window=window_all(case.trace))
    pairs = launch_pairs(case.trace, window_all(case.trace))
    first = pairs.filter(pl.col("call").is_first_distinct())
    assert pairs.height == true["kernel_pairs"]
    assert found.excluded_capture == true["excluded_capture"]
    assert pairs["kern_ns"].sum() == true["kern_ns_total"]
    assert (first.height, first["api_ns"].sum()) == (true["launch_pairs"], true["api_ns_total"])
    assert pairs["queue_ns"].drop_nulls().len() == true["queue_count"]
    assert pairs["queue_ns"].sum() == true["queue_ns_total"]
    assert first.filter(pl.col("kern_ns") < pl.col("api_ns")).height == true["shorter_than_launch_count"]
    for name in ("launches", "captures", "instantiations", "updates", "destroys", "coverage"):
        assert getattr(found.graph, name) == true["graph"][name], name
    assert found.graph.recorded == true["graph"]["shown"]


# --- steps

_STEP = (
    "pid", "tid", "begin_ns", "forward_end_ns", "end_ns", "phase", "n_tokens", "n_outputs", "last_of_request",
)  # fmt: skip


def test_steps(whole):
    true = [tuple(step[name] for name in _STEP) for step in _by_begin(whole)]
    found = find_steps(whole.trace).steps.select(_STEP).rows()
    differ = [(theirs, mine) for theirs, mine in zip_longest(true, found) if theirs != mine]
    assert not differ
    assert not find_steps(whole.trace).torn


def _by_begin(case: Synthetic) -> list[dict[str, Any]]:
    return sorted(case.truth["steps"], key=lambda step: (step["begin_ns"], step["pid"], step["tid"]))


def test_what_a_step_holds(whole):
    counts = ("kernels", "launches", "graph_launches", "copies")
    for row, true in zip(step_rows(whole.trace).iter_rows(named=True), _by_begin(whole), strict=True):
        assert {name: row[name] for name in counts} == {name: true[name] for name in counts}
        moved = {name.removeprefix("bytes_"): row[name] for name in row if name.startswith("bytes_") and row[name]}
        assert moved == {purpose: size for purpose, size in true["bytes"].items() if size}
        ledger = {part: row[f"{part}_ns"] for part in LEDGER_PARTS}
        assert sum(ledger.values()) == row["end_ns"] - row["begin_ns"]
        if "ledger" in true:
            assert ledger == {part: true["ledger"].get(part, 0) for part in LEDGER_PARTS}


def test_what_copies_are_for(whole):
    sums = copy_purposes(whole.trace).group_by("label", "purpose").agg(pl.len(), pl.col("bytes").sum())
    found = {row[:2]: row[2:] for row in sums.iter_rows()}
    true: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for row in whole.truth["copies"]:
        true[row["label"], row["purpose"]] += row["count"]
        sizes[row["label"], row["purpose"]] += row["bytes"]
    assert found == {key: (count, sizes[key]) for key, count in true.items()}


def test_phases(whole):
    found = steps(whole.trace, window=window_all(whole.trace))
    assert {phase: (cost.count, cost.tokens, cost.outputs, cost.periods) for phase, cost in found.by_phase.items()} == {
        phase: (true["count"], true["tokens"], true["outputs"], true["periods"])
        for phase, true in whole.truth["phases"].items()
    }
    for phase, true in whole.truth["phases"].items():
        rate = true["period_tokens"] / true["period_ns"] * 1e9 if true["period_ns"] else None
        assert found.by_phase[phase].tokens_per_s == pytest.approx(rate, rel=1e-12)


def test_the_verdict(whole):
    true, report = whole.truth["verdict"], analyze(whole.trace, only=["verdict"])
    assert report.verdict.bottleneck == true["bottleneck"]
    if "parts" in true:
        ledger = report.sections["steps"].ledger
        busy = {part: getattr(ledger, f"{part}_ns") for part in BUSY_PARTS}
        assert (ledger.use.gpu, ledger.window_ns) == (true["gpu"], true["inside_ns"])
        assert busy | dict(ledger.idle) == true["parts"]
        assert report.sections["steps"].offload_ns == true["host_between_segments_ns"]
        assert {bound.part: pytest.approx(bound.max_speedup) for bound in report.verdict.bounds} == true["bounds"]


# --- what was lost


def test_nothing_lost_is_said_of_whole_traces(whole):
    seen = lost_calls(whole.trace)
    assert (seen.lost, seen.touched, seen.begins) == (0, 0, 0)


def test_lost_calls_degrade_steps_with_a_warning(lossy):
    """One API row in a hundred: a step may be missed or split where its uploads' calls are gone, the rest stands."""
    true = {
        (step["begin_ns"], step["n_tokens"], step["phase"]) for step in lossy.truth["steps"] if step["begin_in_file"]
    }
    steps_found = find_steps(lossy.trace)
    found = set(steps_found.steps.select("begin_ns", "n_tokens", "phase").rows())
    few = max(3, len(true) // 10)
    assert abs(steps_found.steps.height - len(lossy.truth["steps"])) <= few
    assert len(true - found) <= few
    warnings = {note.code for note in analyze(lossy.trace, only=["verdict"]).trust if note.level == "warning"}
    assert {"orphans", "steps_lossy"} <= warnings
    seen = lost_calls(lossy.trace)
    assert seen.steps == steps_found.steps.height
    assert seen.lost == pytest.approx(0.01 * seen.calls, abs=3 * (0.01 * seen.calls) ** 0.5)
    unseen = sum(not step["begin_in_file"] for step in lossy.truth["steps"])
    assert abs(seen.begins - unseen) <= 1 + few // 2
    assert seen.begins <= seen.touched <= seen.lost
