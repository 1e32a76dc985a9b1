"""Real outputs of the llama.cpp tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

OUTPUTS = Path(__file__).parents[1] / "data" / "outputs"


@pytest.fixture
def output() -> Callable[[str], str]:
    """Reads one of ``tests/data/outputs`` with its own line ends."""
    return lambda name: (OUTPUTS / name).read_bytes().decode()
