"""Humans' units, and the only place that knows them. Everywhere else: ns, bytes, counts, shares in 0 to 1."""

from __future__ import annotations

import os
import re
from decimal import ROUND_HALF_UP, Context, Decimal

from nsyskit.errors import UsageError

_TIME_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_WIDE = Context(prec=400)
"""Room for the digits of any float."""
_DURATION = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?(ns|us|µs|ms|s)?")


def rounded(value: float, digits: int) -> str:
    """A decimal rounded half up, as ``nsys stats`` prints them: 0.25 is ``0.3``; Python's own format makes it 0.2."""
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP, _WIDE))


def human_ns(value_ns: float) -> str:
    """A duration with four significant figures: ``999 ns``, ``1.240 µs``, ``18.78 s``."""
    magnitude = abs(value_ns)
    for unit, factor in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if magnitude >= factor * 0.9995:
            return f"{rounded(value_ns / factor, _decimals(magnitude / factor))} {unit}"
    return f"{rounded(value_ns, 0)} ns"


def human_bytes(value: float) -> str:
    """A size in powers of ten, as nsys prints sizes: ``64 B``, ``1.230 kB``, ``402.1 MB``."""
    magnitude = abs(value)
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if magnitude >= factor * 0.9995:
            return f"{rounded(value / factor, _decimals(magnitude / factor))} {unit}"
    return f"{rounded(value, 0)} B"


def human_count(value: int) -> str:
    """A count with groups of three: ``1,055,137``."""
    return f"{value:,}"


def human_share(share: float | None) -> str:
    """A share of 0 to 1 as a percentage with one decimal; an absent share as a dash."""
    return "–" if share is None else f"{rounded(share * 100, 1)} %"


def parse_duration_ns(text: str) -> tuple[int, bool]:
    """Read ``12.5ms`` or ``+3s`` into exact nanoseconds and whether it carried a plus sign.

    A bare number is nanoseconds. Fractions of a nanosecond are refused rather than rounded.

    Raises:
        UsageError: the text is no duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a time", hint="write a number with ns, us, ms or s, such as 12.5ms")
    sign, whole, fraction, unit = match.groups()
    factor = _TIME_NS[unit or "ns"]
    digits = fraction or ""
    numerator = int(whole + digits) * factor
    value, rest = divmod(numerator, 10 ** len(digits))
    if rest:
        raise UsageError(f"{text!r} is finer than a nanosecond", hint="give at most nanoseconds")
    return (-value if sign == "-" else value), sign == "+"


def _decimals(scaled: float) -> int:
    if scaled >= 99.95:
        return 0 if scaled >= 999.5 else 1
    return 2 if scaled >= 9.995 else 3


def file_name(name: str) -> str:
    """A file's name as text that can be written as UTF-8: what of its bytes is none is replaced."""
    return os.fsencode(name).decode(errors="replace")


def printable(text: str) -> str:
    """A name from a trace, safe to print: no control characters, no marks that reverse the reading direction."""
    if text.isprintable():  # as nearly all; those marks are no printable characters either
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
