"""The figures of a page, each through plotly's own classes: they refuse what plotly.js would silently not draw."""

from __future__ import annotations

import base64
import json
import re
import zlib

import plotly.graph_objects as go


def figures_of(html: str) -> dict[str, go.Figure]:
    found = re.search(r'<script type="application/octet-stream" id="figures">([^<]*)</script>', html)
    assert found
    drawn = json.loads(zlib.decompress(base64.b64decode(found[1])))
    return {name: go.Figure(one) for name, one in drawn.items()}
