"""Plain words for what the analyses name: read by somebody who never saw the tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from nsyskit.analysis.analyze import Report
from nsyskit.analysis.depth import DepthResult
from nsyskit.analysis.dram import DramUse
from nsyskit.analysis.limits import LimitsResult
from nsyskit.analysis.prompt_cost import PromptCost
from nsyskit.analysis.startup import StartupResult
from nsyskit.units import human_bytes, human_ns, human_share

HEADLINES: Final[dict[str, str]] = {
    "gpu-bound": "The GPU itself is the limit",
    "copy-bound": "Copying data is the limit",
    "pipeline-bound": "One GPU waits for another",
    "launch-bound": "The GPU waits for kernel launches",
    "sync-bound": "The GPU idles inside synchronizing calls",
    "driver-bound": "The GPU waits for the CUDA driver",
    "host-bound": "The GPU waits for the CPU",
    "cpu-offload-bound": "The GPU waits for layers on the CPU",
    "mixed": "The GPU waits, for two reasons",
    "idle": "No GPU ran a kernel in this window",
    "none": "No verdict",
}
"""Bottleneck -> what it means, in one line."""

ADVICE: Final[dict[str, str]] = {
    "gpu-bound": "Faster or fewer kernels help most; removing CPU work or synchronizing calls helps little.",
    "copy-bound": "Move less data, or move it while kernels run.",
    "pipeline-bound": "Balance the split between the GPUs.",
    "launch-bound": "CUDA graphs, or fewer and larger kernels, help.",
    "sync-bound": "Look at which calls wait although nothing is left to wait for.",
    "driver-bound": "Look for allocations, graph captures and module loads in the steady part.",
    "host-bound": "Look at what the program's own code does while the GPU idles.",
    "cpu-offload-bound": "More layers or experts on the GPU, or more CPU threads, help.",
    "mixed": "Removing one of them alone gains little more than its own share.",
    "idle": "Where a GPU was meant to work: look at another window, or check that layers were offloaded (-ngl).",
    "none": "The trust notes say what to capture instead.",
}
"""Bottleneck -> where to look next."""

TITLES: Final = {
    "api_sum": "CUDA API", "osrt_sum": "OS runtime, all threads", "kernel_sum": "Kernels",
    "mem_time_sum": "Memory operations by time", "mem_size_sum": "Memory operations by size", "nvtx_sum": "NVTX ranges",
    "kern_exec_sum": "Launches and their kernels",
}  # fmt: skip
"""Kind of a sum -> its heading."""

START_PARTS: Final = {
    "program": "before the first CUDA call",
    "driver": "driver: context, modules, memory",
    "upload": "loading the weights onto the GPU",
    "prepare": "until the first step",
    "warm_up": "warm-up",
    "wait": "waiting for work",
    "first_token": "the first prompt, to its first token",
}
"""Part of the start -> what went on."""

_MAY_LACK: Final = frozenset({"startup", "layers", "depth", "roles", "several_gpus"})
"""Nothing is missing where a trace has none of them: it begins later, or holds no decode step."""

PARTS: Final[dict[str, str]] = {
    "kernel": "running kernels",
    "graph": "inside CUDA graphs",
    "memcpy": "copying",
    "memset": "filling memory",
    "unknown": "idle, not explained by the trace",
    "peer": "idle, waiting for another GPU",
    "dispatch": "idle, work handed over but not begun",
    "submit": "idle, CPU is launching work",
    "sync": "idle, CPU is in a synchronizing call",
    "cuda": "idle, CPU is in another CUDA call",
    "profiler": "idle, the profiler itself works",
    "blocked": "idle, CPU thread waits in the OS",
    "os": "idle, CPU is in an OS call",
    "host": "idle, CPU runs the program's code",
}
"""Part of a device ledger -> what the GPU does in it."""

THREAD_PARTS: Final[dict[str, str]] = {
    "sync": "in synchronizing calls",
    "submit": "launching work",
    "cuda": "in other CUDA calls",
    "blocked": "waiting in the OS",
    "os": "in OS calls",
    "host": "running the program's code",
}
"""Part of a thread ledger -> what the thread does in it."""

SYNC_CLASSES: Final[dict[str, str]] = {
    "no_wait": "nothing was unfinished",
    "upload": "waited for an upload only",
    "gpu_wait": "waited for a working GPU: healthy",
    "host_bound": "the GPU was idle for most of it",
}


def waiting(cause: str) -> str:
    """What the CPU does meanwhile, for a cause of idle time."""
    return PARTS[cause].removeprefix("idle, ")


def start_sentence(result: StartupResult) -> str:
    """Where the start was counted from, and what of it was loading from disk."""
    since = "the process's start" if result.whole else "its first traced call, for the trace does not tell its start"
    told = (
        f"Counted from {since}; {human_ns(result.disk_ns)} in calls on files with no upload going on (load from disk)."
    )
    if result.mapped is None:
        return f"Counted from {since}; calls on files were not collected."
    if result.mapped:
        return f"{told} The model's file is mapped: what of it is read from disk is within the uploads."
    return told


def prompt_sentence(cost: PromptCost) -> str:
    """What prompts cost the slots that generate meanwhile."""
    waits = cost.extra_ms
    each = "" if cost.us_per_prompt_token is None else f", {cost.us_per_prompt_token:.1f} µs a token of a prompt"
    return (
        f"Other slots' prompts delayed {cost.affected:,} of {cost.tokens:,} generated tokens "
        f"({human_share(cost.affected_share)}), by {waits['p50']:.2f} ms (median), {waits['p95']:.2f} ms (p95), "
        f"{waits['max']:.2f} ms (most){each}"
    )


def growth_sentences(result: DepthResult) -> list[str]:
    """What a step gains from a thousand more tokens in context, one line a batch size, or why that is not told."""
    unit = "steps" if result.basis == "since_prefill" else "tokens in context"
    told = []
    for (batch,), rows in result.growth.group_by("batch", maintain_order=True):
        lines = {(row["kind"], row["part"]): row for row in rows.iter_rows(named=True)}
        whole = lines["step", "step"]
        sure = abs(whole["ns_per_1k"]) > 2 * whole["error_ns"]
        head = f"Per 1,000 more {unit} a step of {batch} takes {_gained(whole)}"
        if not sure:
            told.append(f"{head}: not told apart from noise.")
            continue
        parts = rows.filter((pl.col("kind") == "ledger") & (pl.col("ns_per_1k") > 2 * pl.col("error_ns"))).head(3)
        kernels = rows.filter((pl.col("kind") == "kernels") & (pl.col("ns_per_1k") > 2 * pl.col("error_ns"))).head(2)
        why = ", ".join(f"{row['part']} {_gained(row)}" for row in parts.iter_rows(named=True))
        inside = ", ".join(f"{row['part']} {_gained(row)}" for row in kernels.iter_rows(named=True))
        told.append(f"{head}{f': {why}' if why else ''}{f' (kernels: {inside})' if inside else ''}.")
    if not told and result.bins.height:
        told.append("Too few steps, or less than 256 tokens between the first and the last depth: no growth is told.")
    return told


def _gained(row: Mapping[str, Any]) -> str:
    sign = "−" if row["ns_per_1k"] < 0 else "+"
    return f"{sign}{human_ns(abs(row['ns_per_1k']))} ± {human_ns(row['error_ns'])}"


def _dram_sentence(result: LimitsResult, dram: DramUse) -> str:
    """What the counters say of the memory, against what the floor says that it must read."""
    shares = {"read": dram.read_share, "written": dram.write_share}
    told = " and ".join(f"{human_share(share)} {what}" for what, share in shares.items() if share is not None)
    line = f"The memory's own counters: {told} of its peak in these steps ({dram.samples:,} samples)"
    if dram.read_share and result.bandwidth_share:
        line += f"; {dram.read_share / result.bandwidth_share:.2f} times what these steps have to read"
    return f"{line}."


def limit_sentences(result: LimitsResult) -> list[str]:
    """What a token must read and a prompt must compute, and how near the run came."""
    load = result.load
    told = [f"A decoded token reads {human_bytes(load.bytes_per_token)} of weights"]
    if result.floor_ms and result.memory_bandwidth:
        cache = "" if result.kv_bytes is None else f" and {human_bytes(result.kv_bytes)} of its cache"
        told[0] += f"{cache}: at {human_bytes(result.memory_bandwidth)}/s that takes {result.floor_ms:.3f} ms at least."
    if result.measured_ms and result.bandwidth_share and result.max_speedup:
        told.append(
            f"Measured: {result.measured_ms:.3f} ms a step of one token, {human_share(result.bandwidth_share)} of what "
            f"the memory allows; at most {result.max_speedup:.2f}× as fast with these weights."
        )
    if result.dram is not None:
        told.append(_dram_sentence(result, result.dram))
    if load.kv_bytes_per_token:
        known = f"{result.depth:,.0f} tokens in the median of the steps measured" if result.depth else "depth unknown"
        window = "" if load.sliding_window is None else f", at most {load.sliding_window:,} of them counted"
        counted = "" if result.kv_bytes is not None else ", so the cache is not in the floor"
        each = f"Every token in context adds {human_bytes(load.kv_bytes_per_token)} ({load.kv_types} cache) to be read"
        told.append(f"{each}: {known}{counted or window}.")
    if load.source:
        told.append(f"The size is {load.source}; --model FILE.gguf tells more.")
    if load.left_out:
        told.append(f"Not counted: {load.left_out}.")
    prefill = result.prefill
    if prefill is not None:
        peak = "the peak of this GPU is unknown here"
        if prefill.peak_tflops is not None:
            peak = f"{human_share(prefill.share_of_peak)} of {prefill.peak_tflops:g} ({prefill.source})"
        told.append(f"Prompts reach {prefill.tflops:.1f}·10¹² operations a second: {peak}.")
    return told


def absent(report: Report) -> list[str]:
    """The sections that a reader may look for in vain: asked for, and not in the trace."""
    return sorted(name for name, result in report.sections.items() if result is None and name not in _MAY_LACK)
