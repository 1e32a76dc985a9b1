"""Print pip constraints that pin what the package declares to the lowest versions it declares, extras included."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

_BOUND = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9][0-9A-Za-z.]*)$")


def constraints(project: dict[str, object]) -> list[str]:
    """One ``name==version`` a declared dependency with a lower bound; the first declaration counts.

    Raises:
        ValueError: a dependency is declared in a way that this script does not read.
    """
    extras = project.get("optional-dependencies", {})
    declared = [*project["dependencies"], *(word for words in extras.values() for word in words)]  # type: ignore[misc, attr-defined]
    found: dict[str, str] = {}
    for word in declared:
        bound = _BOUND.fullmatch(word.replace(" ", ""))
        if bound:
            found.setdefault(bound[1].lower(), f"{bound[1]}=={bound[2]}")
        elif not re.fullmatch(r"[A-Za-z0-9._-]+", word):
            raise ValueError(f"cannot read {word!r}")
    return sorted(found.values())


if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as file:
        print("\n".join(constraints(tomllib.load(file)["project"])))
