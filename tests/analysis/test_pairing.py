"""Which call handed over which operation: found in every order of ids as by a dictionary."""

from unittest import mock

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from nsyskit.analysis import pairing
from nsyskit.analysis.pairing import looked_up, matches

ID = st.one_of(st.none(), st.integers(0, 9), st.sampled_from([10**6, 2**32 - 1]))
ROWS = st.lists(st.tuples(st.sampled_from([None, 1, 2]), ID), max_size=12)
IDS = {"pid": pl.Int32, "correlation_id": pl.UInt32}


def first_places(keys):
    return {key: at for at, key in reversed(list(enumerate(keys)))}


@given(
    st.lists(ID.filter(lambda key: key is not None), max_size=12), st.lists(ID, max_size=12), st.sampled_from([2, 99])
)
def test_places_of_keys(keys, wanted, piece_rows):
    for order in (keys, sorted(set(keys))):
        with mock.patch.object(pairing, "PIECE_ROWS", piece_rows):
            found = looked_up(pl.Series(order, dtype=pl.UInt32), pl.Series(wanted, dtype=pl.UInt32))
        assert found.dtype == pl.UInt32
        assert found.to_list() == [first_places(order).get(key) for key in wanted]


@given(ROWS, ROWS, st.sampled_from([2, 99]))
def test_rows_of_one_process_and_id(table, rows, piece_rows):
    places = {key: at for key, at in first_places(table).items() if None not in key}
    named = {pid for pid, _ in rows if pid is not None}
    only = named.pop() if len(named) == 1 else None
    frames = [pl.DataFrame(each, schema=IDS, orient="row") for each in (table, rows)]
    with mock.patch.object(pairing, "PIECE_ROWS", piece_rows):
        found = matches(*frames)
    assert found.to_list() == [places.get((only if pid is None else pid, key)) for pid, key in rows]
