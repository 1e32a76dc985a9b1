"""The JSON document ``nsyskit.comparison/1``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from nsyskit.compare.gate import GateResult
from nsyskit.compare.result import MIN_RUNS, Comparison, Line, PhaseComparison
from nsyskit.report.compare_rows import part_rows

SCHEMA: Final = "nsyskit.comparison/1"


def render_json(comparison: Comparison, gates: Sequence[GateResult] = ()) -> str:
    """The document as text."""
    return json.dumps(document(comparison, gates), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def document(comparison: Comparison, gates: Sequence[GateResult] = ()) -> dict[str, Any]:
    """The document as plain values. Times are ns per token."""
    return {
        "schema": SCHEMA,
        "base": list(comparison.base),
        "candidate": list(comparison.candidate),
        "enough_runs": min(len(comparison.base), len(comparison.candidate)) >= MIN_RUNS,
        "comparable": comparison.comparable,
        "reasons": [asdict(reason) for reason in comparison.reasons],
        "verdict": comparison.verdict,
        "sentence": comparison.sentence,
        "setup": {
            "different": [asdict(item) for item in comparison.setup],
            "same": dict(comparison.shared_setup),
        },
        "noise": asdict(comparison.noise),
        "gates": [_gate(result) for result in gates],
        "phases": {found.phase: _phase(found) for found in comparison.phases},
    }


def _phase(found: PhaseComparison) -> dict[str, Any]:
    rows, total = part_rows(found)
    return {
        "verdict": found.total.verdict,
        "cause": found.cause,
        "sentence": found.sentence,
        "steps": {"base": found.base_steps, "candidate": found.candidate_steps},
        "tokens": {"base": found.base_tokens, "candidate": found.candidate_tokens},
        "like_for_like": {"strata": found.strata, "overlap": found.overlap},
        "clock": found.clock,
        "ms_per_token": {
            "base": float(found.raw_base) / 1e6,
            "candidate": float(found.raw_candidate) / 1e6,
            "diff": float(found.raw_diff) / 1e6,
        },
        "parts": {
            "sum_ns": total,
            "rounded_ns": {row.name: row.ns for row in rows},
            "exact_ns": {part.name: str(part.diff) for part in found.parts},
            "exact_sum_ns": str(found.raw_diff),
        },
        "ledger_ns": {name: {"base": float(one), "candidate": float(other)} for name, one, other in found.ledgers},
        "lines": [_line(line) for line in (found.total, *found.lines)],
        "new_kernels": [{"name": name, "ns_per_token": ns} for name, ns in found.new_kernels],
        "vanished_kernels": [{"name": name, "ns_per_token": ns} for name, ns in found.vanished_kernels],
    }


def _line(line: Line) -> dict[str, Any]:
    plain = {"path": line.path, "unit": unit(line), "share": line.share}
    rest = {name: value for name, value in asdict(line).items() if name not in {"path", "kind"}}
    return {name: _finite(value) for name, value in (plain | rest).items()}


def unit(line: Line) -> str:
    """``ns``, ``bytes`` or ``count``."""
    return "ns" if line.kind == "time" else "bytes" if line.name.startswith("bytes") else "count"


def _gate(result: GateResult) -> dict[str, Any]:
    return {
        "gate": result.gate.text, "path": result.path, "outcome": result.outcome, "diff": result.diff,
        "limit": result.limit, "reason": result.reason,
    }  # fmt: skip


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
