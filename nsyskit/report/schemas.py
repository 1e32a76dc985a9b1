"""The JSON Schemas that ship with the package."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def shipped_schema(document: str) -> dict[str, Any]:
    """The schema of a document: ``analysis``, ``fleet`` or ``ranks``."""
    text = resources.files("nsyskit.report").joinpath(f"{document}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
