"""A run sample as plain values and bytes, for the history to keep, and back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from nsyskit.compare.sample import STEP_TIME, PhaseSample, RunSample

FORMAT: Final = 1


def frame_bytes(sample: PhaseSample) -> bytes:
    """The steps of a phase as Parquet."""
    out = io.BytesIO()
    sample.steps.write_parquet(out, compression="zstd", statistics=False)
    return out.getvalue()


def facts(sample: RunSample) -> dict[str, Any]:
    """Everything of a sample but its steps, as JSON knows it."""
    return {
        "format": FORMAT, "name": sample.name, "setup": dict(sample.setup), "errors": list(sample.errors),
        "warnings": list(sample.warnings), "window": sample.window, "window_ns": sample.window_ns,
    }  # fmt: skip


def load_sample(stored: Mapping[str, Any], phases: Mapping[str, bytes]) -> RunSample:
    """The sample that ``facts`` and ``frame_bytes`` were made of."""
    return RunSample(
        name=stored["name"],
        setup=dict(stored["setup"]),
        errors=tuple(stored["errors"]),
        warnings=tuple(stored["warnings"]),
        window=stored["window"],
        window_ns=stored["window_ns"],
        phases={phase: PhaseSample(phase, pl.read_parquet(io.BytesIO(steps))) for phase, steps in phases.items()},
    )


def metrics(sample: RunSample) -> dict[str, tuple[float, str]]:
    """Numbers per token, for trends: path -> value and unit (``ns``, ``tokens/s``, ``bytes`` or ``count``)."""
    found: dict[str, tuple[float, str]] = {}
    for phase, one in sample.phases.items():
        tokens = one.tokens
        for name in one.steps.columns:
            if name.startswith(("kernel.", "calls.")) or name == "n_tokens":
                continue
            value = int(one.steps[name].sum()) / tokens
            if name == STEP_TIME:
                found[f"{phase}.{name}"] = (value / 1e6, "ms")
                found[f"{phase}.tokens_per_s"] = (1e9 / value if value else 0.0, "tokens/s")
            elif "." in name:
                found[f"{phase}.{name}"] = (value, "ns")
            else:
                found[f"{phase}.{name}_per_token"] = (value, "bytes" if name.startswith("bytes") else "count")
    return found
