"""JSON of others: plain objects, or a ValueError."""

from __future__ import annotations

import pytest

from nsyskit.jsontext import json_object


def test_an_object():
    assert json_object('{"a": [1, -2.5, null, true, "ü\U0001f642"], "b": {}}') == {
        "a": [1, -2.5, None, True, "ü\U0001f642"],
        "b": {},
    }


@pytest.mark.parametrize(
    "text",
    ["", "[]", "5", "null", "{", '{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": 9223372036854775808}',
     '{"a": ' + "9" * 5_000 + "}", '{"a": "\\ud800"}', '{"\\udc00": 1}', "[" * 100_000,
     '{"a":' * 100_000, b"\xff\xfe", b"\xff"],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_anything_else(text):
    with pytest.raises(ValueError, match=r"\w"):
        json_object(text)
