"""Forward passes by what they upload: groups of user inputs, the tokens they are for, the outputs that come back.

Positions take 4 bytes a token (M-RoPE 16), KV indices 8, in pairs for K and V.

A *segment* is a group of uploads and the work that follows it, up to the next upload. A forward pass is the segments
from one step's opening to the next.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import gcd
from typing import Final

import polars as pl

_MAX_GROUP: Final = 32
_MAX_TOKENS: Final = 65_536
_MAX_UBATCH: Final = 8_192
MAX_VECTOR_BATCH: Final = 8


@dataclass(frozen=True, slots=True)
class ForwardPasses:
    """The forward passes of one thread.

    Attributes:
        passes: ``number begin_ns last_call_ns launched n_tokens output_bytes output_ids``, in time order, numbered from
            1: when the first upload was handed over, when the last call ended, whether anything was launched, bytes of
            the last copy back, which nothing but the next step's uploads follows (0 without one), and how many output
            ids were uploaded, last and 4 bytes each (null where the last upload is something else).
        inputs: rows of the trace's memcpys that upload user inputs.
        torn: how many passes began before the trace did.
    """

    passes: pl.DataFrame
    inputs: pl.Series
    torn: int


def forward_passes(events: pl.DataFrame) -> ForwardPasses:
    """The forward passes of one thread."""
    segments = _segments(events)
    number = pl.Series("number", _opens(segments), dtype=pl.Int64).cum_sum()
    segments = segments.with_columns(number.set_sorted())
    unseen = segments.filter(pl.col("number") == 0)  # work whose uploads were not seen
    segments = segments.filter(pl.col("number") > 0)
    passes = segments.group_by("number", maintain_order=True).agg(
        pl.col("begin_ns", "n_tokens").first(),
        pl.col("last_call_ns").max(),
        pl.col("launched").any(),
        pl.col("output_bytes").last(),
    )
    inputs = segments.filter(pl.col("n_tokens").is_not_null())
    passes = passes.join(_output_ids(inputs), on="number", how="left", maintain_order="left")
    return ForwardPasses(passes, inputs["rows"].explode(), int(unseen["launched"].any()))


def _segments(events: pl.DataFrame) -> pl.DataFrame:
    """A row a segment: ``last_call_ns launched answered output_bytes begin_ns sizes devices rows n_tokens``.

    ``answered``: whether anything was copied back. The last five are of its uploads and null without any; ``sizes``
    without those that a damaged row does not tell.
    """
    kind = pl.col("kind")
    after_work = pl.when(kind != "break").then(kind != "up").forward_fill().shift(1, fill_value=False)
    other_next = pl.when(kind != "up").then(kind).backward_fill()
    events = events.with_columns(
        segment=((kind == "up") & after_work).fill_null(value=False).cum_sum().set_sorted(),
        is_input=(kind == "up") & other_next.ne_missing("break"),  # before other calls they are weights
    )
    uploads = events.filter("is_input").group_by("segment", maintain_order=True).agg(
        begin_ns=pl.col("at").tail(_MAX_GROUP).first(),
        sizes=pl.col("bytes").tail(_MAX_GROUP).drop_nulls(),
        devices=pl.col("device").tail(_MAX_GROUP),
        rows=pl.col("row").tail(_MAX_GROUP),
    )  # fmt: skip
    segments = events.filter(kind != "break").group_by("segment", maintain_order=True).agg(
        last_call_ns=pl.max_horizontal(pl.col("last", "done").max()),
        launched=(kind == "run").any(),
        answered=(kind == "down").any(),
        output_bytes=pl.col("bytes").filter(kind == "down").last().fill_null(0),
    )  # fmt: skip
    segments = segments.join(uploads, on="segment", how="left", maintain_order="left").drop("segment")
    segments = segments.filter(pl.col("launched") | pl.col("answered") | pl.col("begin_ns").is_not_null())
    return segments.join(_tokens(segments["sizes"]), on="sizes", how="left", maintain_order="left")


def _tokens(sizes: pl.Series) -> pl.DataFrame:
    """How many tokens groups of uploads are for, null when they are no user inputs: ``sizes n_tokens``.

    Most steps upload the same sizes as others, so that few groups have to be looked at.
    """
    distinct = sizes.drop_nulls().unique(maintain_order=True)
    groups = distinct.to_list()
    by_indices = [_tokens_by_indices(group) for group in groups]
    found = by_indices if any(by_indices) else [_tokens_by_positions(group) for group in groups]
    return pl.DataFrame([distinct.alias("sizes"), pl.Series("n_tokens", found, dtype=pl.Int64)])


def _tokens_by_indices(sizes: list[int]) -> int | None:
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


def _tokens_by_positions(sizes: list[int]) -> int | None:
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


def _opens(segments: pl.DataFrame) -> list[bool]:
    """Whether each segment begins another step than the one before.

    User inputs do when their device had its own already, or when the last step has given output.
    """
    opens: list[bool] = []
    served: set[int | None] | None = None  # devices that have had the inputs of this step; None before the first
    answered = False  # by the segment before
    for n_tokens, devices, answers in segments.select("n_tokens", "devices", "answered").iter_rows():
        opens.append(bool(n_tokens) and (served is None or answered or not served.isdisjoint(devices)))
        if opens[-1]:
            served = set()
        if n_tokens and served is not None:
            served.update(devices)
        answered = answers
    return opens


def _output_ids(inputs: pl.DataFrame) -> pl.DataFrame:
    """How many output ids each pass uploaded, last and 4 bytes each: ``number output_ids``.

    Null where the last upload is something else. ``inputs`` are the segments of user inputs.
    """
    sizes = inputs.select("number", "sizes", bytes=4 * pl.col("n_tokens").first().over("number")).explode("sizes")
    found = sizes.group_by("number", maintain_order=True).agg(
        last=pl.col("sizes").last(),
        alike=(pl.col("sizes") == pl.col("bytes")).sum(),
        bytes=pl.col("bytes").first(),
    )
    last, bytes_ = pl.col("last"), pl.col("bytes")
    fits = (last % 4 == 0) & (last <= bytes_) & ((pl.col("alike") > 1) | (last < bytes_))
    return found.select("number", output_ids=pl.when(fits).then(last // 4))


def n_vocab(passes: pl.DataFrame) -> int | None:
    """From the sizes of output copies: 4 bytes a token of the vocabulary and output; None when they are no logits.

    Best told by steps of one token, else by the output ids, else by what all sizes are a multiple of.
    """
    answers = passes.filter(pl.col("output_bytes") != 0).with_columns(size=pl.col("output_bytes") // 4)
    ids = pl.col("output_ids")
    told = answers.filter(pl.col("n_tokens") == 1)["size"]
    if told.is_empty():
        told = answers.filter((ids != 0) & (pl.col("size") % ids == 0)).select(pl.col("size") // ids).to_series()
    votes = Counter(told.to_list()).most_common(1)
    found = votes[0][0] if votes else gcd(*answers["size"].unique())
    return found if found > MAX_VECTOR_BATCH else None


def n_outputs(vocabulary: int | None) -> pl.Expr:
    """From the logits copy, else from the output ids (the last upload, 4 bytes an output); 0 when nothing came back."""
    came, ids = pl.col("output_bytes"), pl.col("output_ids")
    logits = 4 * (vocabulary or 0)  # what is divided by 0 is null
    return (
        pl.when((came != 0) & (came % logits == 0)).then(came // logits)
        .when(ids != 0).then(ids)
        .when((came % 4 == 0) & (came <= 4 * pl.col("n_tokens"))).then(came // 4)
    )  # fmt: skip
