"""The shape of the house: foreign names stop at ingest, imports point one way."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nsyskit"
FOREIGN = re.compile(r"CUPTI_ACTIVITY|demangledName|globalTid|globalPid|correlationId|OSRT_API|NVTX_EVENTS|StringIds")
KNOWS = {"nsys_schema.py"}


def test_foreign_names_stop_at_ingest():
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.name not in KNOWS and "ingest" not in file.relative_to(PACKAGE).parts
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if FOREIGN.search(line)
    ]
    assert not found


def test_imports_point_one_way():
    tool = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("needs import-linter")
    done = subprocess.run([tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
