"""Humans' units."""

from __future__ import annotations

import pytest

from nsyskit.errors import UsageError
from nsyskit.units import human_bytes, human_count, human_ns, human_share, parse_duration_ns, printable, rounded


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.25, 1, "0.3"),
        (0.35, 1, "0.4"),
        (0.45, 1, "0.5"),
        (2.5, 0, "3"),
        (-2.5, 0, "-3"),
        (3, 1, "3.0"),
        (5.04, 1, "5.0"),
    ],
)
def test_decimals_are_rounded_half_up(value, digits, text):
    assert rounded(value, digits) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"), (999, "999 ns"), (999.5, "1.000 µs"), (1240, "1.240 µs"), (12_345, "12.35 µs"),
        (123_450, "123.5 µs"), (999_950, "1.000 ms"), (18_780_000_000, "18.78 s"), (1_234_500_000_000, "1235 s"),
        (-1500, "-1.500 µs"),
    ],
)  # fmt: skip
def test_durations(ns, text):
    assert human_ns(ns) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (64, "64 B"), (1230, "1.230 kB"), (402_100_000, "402.1 MB"), (3e9, "3.000 GB"), (8e12, "8.000 TB")],
)
def test_sizes_are_powers_of_ten_as_nsys_prints_them(size, text):
    assert human_bytes(size) == text


def test_counts_and_shares():
    assert human_count(1_055_137) == "1,055,137"
    assert [human_share(share) for share in (None, 0.0, 0.0025, 0.8125, 1.0)] == [
        "–",
        "0.0 %",
        "0.3 %",
        "81.3 %",
        "100.0 %",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", (5, False)), ("5ns", (5, False)), ("3us", (3000, False)), ("3µs", (3000, False)),
        ("12.5ms", (12_500_000, False)),
        ("+3s", (3_000_000_000, True)), ("-2s", (-2_000_000_000, False)), (" 8ns ", (8, False)),
        ("0.000000001s", (1, False)), ("1.0000000000s", (1_000_000_000, False)),
    ],
)  # fmt: skip
def test_times_of_a_window(text, expected):
    assert parse_duration_ns(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "3 s s", "3min", "--3", "1e9", "3,5s", "0.5ns", "0.0001us"])
def test_what_is_no_time(text):
    with pytest.raises(UsageError, match="; "):
        parse_duration_ns(text)


def test_names_cannot_steer_the_terminal():
    assert (
        printable("mul\x1b[31m\u202egpj.exe\n")
        == "mul\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}gpj.exe\N{REPLACEMENT CHARACTER}"
    )
    assert printable("Tesla T4 ×2 — µs") == "Tesla T4 ×2 — µs"
