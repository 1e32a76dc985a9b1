"""Refuse a run-time dependency whose licence is not on the list: everything that an install of the package brings.

    python .ci/licences.py nsyskit capture model

looks at the installed package with those extras, follows what each needs, prints one line a distribution, and exits
with 1 when one has another licence, or none that it tells.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

ALLOWED = (
    "0bsd", "apache", "bsd", "cc0", "hpnd", "isc", "mit", "mozilla", "mpl", "psf", "python software foundation",
    "public domain", "unlicense", "zlib",
)  # fmt: skip
"""Permissive ones, and the Mozilla licence, which asks nothing of those who only use a library."""
FORBIDDEN = ("gpl", "affero", "proprietary", "non-commercial", "sspl", "commons clause")
_WORD = re.compile(r"\s+(?:and|or|with)\s+|[;,/()]", re.IGNORECASE)

Find = Callable[[str], Distribution]


def closure(name: str, extras: Iterable[str], find: Find = distribution) -> Iterator[Distribution]:
    """The distribution and everything that it needs here, each once. What a marker excludes need not be there."""
    waiting, seen = [(name, tuple(extras))], set()
    while waiting:
        name, wanted = waiting.pop()
        key = (re.sub(r"[-_.]+", "-", name).lower(), wanted)
        if key in seen:
            continue
        fresh = key[0] not in {known for known, _ in seen}
        seen.add(key)
        found = find(name)
        if fresh:
            yield found
        for line in found.requires or ():
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                waiting.append((need.name, tuple(sorted(need.extras))))


def licence(found: Distribution) -> str:
    """What a distribution says its licence is: expression, else classifiers, else the text."""
    facts = found.metadata
    classifiers = [line.rpartition("::")[2].strip() for line in facts.get_all("Classifier", []) if "License ::" in line]
    text = (facts.get("License") or "").strip().splitlines()
    return facts.get("License-Expression") or "; ".join(classifiers) or (text[0] if text else "")


def is_allowed(said: str) -> bool:
    """Whether every licence that is named is on the list, and none is on the other one."""
    words = [word.strip().lower() for word in _WORD.split(said) if word.strip()]
    if not words or any(bad in said.lower() for bad in FORBIDDEN):
        return False
    return all(
        any(good in word for good in ALLOWED) or word in {"2.0", "version 2.0", "osi approved"} for word in words
    )


def main(arguments: list[str]) -> int:
    """Print and judge."""
    bad = []
    for found in closure(arguments[0], arguments[1:]):
        name, said = found.metadata["Name"], licence(found)
        print(f"{name} {found.version}: {said or 'tells no licence'}")
        if not is_allowed(said):
            bad.append(name)
    if bad:
        print(f"not on the list of licences: {', '.join(bad)}; drop it, or allow its licence in .ci/licences.py")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PackageNotFoundError as error:
        print(f"{error.name} is not installed: install the package with the extras named", file=sys.stderr)
        sys.exit(2)
