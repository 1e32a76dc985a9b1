"""A run sample as plain values and bytes, for the history to keep, and back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from nsyskit.analysis.copies import PURPOSES
from nsyskit.analysis.step_costs import COUNTS, LEDGER_PARTS, PHASES
from nsyskit.compare.sample import GRAPH_COUNTS, STEP_TIME, PhaseSample, RunSample
from nsyskit.errors import TraceFormatError

FORMAT: Final = 1
_NEEDED: Final = frozenset(
    {"n_tokens", STEP_TIME, *COUNTS, *GRAPH_COUNTS}
    | {f"ledger.{part}" for part in LEDGER_PARTS}
    | {f"bytes_{purpose}" for purpose in PURPOSES}
)
_UNREADABLE: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


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
    """The sample that ``facts`` and ``frame_bytes`` were made of.

    Raises:
        TraceFormatError: they were made by something else.
    """
    try:
        return RunSample(
            name=_text(stored["name"]),
            setup={_text(name): _text(value) for name, value in stored["setup"].items()},
            errors=tuple(map(_text, stored["errors"])),
            warnings=tuple(map(_text, stored["warnings"])),
            window=_text(stored["window"]),
            window_ns=int(stored["window_ns"]),
            phases={phase: PhaseSample(phase, _steps(phase, content)) for phase, content in phases.items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError, *_UNREADABLE) as error:
        raise TraceFormatError("a kept run is damaged", hint="add its trace to the history again") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _steps(phase: str, content: bytes) -> pl.DataFrame:
    """The steps of a phase; every column is whole numbers of which a sum fits into 64 bits, none negative or null."""
    steps = pl.read_parquet(io.BytesIO(content))
    calls = {f"calls.{name.removeprefix('kernel.')}" for name in steps.columns if name.startswith("kernel.")}
    if phase not in PHASES or not _NEEDED | calls <= set(steps.columns) or steps.is_empty():
        raise ValueError("columns are missing")
    largest = 2**62 // steps.height
    for column in steps:
        if not column.dtype.is_integer() or column.null_count() or not column.is_between(0, largest).all():
            raise ValueError("a column holds something else")
    if not (steps["n_tokens"] > 0).all():
        raise ValueError("a step has no token")
    return steps.cast(pl.Int64)


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
