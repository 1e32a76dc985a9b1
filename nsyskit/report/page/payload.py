"""Data within the page: plotly.js once, figures and timelines, compressed so that a report fits a mail.

Compressed bytes cannot hold markup, and the browser unpacks them by itself (DecompressionStream).
"""

from __future__ import annotations

import base64
import json
import zlib
from functools import cache
from importlib import resources
from typing import Any

from nsyskit.report.page.elements import Html, tag


def packed(identifier: str, data: bytes) -> Html:
    """Bytes under an id, deflated: a zlib stream carries neither time nor system, as gzip's does."""
    body = base64.b64encode(zlib.compress(data, 5)).decode("ascii")  # 6 takes half as long again for 1 % less
    return tag("script", Html(body), type="application/octet-stream", id=identifier)


def packed_json(identifier: str, value: Any) -> Html:
    said = _json(value)
    if "NaN" in said or "Infinity" in said:  # JSON has neither: a figure has no point there
        said = _json(json.loads(said, parse_constant=lambda _: None))
    return packed(identifier, said.encode())


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@cache
def packed_plotly() -> Html:
    """The plotly.js that the installed plotly package ships."""
    return packed("plotly-js", plotly_js())


def plotly_js() -> bytes:
    return resources.files("plotly").joinpath("package_data/plotly.min.js").read_bytes()


def asset(name: str) -> str:
    """A text file of the page, from beside this module."""
    return resources.files("nsyskit.report.page").joinpath(name).read_text(encoding="utf-8")
