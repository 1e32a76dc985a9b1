"""Recipes for ``nsys recipe``: where nsyskit's own are, what they hold, and how nsys is told to run one.

The adapters lie outside of the import path, in the folder that ``NSYS_RECIPE_PATH`` must name. They import nsyskit and
nsys's own base class; nothing here imports nsys's Python.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

ENVIRONMENT = "NSYS_RECIPE_PATH"
_PACKAGE = Path(__file__).parents[1]


def recipe_folder() -> Path:
    """The folder for ``NSYS_RECIPE_PATH``: inside the installed package, beside it in a checkout."""
    installed = _PACKAGE / "_recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


def own_recipes() -> Mapping[str, str]:
    """Recipes of nsyskit: name -> what each tells."""
    found = sorted(recipe_folder().glob("*/metadata.json"))
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8"))["display_name"] for path in found}
