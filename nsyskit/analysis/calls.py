"""Classes of calls: which CUDA calls submit work or wait for it, which OS calls block.

The classes are data, in ``call-classes.json`` beside this file. A name alone decides here. That a copy call named
``…Async`` blocked, because its host side is pageable, is seen only in the trace and is for the caller to add.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from typing import Literal

import polars as pl

Kind = Literal["api", "os"]

# cuGraphInstantiate_v2_ptsz: version and default-stream suffixes come in any number and order.
_SUFFIXES = re.compile(r"(?:_v\d+|_ptsz|_ptds)+$")


def base_name(name: str) -> str:
    """A call's name without version and stream suffixes: ``cuMemcpyHtoD_v2_ptds`` is ``cuMemcpyHtoD``."""
    return _SUFFIXES.sub("", name)


def api_class(name: str) -> str:
    """``sync``, ``submit`` or ``cuda`` (any other), for a CUDA runtime or driver call."""
    return _class_of("api", name)


def os_class(name: str) -> str:
    """``blocked`` or ``os`` (any other), for a call that the OS runtime trace holds."""
    return _class_of("os", name)


def classify_calls(names: pl.DataFrame, kind: Kind) -> pl.DataFrame:
    """Classes of many names at once: name_id, name, base_name, class.

    Args:
        names: a frame with name_id and name; a name that is null belongs to the last, catch-all class.
        kind: ``api`` for CUDA calls, ``os`` for OS runtime calls.
    """
    distinct = names.get_column("name").unique().to_list()
    bases = [base_name(name or "") for name in distinct]
    classes = pl.DataFrame(
        {"name": distinct, "base_name": bases, "class": [_class_of(kind, base) for base in bases]},
        schema={"name": pl.String, "base_name": pl.String, "class": pl.String},
    )
    found = names.select("name_id", "name").join(
        classes, on="name", how="left", nulls_equal=True, maintain_order="left"
    )
    return found.select("name_id", "name", "base_name", "class")


def _class_of(kind: Kind, name: str) -> str:
    base = base_name(name)
    return next(label for label, pattern in _classes(kind) if pattern.fullmatch(base))


@cache
def _classes(kind: Kind) -> tuple[tuple[str, re.Pattern[str]], ...]:
    text = resources.files("nsyskit.analysis").joinpath("call-classes.json").read_text(encoding="utf-8")
    # A name may hold anything: the catch-all class must match a line break too.
    return tuple((label, re.compile(pattern, re.DOTALL)) for label, pattern in json.loads(text)[kind].items())
