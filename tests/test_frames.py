"""Frames held small: the same rows, however they lie in memory. Small pieces stand for large ones."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from nsyskit import frames
from nsyskit.frames import (
    ascends,
    by_group,
    by_time,
    distinct,
    groups,
    in_runs,
    is_by_time,
    kept,
    narrowed,
    packed,
    selected,
    summed,
    unpacked,
    with_literals,
)
from nsyskit.ingest.pieces import gathered

NUMBER = st.one_of(st.none(), st.integers(0, 2))
ROWS = st.lists(st.tuples(NUMBER, NUMBER, st.sampled_from(["x", "y"])), max_size=12)
SPANS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=8)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch) -> None:
    monkeypatch.setattr(frames, "PIECE_ROWS", 3)


def table(rows: list[tuple[int | None, int | None, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"a": pl.Int32, "b": pl.UInt32, "text": pl.String}, orient="row")


def spans(rows: list[tuple[int, int]], kind: str) -> pl.DataFrame:
    found = pl.DataFrame(rows, schema={"start_ns": pl.Int64, "end_ns": pl.Int64}, orient="row")
    found = found.with_columns(end_ns=pl.col("start_ns") + pl.col("end_ns")).sort("start_ns", "end_ns")
    return found.with_columns(kind=pl.lit(kind), pid=pl.lit(7, pl.Int32), place=pl.int_range(pl.len()))


@given(ROWS)
def test_literals_say_the_same(rows):
    assert with_literals(table(rows)).equals(table(rows))


def test_a_literal_takes_no_memory():
    many = pl.DataFrame({"same": [5] * 100_000, "other": range(100_000), "none": [None] * 100_000})
    assert with_literals(many.select("same")).estimated_size() == 8
    assert with_literals(many.select("other")).estimated_size() == 800_000


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_gathered_are_all_rows_in_order(parts):
    for most in (0, 3, 100):  # that are expected
        found = gathered((table(rows) for rows in parts), most)
        assert found.equals(table([row for rows in parts for row in rows]))
        assert found.n_chunks() == 1


def test_gathered_columns_of_one_number_take_no_memory_and_keep_their_height():
    pieces = [pl.DataFrame({"a": [7] * height}, schema={"a": pl.Int32}) for height in (2, 0, 1)]
    assert gathered(pieces, 3)["a"].to_list() == [7, 7, 7]
    wide = [piece.with_columns(b=pl.int_range(pl.len())) for piece in pieces]
    assert gathered(wide, 3).estimated_size() == 4 + 3 * 8
    assert gathered([*pieces, pieces[0] + 1], 3)["a"].to_list() == [7, 7, 7, 8, 8]


def test_gathered_rows_may_be_far_fewer_than_announced():
    pieces = [pl.DataFrame({"a": [at, -at]}) for at in range(300)]
    assert gathered(pieces, 1 << 60).equals(pl.concat(pieces))


def test_gathered_numbers_keep_their_width():
    pieces = [pl.DataFrame({"a": [at, -at]}, schema={"a": pl.Int16}) for at in range(3)]
    assert gathered(pieces, 6).equals(pl.DataFrame({"a": [0, 0, 1, -1, 2, -2]}, schema={"a": pl.Int16}))


@given(st.lists(ROWS, min_size=1, max_size=4), st.sampled_from([1, 100]))
def test_by_group_is_group_by(parts, few):
    pieces = [table(rows) for rows in parts]
    aggregates = (
        pl.len().alias("rows"),
        pl.col("b").sum(),
        pl.col("b").mean().alias("mean"),
        pl.col("b").max().alias("most"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "_FEW_GROUPS", few)
        for keys in (["a"], ["a", "text"]):
            expected = pl.concat(pieces).group_by(keys).agg(*aggregates)
            found = by_group(iter(pieces), keys, *aggregates)
            assert_frame_equal(found.select(expected.columns), expected, check_row_order=False)


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3)), max_size=4), ROWS)
def test_narrowed_numbers_are_the_same(numbers, rows):
    both = [pl.DataFrame({"n": numbers}, schema={"n": pl.Int64}), table(rows)]
    frame = pl.concat([part.head(min(len(numbers), len(rows))) for part in both], how="horizontal")
    assert narrowed(frame).cast({"n": pl.Int64}).equals(frame)


def test_narrowed_columns_take_half_the_memory():
    ends = -(2**31), 2**31 - 1
    frame = pl.DataFrame({"small": ends, "large": (ends[0] - 1, 0), "huge": (0, ends[1] + 1)})
    assert list(narrowed(frame).dtypes) == [pl.Int32, pl.Int64, pl.Int64]


@given(ROWS)
def test_groups_in_runs_are_the_same(rows):
    frame = table(rows)
    for one in (frame, frame.sort("a"), frame.sort("a", nulls_last=True), frame.drop_nulls().sort("a")):
        found, expected = (each.group_by("a").agg(pl.col("b").sum(), pl.len()) for each in (in_runs(one, "a"), one))
        assert_frame_equal(found, expected, check_row_order=False)


@given(st.lists(SPANS, min_size=1, max_size=3))
def test_by_time_is_a_stable_sort(parts):
    named = [spans(rows, kind) for kind, rows in zip("abc", parts, strict=False)]
    assert by_time(named).equals(pl.concat(named).sort("start_ns", "end_ns", maintain_order=True))


@given(SPANS)
def test_is_by_time(rows):
    frame = pl.DataFrame(rows, schema={"start_ns": pl.Int64, "end_ns": pl.Int64}, orient="row")
    assert is_by_time(frame) == (rows == sorted(rows))


@given(ROWS)
def test_distinct_rows(rows):
    assert sorted(distinct(table(rows)).rows(), key=str) == sorted(set(rows), key=str)


@given(ROWS)
def test_selected_and_kept_filter(rows):
    frame, some = table(rows), pl.col("a") > 0
    assert kept(frame, some).equals(frame.filter(some))
    expected = frame.filter(some).select(twice=pl.col("a") * 2)
    assert selected(frame, some, twice=pl.col("a") * 2).equals(expected)


def test_kept_does_not_copy_what_stays():
    frame = pl.DataFrame({"a": [1, 2, 3]})
    assert kept(frame, pl.col("a") > 0) is frame


@given(ROWS)
def test_summed_over_all_rows(rows):
    frame = table(rows)
    found = summed(frame, pl.col("a").sum(), (pl.col("b") == 1).sum())
    assert found == frame.select(pl.col("a").sum(), (pl.col("b") == 1).sum()).row(0)


@given(ROWS)
def test_summed_looks_back_across_pieces(rows):
    frame = table(rows)
    same = (pl.col("text") == pl.col("text").shift()).sum()
    assert summed(frame, same, before=1) == frame.select(same).row(0)


@given(
    st.lists(st.tuples(st.integers(0, 2**30 - 1), st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1))), max_size=8)
)
def test_packed_columns_come_out_again_and_no_two_alike(rows):
    frame = pl.DataFrame(rows, schema={"high": pl.Int64, "low": pl.Int32}, orient="row")
    both = frame.select(key=packed(pl.col("high"), pl.col("low")))
    high, low = unpacked(pl.col("key"))
    assert both.select(high=high, low=low).equals(frame)
    assert both["key"].n_unique() == len(set(rows))


@given(ROWS)
def test_groups_are_all_rows_by_key_in_order(rows):
    found = list(groups(table(rows), "a", "b"))
    keys = list(dict.fromkeys((a, b) for a, b, _ in rows))
    assert [key for key, _ in found] == keys
    assert [own.rows() for _, own in found] == [[row for row in rows if row[:2] == key] for key in keys]


@given(st.lists(st.one_of(st.none(), st.integers(0, 6)), max_size=5))
def test_ascending_values_are_each_larger_than_the_one_before(values):
    known = [value for value in values if value is not None]
    assert ascends(pl.Series(values, dtype=pl.UInt32)) == (values == sorted(set(known)))
