"""Exit with 1 when two JSON documents differ, but for the last digits of fractions: sums run in another order."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where the documents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [found for key in keys for found in differences(one.get(key), other.get(key), f"{place}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for at, (a, b) in pairs for found in differences(a, b, f"{place}[{at}]")]
    if isinstance(one, float) and isinstance(other, float) and math.isclose(one, other, rel_tol=1e-12):
        return []
    return [] if one == other and type(one) is type(other) else [f"{place}: {one!r} != {other!r}"]


if __name__ == "__main__":
    found = differences(*(json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:3]))
    print("\n".join(found[:20]), end="\n" if found else "")
    sys.exit(1 if found else 0)
