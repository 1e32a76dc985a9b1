"""The numbers of a run that are worth a line at its end; the rest is for analysis."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nsyskit.capture.store import quantile
from nsyskit.capture.tax import tax_ns
from nsyskit.ggml.outputs import ProgramNumbers, parse_output
from nsyskit.units import human_ns, human_share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nsyskit.capture.config import CaptureConfig
    from nsyskit.capture.load import Request
    from nsyskit.capture.nvml import NvmlSampler
    from nsyskit.capture.serverlog import LogClock
    from nsyskit.capture.tax import Part
    from nsyskit.runfolder import RunFolder

_OUTPUT_LIMIT_BYTES = 64 << 20


def load_summary(requests: Sequence[Request], parts: Sequence[Part], clock: LogClock | None) -> dict[str, Any]:
    """Counts, rates and quantiles of the load; warm-up left out."""
    sent = [request for request in requests if not request.warmup]
    whole = [request for request in sent if request.error is None]
    if not whole:
        return {"requests": len(sent), "failed": len(sent)}
    begin, end = min(r.send_ns for r in whole), max(r.end_ns or 0 for r in whole)
    computed, cached = _total(whole, "prompt_n"), _total(whole, "cache_n")
    predicted = _total(whole, "predicted_n")
    seconds = (end - begin) / 1e9
    return {
        "requests": len(sent),
        "failed": len(sent) - len(whole),
        "dur_ns": end - begin,
        "prompt_n": computed,
        "cache_n": cached,
        "cached_share": cached / (computed + cached) if computed + cached else 0.0,
        "predicted_n": predicted,
        "predicted_tokens_per_s": predicted / seconds if seconds else None,
        "prompt_tokens_per_s": computed / seconds if seconds else None,
        "ttft_ns": _quantiles([r.ttft_ns for r in whole if r.ttft_ns is not None]),
        "itl_ns": _quantiles([gap for r in whole for gap in r.itl_ns]),
        "total_ns": _quantiles([r.total_ns for r in whole if r.total_ns is not None]),
        "tax_ns": _quantiles([tax for r in whole if (tax := tax_ns(r)) is not None]),
        "parts_ns": _part_sums(parts),
        "log_clock_error_ns": None if clock is None else clock.error_ns,
    }


def program_results(folder: RunFolder, config: CaptureConfig) -> dict[str, Any]:
    """What the program printed about itself; llama-bench's JSON lines also as ``results.jsonl``."""
    text = _text(folder.program_out)
    if config.kind in {"bench", "batched-bench"}:
        lines = [line for line in text.splitlines() if _is_record(line)]
        if lines:
            folder.results.write_text("\n".join(lines) + "\n", encoding="utf-8")
    numbers = parse_output(text + "\n" + _text(folder.program_err)) if config.kind != "other" else ()
    shown = [_number(number) for number in numbers if number.tokens_per_s is not None]
    return {"program": shown} if shown and config.kind != "server" else {}


def memory_summary(folder: RunFolder, nvml: NvmlSampler) -> dict[str, Any]:
    """Peak GPU memory by NVML, and the program's own split into model, KV and compute, where it printed one."""
    peaks: dict[int, int] = {}
    for row in nvml.rows:
        if row["memory_used_bytes"] is not None:
            peaks[row["gpu"]] = max(peaks.get(row["gpu"], 0), row["memory_used_bytes"])
    text = _text(folder.program_err) + "\n" + _text(folder.program_out)
    split = {n.label.partition(" ")[2]: dict(n.extra) for n in parse_output(text) if n.label.startswith("memory ")}
    summary: dict[str, Any] = {}
    if peaks:
        summary["peak_bytes"] = {str(gpu): peak for gpu, peak in sorted(peaks.items())}
    if split:
        summary["split"] = split
    return summary


def tokens_per_s(summary: Mapping[str, Any]) -> dict[str, float]:
    """The rates by which runs are compared: of a load, or of each test that a program printed."""
    load = summary.get("load")
    if load:
        rates = {"predicted": load.get("predicted_tokens_per_s"), "prompt": load.get("prompt_tokens_per_s")}
        return {name: rate for name, rate in rates.items() if rate}
    return {number["label"]: number["tokens_per_s"] for number in summary.get("program", ())}


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """The summary for people: a line for the load, for each test of a program, for what tracing did."""
    lines = [_load_line(summary["load"])] if summary.get("load", {}).get("ttft_ns") else []
    lines += [f"{number['label']}: {number['tokens_per_s']:.2f} tokens/s" for number in summary.get("program", ())]
    if "first_text_ns" in summary:
        lines.append(f"first text {human_ns(summary['first_text_ns'])} after the start, nsys included")
    for arm, shares in summary.get("traced_against_untraced", {}).items():
        told = ", ".join(f"{label} {human_share(share)}" for label, share in shares.items())
        lines.append(f"{arm}: tokens/s against untraced: {told or 'not measured'}")
    return lines


def _load_line(load: Mapping[str, Any]) -> str:
    ttft, gap = load["ttft_ns"], load["itl_ns"] or {}
    between = f", between tokens p50 {human_ns(gap['p50'])} p99 {human_ns(gap['p99'])}" if gap else ""
    return (
        f"{load['requests']} requests, {load['failed']} failed; {load['predicted_tokens_per_s']:.1f} tokens/s; "
        f"first token p50 {human_ns(ttft['p50'])} p99 {human_ns(ttft['p99'])}{between}; "
        f"{human_share(load['cached_share'])} of the prompts cached"
    )


def _number(number: ProgramNumbers) -> dict[str, Any]:
    return {
        "tool": number.tool, "label": number.label, "n_prompt": number.n_prompt, "n_gen": number.n_gen,
        "tokens_per_s": number.tokens_per_s, "ms": number.ms,
    }  # fmt: skip


def _is_record(line: str) -> bool:
    if not line.startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _text(path: Path) -> str:
    """A program's output; of a huge one the end."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _OUTPUT_LIMIT_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _total(requests: Sequence[Request], name: str) -> int:
    return sum(getattr(request, name) or 0 for request in requests)


def _quantiles(values: Sequence[int]) -> dict[str, int] | None:
    if not values:
        return None
    return {f"p{round(share * 100)}": quantile(values, share) or 0 for share in (0.5, 0.9, 0.99)}


def _part_sums(parts: Sequence[Part]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for part in parts:
        sums[part.part] = sums.get(part.part, 0) + part.dur_ns
    return dict(sorted(sums.items()))
