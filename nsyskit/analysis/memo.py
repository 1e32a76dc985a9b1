"""Frames that several analyses derive from one trace, derived once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import update_wrapper
from threading import RLock
from typing import Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from nsyskit.trace import Trace

P = ParamSpec("P")
T = TypeVar("T")


def once_per_trace(derive: Callable[Concatenate[Trace, P], T]) -> Callable[Concatenate[Trace, P], T]:
    """Remember what a pure function makes of a trace and hashable arguments, for as long as the trace lives."""
    results: WeakKeyDictionary[Trace, dict[Hashable, T]] = WeakKeyDictionary()
    lock = RLock()

    def remembered(trace: Trace, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (args, tuple(sorted(kwargs.items())))
        with lock:
            known = results.setdefault(trace, {})
            if key not in known:
                known[key] = derive(trace, *args, **kwargs)
            return known[key]

    return update_wrapper(remembered, derive)
