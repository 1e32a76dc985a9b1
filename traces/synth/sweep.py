"""The referee's arithmetic: cut a window at every boundary, say of each piece what covers it, add the pieces up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traces.synth.tape import I64, Bools

Spans = tuple[I64, I64]
NOTHING: Spans = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


class Sweep:
    """A window cut at every start and end of these families of spans."""

    def __init__(self, window: tuple[int, int], *families: Spans) -> None:
        self.window = window
        edges = [self._clip(spans) for spans in families]
        ends = np.array(window, dtype=np.int64)
        self.bounds: I64 = _distinct(np.concatenate([ends, *(side for spans in edges for side in spans)]))
        self.length: I64 = np.diff(self.bounds)

    def _clip(self, spans: Spans) -> Spans:
        first, last = self.window
        inside = (spans[1] > first) & (spans[0] < last)
        return np.clip(spans[0][inside], first, last), np.clip(spans[1][inside], first, last)

    def cover(self, spans: Spans) -> Bools:
        """Of each piece, whether any span covers it."""
        start, end = self._clip(spans)
        depth = np.zeros(len(self.bounds), dtype=np.int64)
        depth += np.bincount(np.searchsorted(self.bounds, start), minlength=len(depth))
        depth -= np.bincount(np.searchsorted(self.bounds, end), minlength=len(depth))
        inside: Bools = np.cumsum(depth)[:-1] > 0
        return inside

    def total(self, where: Bools) -> int:
        return int(self.length[where].sum())

    def next_start(self, where: Bools) -> I64:
        """Of each piece, where the next piece for which ``where`` holds begins; the window's end if none does."""
        candidates = np.where(where, self.bounds[:-1], self.bounds[-1])
        found: I64 = np.minimum.accumulate(candidates[::-1])[::-1]
        return found


def _distinct(values: I64) -> I64:
    """Sorted, without repeats. (``numpy.unique`` hashes, which is slower for many near-sorted instants.)"""
    ordered = np.sort(values)
    fresh: I64 = ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]
    return fresh


@dataclass(frozen=True)
class Union:
    """The union of spans, ready to be measured in many places."""

    start: I64
    end: I64
    before: I64

    @classmethod
    def of(cls, spans: Spans) -> Union:
        keep = spans[1] > spans[0]
        order = np.argsort(spans[0][keep], kind="stable")
        start, end = spans[0][keep][order], np.maximum.accumulate(spans[1][keep][order])
        if not len(start):
            return cls(start, end, np.zeros(1, dtype=np.int64))
        new = np.concatenate([[True], start[1:] > end[:-1]])
        last = np.concatenate([new[1:], [True]])
        start, end = start[new], end[last]
        return cls(start, end, np.concatenate([[0], np.cumsum(end - start)]).astype(np.int64))

    def until(self, at: I64) -> I64:
        """How much of the union lies before each of these instants."""
        if not len(self.start):
            return np.zeros(len(at), dtype=np.int64)
        index = np.searchsorted(self.start, at, side="right")
        inside = np.maximum(0, self.end[index - 1] - at)
        return np.where(index > 0, self.before[index] - inside, 0)

    def within(self, spans: Spans) -> I64:
        """How much of the union lies in each of these spans."""
        return self.until(spans[1]) - self.until(spans[0])


def join(*families: Spans) -> Spans:
    """One family of several."""
    return np.concatenate([spans[0] for spans in families]), np.concatenate([spans[1] for spans in families])
