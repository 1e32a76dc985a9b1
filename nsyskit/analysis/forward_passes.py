"""Forward passes by what they upload: groups of user inputs, the tokens they are for, the outputs that come back.

Positions take 4 bytes a token (M-RoPE 16), KV indices 8, in pairs for K and V.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from math import gcd
from typing import Final

import polars as pl

_MAX_GROUP: Final = 32
_MAX_TOKENS: Final = 65_536
_MAX_UBATCH: Final = 8_192
MAX_VECTOR_BATCH: Final = 8


@dataclass(slots=True)
class Upload:
    at: int
    done: int
    size: int
    device: int
    row: int  # in the trace's memcpys


@dataclass(slots=True)
class Segment:
    """A group of uploads and the work that follows it, up to the next upload."""

    uploads: list[Upload]
    n_tokens: int | None
    last_call: int = 0
    launched: bool = False
    downloads: list[tuple[int, int]] = field(default_factory=list)  # (call, bytes)


@dataclass(slots=True)
class ForwardPass:
    """A forward pass: the segments from one step's opening to the next."""

    segments: list[Segment] = field(default_factory=list)
    last_call: int = 0
    launched: bool = False

    def add(self, segment: Segment) -> None:
        self.segments.append(segment)
        self.last_call = max(self.last_call, segment.last_call)
        self.launched = self.launched or segment.launched

    @property
    def begin(self) -> int:
        return self.segments[0].uploads[0].at

    @property
    def n_tokens(self) -> int:
        return self.segments[0].n_tokens or 0  # a pass opens with a segment that has some

    @property
    def devices(self) -> set[int]:
        return {upload.device for segment in self.segments if segment.n_tokens for upload in segment.uploads}

    @property
    def output_bytes(self) -> int:
        """Bytes of the last copy back, which nothing but the next step's uploads follows; 0 without one."""
        downloads = self.segments[-1].downloads
        return downloads[-1][1] if downloads else 0


def forward_passes(events: pl.DataFrame) -> tuple[list[ForwardPass], int]:
    """The forward passes of one thread, and how many began before the trace did."""
    segments = list(_segments(events))
    indexed = any(_tokens_by_indices(_sizes(segment)) for segment in segments)
    tokens = _tokens_by_indices if indexed else _tokens_by_positions
    for segment in segments:
        segment.n_tokens = tokens(_sizes(segment))
    passes: list[ForwardPass] = []
    torn = 0
    for segment in segments:
        if segment.n_tokens and _opens(segment, passes[-1] if passes else None):
            passes.append(ForwardPass())
        if passes:
            passes[-1].add(segment)
        elif segment.launched:
            torn = 1  # work whose uploads were not seen
    return passes, torn


def _segments(events: pl.DataFrame) -> Iterator[Segment]:
    current = Segment([], None)
    columns = events.select("kind", "at", "last", "done", "bytes", "device", "row")
    for kind, at, last, done, size, device, row in columns.iter_rows():
        if kind == "up":
            if current.launched or current.downloads:
                yield current
                current = Segment([], None)
            current.uploads.append(Upload(at, done, size, device, row))
            del current.uploads[:-_MAX_GROUP]
        elif kind == "break":
            if not current.launched and not current.downloads:
                current.uploads = []  # weights, not inputs
        else:
            current.launched = current.launched or kind == "run"
            if kind == "down":
                current.downloads.append((at, size))
        if kind != "break":
            current.last_call = max(current.last_call, last, done)
    if current.launched or current.downloads or current.uploads:
        yield current


def _sizes(segment: Segment) -> tuple[int, ...]:
    """Without those that a damaged row does not tell."""
    return tuple(upload.size for upload in segment.uploads if upload.size is not None)


@lru_cache(maxsize=4_096)  # most steps upload the same sizes as others
def _tokens_by_indices(sizes: tuple[int, ...]) -> int | None:
    """How many tokens a group of uploads is for, None when it is no group of user inputs.

    KV indices, 8 bytes a token and in pairs for K and V, stand beside positions of 4 bytes a token (M-RoPE 16).
    """
    counts = Counter(sizes)
    found: list[tuple[int, bool, int]] = []
    for n in {size // 8 for size in counts if 0 < size <= 8 * _MAX_TOKENS and size % 8 == 0}:
        plain, indices = counts[4 * n], counts[8 * n]
        positions = plain or counts[16 * n]
        if positions and indices >= 2 and indices % 2 == 0:
            found.append((positions + indices, plain > 0, -n))
    return -max(found)[2] if found else None


@lru_cache(maxsize=4_096)
def _tokens_by_positions(sizes: tuple[int, ...]) -> int | None:
    """The same for versions without KV indices: every other upload is a whole number of rows for n tokens.

    Embeddings and masks are multiples of 2 bytes a token and larger than positions; output ids are fewer and last.
    """
    found = [0]
    for size in set(sizes):
        n, rest = divmod(size, 4)
        if rest or not 0 < n <= _MAX_UBATCH:
            continue
        smaller = [place for place, other in enumerate(sizes) if other < size]
        if smaller in ([], [len(sizes) - 1]) and all(other % (2 * n) == 0 for other in sizes if other > size):
            found.append(n)
    return max(found) or None if len(sizes) > 1 else None


def _opens(segment: Segment, current: ForwardPass | None) -> bool:
    """Whether user inputs begin another step: their device had its own already, or the last step has given output."""
    if current is None or current.segments[-1].downloads:
        return True
    return bool({upload.device for upload in segment.uploads} & current.devices)


def n_vocab(passes: Sequence[ForwardPass]) -> int | None:
    """From the sizes of output copies: 4 bytes a token of the vocabulary and output; None when they are no logits.

    Best told by steps of one token, else by the output ids, else by what all sizes are a multiple of.
    """
    sizes = [(one, one.output_bytes // 4) for one in passes if one.output_bytes]
    told = [size for one, size in sizes if one.n_tokens == 1]
    told = told or [size // ids for one, size in sizes if (ids := _output_ids(one)) and size % ids == 0]
    votes = Counter(told).most_common(1)
    found = votes[0][0] if votes else reduce(gcd, (size for _, size in sizes), 0)
    return found if found > MAX_VECTOR_BATCH else None


def n_outputs_of(one: ForwardPass, vocabulary: int | None) -> int | None:
    """From the logits copy, else from the output ids (the last upload, 4 bytes an output); 0 when nothing came back."""
    if one.output_bytes and vocabulary and one.output_bytes % (4 * vocabulary) == 0:
        return one.output_bytes // (4 * vocabulary)
    if ids := _output_ids(one):
        return ids
    if one.output_bytes and one.output_bytes % 4 == 0 and one.output_bytes <= 4 * one.n_tokens:
        return one.output_bytes // 4
    return None if one.output_bytes else 0


def _output_ids(one: ForwardPass) -> int | None:
    """How many output ids were uploaded, last and 4 bytes each; None where the last upload is something else."""
    uploads = [size for segment in one.segments if segment.n_tokens for size in _sizes(segment)]
    last = uploads[-1]
    spare = Counter(uploads)[4 * one.n_tokens] > 1 or last < 4 * one.n_tokens
    return last // 4 if last % 4 == 0 and last <= 4 * one.n_tokens and spare else None
