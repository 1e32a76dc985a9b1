"""Who differs, from whom, and by which part; numbers that can be done in the head."""

from __future__ import annotations

import polars as pl
import pytest

from nsyskit.fleet.outliers import outliers
from nsyskit.fleet.result import Outlier


def found(
    values: dict[str, list[float]], *, model: dict[str, str] | None = None, floor: float = 0.05,
    metric: str = "decode.ms_per_step", ledger: dict[str, float] | None = None,
) -> tuple[Outlier, ...]:  # fmt: skip
    """Outliers among hosts with these values; ``ledger`` adds ns to the part ``host`` of a host's steps."""
    rows = [(host, value) for host, own in values.items() for value in own]
    traces = pl.DataFrame(
        [(at, f"{host}/{at}", host, None) for at, (host, _) in enumerate(rows)],
        schema={"trace": pl.Int64, "name": pl.String, "host": pl.String, "rank": pl.String}, orient="row",
    )  # fmt: skip
    setup = [(at, "model", (model or {}).get(host, "m")) for at, (host, _) in enumerate(rows)]
    numbers = [(at, metric, value, "ms") for at, (_, value) in enumerate(rows)]
    phase = metric.partition(".")[0]
    for at, (host, _) in enumerate(rows):
        numbers += [(at, f"{phase}.ledger.kernel", 500.0, "ns"), (at, f"{phase}.tokens_per_step", 2.0, "count")]
        numbers.append((at, f"{phase}.ledger.host", 100.0 + (ledger or {}).get(host, 0.0), "ns"))
    frames = (
        pl.DataFrame(setup, schema=["trace", "fact", "value"], orient="row"),
        pl.DataFrame(numbers, schema=["trace", "metric", "value", "unit"], orient="row"),
    )
    return outliers(traces, *frames, floor=floor)


EVEN = [1.00, 1.01, 0.99]


def test_a_slow_host_is_told_with_its_part():
    (one,) = found({"a": EVEN, "b": EVEN, "c": [1.2, 1.21, 1.19]}, ledger={"c": 90.0})
    assert (one.kind, one.who, one.traces, one.peers) == ("host", "c", 3, 6)
    assert (one.value, one.expected, one.unit) == (1.2, 1.0, "ms")
    assert one.ratio == pytest.approx(0.2)
    assert (one.part, one.part_value, one.part_expected) == ("host", 380.0, 200.0)  # two tokens a step


def test_a_fast_host_differs_too():
    (one,) = found({"a": EVEN, "b": EVEN, "c": [0.8, 0.81, 0.79]}, ledger={"c": -90.0})
    assert (one.who, one.part, one.part_value) == ("c", "host", 20.0)
    assert one.ratio == pytest.approx(-0.2)


def test_one_odd_trace_does_not_make_its_host_odd():
    (one,) = found({"a": EVEN, "b": EVEN, "c": [1.5, *EVEN]})
    assert (one.kind, one.who, one.traces) == ("trace", "c/6", 1)


def test_below_the_floor_nothing_differs():
    steady = {"a": [1.0] * 4, "b": [1.0] * 4, "c": [1.04] * 4}
    assert found(steady) == ()
    assert [one.who for one in found(steady, floor=0.03)] == ["c"]


def test_noise_is_no_difference():
    assert found({"a": [0.8, 1.0, 1.2], "b": [0.85, 1.0, 1.15], "c": [1.3, 1.0, 0.9]}) == ()


def test_other_models_are_no_peers():
    slow = {"a": EVEN, "b": EVEN, "c": [1.2, 1.2, 1.2]}
    assert found(slow, model={"c": "larger"}) == ()


def test_two_hosts_cannot_tell_who_is_right():
    assert found({"a": [1.0] * 5, "b": [1.3] * 5}) == ()
    assert found({"a": [1.0] * 5, "b": [1.3] * 5, "c": [1.0] * 5, "d": [1.3] * 5}) == ()


def test_too_few_to_compare():
    assert found({"a": [1.0], "b": [1.0], "c": [1.0], "d": [3.0]}) == ()
    assert [one.who for one in found({"a": [1.0], "b": [1.0], "c": [1.0], "d": [1.0], "e": [3.0]})] == ["e"]


def test_a_rank_that_is_its_host_is_told_once():
    traces = pl.DataFrame({"trace": range(9), "name": [f"t{at}" for at in range(9)]}).with_columns(
        host=pl.concat_str(pl.lit("h"), "trace"), rank=pl.col("trace").cast(pl.String)
    )
    setup = traces.select("trace", fact=pl.lit("model"), value=pl.lit("m"))
    value = pl.when(pl.col("trace") == 8).then(2.0).otherwise(1.0)
    numbers = traces.select("trace", metric=pl.lit("prefill.ms_per_token"), value=value, unit=pl.lit("ms"))
    assert [(one.kind, one.who) for one in outliers(traces, setup, numbers)] == [("host", "h8")]


def test_busy_shares_count_only_without_steps():
    shares = {"a": [0.8, 0.81], "b": [0.8, 0.79], "c": [0.8, 0.8], "d": [0.5, 0.5]}
    (one,) = found(shares, metric="gpu.busy_share", ledger={"d": 300.0})
    assert (one.who, one.metric, one.part) == ("d", "gpu.busy_share", "host")
    assert one.ratio == pytest.approx(-0.3)


def test_large_fleets_are_held_against_all_of_themselves():
    """Beyond fifty of a kind one more or less in the median does not matter; the odd ones are found all the same."""
    hosts = {f"h{at:03}": [1.0, 1.01, 0.99] for at in range(120)}
    told = found(hosts | {"h050": [1.2, 1.21, 1.19], "h070": [1.0, 3.0, 1.0]}, ledger={"h050": 90.0})
    assert [(one.kind, one.who, one.traces, one.peers) for one in told] == [
        ("trace", "h070/211", 1, 359), ("host", "h050", 3, 357),
    ]  # fmt: skip
    assert (told[1].expected, told[1].part, told[1].part_value, told[1].part_expected) == (1.0, "host", 380.0, 200.0)
