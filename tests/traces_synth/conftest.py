"""Makes the generator importable and its layouts a fixture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from synth_layouts import MIXES, layout_of, truth_of

from traces.synth.layout import Layout
from traces.synth.presets import PRESETS


@pytest.fixture(params=[*PRESETS, *MIXES])
def layout(request) -> Layout:
    return layout_of(request.param)


@pytest.fixture(params=[*PRESETS, *MIXES])
def truth(request) -> dict[str, Any]:
    return truth_of(request.param)
