"""One colour a part, the same in the terminal, in figures and in the HTML report.

Busy parts are cool, parts of idle time warm, what is nobody's fault grey. Contrast against white and near-black is at
least 3:1 for every colour.
"""

from __future__ import annotations

from typing import Final

PART_COLORS: Final[dict[str, str]] = {
    "kernel": "#2a8a5a",
    "graph": "#1f8a8a",
    "memcpy": "#3a7fc4",
    "memset": "#6a7fd0",
    "unknown": "#8a8a8a",
    "peer": "#9a6ac4",
    "dispatch": "#c48a1a",
    "submit": "#d0751a",
    "sync": "#b8568f",
    "cuda": "#a8702f",
    "profiler": "#7d8590",
    "blocked": "#9c8b6f",
    "os": "#7d6655",
    "host": "#d0453a",
}

SERIES_COLORS: Final = ("#2a8a5a", "#3a7fc4", "#d0751a", "#9a6ac4", "#b8568f", "#1f8a8a", "#a8702f", "#8a8a8a")
"""For what has no part's colour: copy directions, categories."""
