"""JSON that somebody else may have written, read as plain values and nothing surprising."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def json_object(text: str | bytes) -> dict[str, Any]:
    """An object of values that can be written again as they are, to a file, a page or SQLite.

    Raises:
        ValueError: it is no JSON or no object, or holds NaN, integers beyond 64 bits, half a surrogate pair, or a
            nesting too deep to follow.
    """
    try:
        found = json.loads(text, parse_constant=_refuse, parse_int=_int64)
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - of the text, not of a value that a caller gave
    return found


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _int64(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError("an integer has more than 64 bits")
    return value
