"""Windows: the ``[start, end)`` that an analysis looks at, always printed with its result."""

from __future__ import annotations

import polars as pl

from nsyskit.analysis.pairing import gpu_ops
from nsyskit.analysis.steps import find_steps
from nsyskit.errors import MissingTableError, UsageError
from nsyskit.trace import Trace, Window
from nsyskit.units import parse_duration_ns


def window_all(trace: Trace) -> Window:
    """CUDA API calls and GPU operations together; OS runtime calls where there are neither.

    Raises:
        MissingTableError: the trace holds none of the three.
    """
    spans = [_span(trace.api_calls.select("start_ns", "end_ns").collect()), _span(gpu_ops(trace))]
    found = [span for span in spans if span] or [
        span for span in [_span(trace.os_calls.select("start_ns", "end_ns").collect())] if span
    ]
    if not found:
        raise MissingTableError("CUDA API calls, GPU work or OS runtime calls", hint="capture with --trace=cuda,osrt")
    return Window("all", min(start for start, _ in found), max(end for _, end in found))


def window_gpu(trace: Trace) -> Window:
    """From the first GPU operation's start to the last one's end.

    Raises:
        MissingTableError: the trace holds no GPU operation.
    """
    span = _span(gpu_ops(trace))
    if span is None:
        raise MissingTableError("GPU work", hint="capture with --trace=cuda, or look at --window all")
    return Window("gpu", *span)


def steady_window(trace: Trace) -> Window | None:
    """From the first step after warm-up to the end of the last complete step; None when all is warm-up.

    Warm-up ends with the first two steps in a row that neither build a graph, load a module, nor are the first of
    their phase.
    """
    steps = find_steps(trace).steps
    warm = ~steps["cold"]
    settled = (warm & warm.shift(-1, fill_value=True)).arg_true()
    if settled.is_empty():
        return None
    return Window("steady", int(steps["begin_ns"][settled[0]]), int(steps["end_ns"].max()))  # type: ignore[arg-type]


def default_window(trace: Trace) -> Window:
    """``steady`` where there are steps, else ``gpu`` where there is GPU work, else ``all``."""
    if not gpu_ops(trace).height:
        return window_all(trace)
    return steady_window(trace) or window_gpu(trace)


def parse_window(text: str, trace: Trace) -> Window:
    """``all``, ``gpu``, ``steady``, or ``START:END`` in the trace's clock; ``+`` counts from the first GPU operation.

    Times take ns, us, ms or s; a bare number is nanoseconds.

    Raises:
        UsageError: the text is no window, or an empty one.
    """
    if text == "all":
        return window_all(trace)
    if text == "gpu":
        return window_gpu(trace)
    if text == "steady":
        return _steady(trace)
    parts = text.split(":")
    if len(parts) != 2:
        raise UsageError(f"{text!r} is no window", hint="write all, gpu, steady, or START:END such as +1.5s:+2s")
    start, end = (_instant(part, trace) for part in parts)
    if start >= end:
        raise UsageError(f"the window {text} ends before it begins", hint="write START:END with START before END")
    return Window("explicit", start, end)


def _steady(trace: Trace) -> Window:
    window = steady_window(trace)
    if window is None:
        why = find_steps(trace).why_none or "every step belongs to warming up"
        raise UsageError(f"nothing in this trace is steady: {why}", hint="use --window gpu or START:END")
    return window


def _instant(text: str, trace: Trace) -> int:
    value, relative = parse_duration_ns(text)
    return value + window_gpu(trace).start_ns if relative else value


def _span(rows: pl.DataFrame) -> tuple[int, int] | None:
    if rows.is_empty():
        return None
    low, high = rows.select(pl.col("start_ns").min(), pl.col("end_ns").max()).row(0)
    return (int(low), int(high)) if low is not None and high is not None else None
