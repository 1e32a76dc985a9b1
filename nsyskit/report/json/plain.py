"""Values that JSON knows, and the results' common entry ``section``."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import polars as pl

from nsyskit.trace import Window


@singledispatch
def section(result: object) -> Any:
    """One result as plain values."""
    raise NotImplementedError(type(result))


def rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [{name: finite(value) for name, value in row.items()} for row in frame.iter_rows(named=True)]


def finite(value: Any) -> Any:
    """JSON has no infinity and no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def span(window: Window) -> dict[str, Any]:
    return {"kind": window.kind, "start_ns": window.start_ns, "end_ns": window.end_ns}
