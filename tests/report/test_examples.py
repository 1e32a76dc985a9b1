"""The notebook and the script of figures, run as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "traces" / "demo" / "trace.sqlite"


def test_the_script_writes_a_file_a_figure(tmp_path):
    argv = [sys.executable, str(ROOT / "examples" / "figures.py"), str(DEMO), str(tmp_path / "out")]
    said = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    assert {Path(line).stem for line in said} >= {"devices", "threads", "steps", "kernel_sum", "gaps", "copies", "sync"}
    assert all(Path(line).stat().st_size > 1000 for line in said)


def test_the_notebook_runs():
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
    pytest.importorskip("ipykernel", reason="needs ipykernel")
    notebook = nbformat.read(ROOT / "examples" / "figures.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": ROOT / "examples"}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    drawn = [one for one in outputs if "application/vnd.plotly.v1+json" in one.get("data", {})]
    assert len(drawn) == 5
    assert "host-bound" in json.dumps(outputs[0])


def test_the_notebook_is_kept_without_outputs():
    notebook = json.loads((ROOT / "examples" / "figures.ipynb").read_text(encoding="utf-8"))
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
