"""Synthetic traces with their truth, written by the generator in ``traces/synth`` when a test asks for them."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from json import loads
from pathlib import Path
from typing import Any

from nsyskit.ingest import open_trace
from nsyskit.trace import Trace, Window

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from traces.synth.__main__ import main
from traces.synth.presets import PRESETS

__all__ = ["PRESETS", "Synthetic", "synthesize"]


@dataclass(frozen=True)
class Synthetic:
    """A generated trace and what is true about it."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "trace.sqlite"

    @cached_property
    def trace(self) -> Trace:
        return open_trace(self.path)

    @cached_property
    def truth(self) -> dict[str, Any]:
        document: dict[str, Any] = loads((self.folder / "truth.json").read_text())
        return document

    @property
    def windows(self) -> list[tuple[Window, dict[str, Any]]]:
        """Every window that the truth knows: ``all``, ``gpu`` and, where there are steps enough, ``steady``."""
        return [(Window(kind, true["start_ns"], true["end_ns"]), true) for kind, true in self.truth["windows"].items()]


def synthesize(folder: Path, preset: str, *options: str) -> Synthetic:
    """Write a preset with options of ``python -m traces.synth`` into a folder."""
    with redirect_stdout(StringIO()):
        main([preset, "-o", str(folder), *options])
    return Synthetic(folder)
