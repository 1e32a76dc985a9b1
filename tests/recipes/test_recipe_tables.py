"""What recipes write is what ``analyze --format json`` says, cell for cell."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from nsyskit.cli import cli
from nsyskit.recipes import own_recipes, recipe_folder
from nsyskit.recipes.tables import RECIPES, frame_of, input_files, joined, left_out, tables_of, write_tables

ROOT = Path(__file__).parents[2]
TRACES = [ROOT / "traces" / name / "trace.sqlite" for name in ("demo", "two-gpus-layer-split", "bench-graph")]


def analyzed(trace: Path, *options: str) -> dict:
    result = CliRunner().invoke(cli, ["analyze", str(trace), "--format", "json", *options])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def without_file(rows):
    assert {row["file"] for row in rows} == {"trace.sqlite"}
    return [{name: value for name, value in row.items() if name != "file"} for row in rows]


def flattened(row, prefix=""):
    """Scalars of nested objects by their dotted path; a method of its own, to hold the recipes to."""
    cells = {}
    for name, value in row.items():
        if isinstance(value, dict):
            cells.update(flattened(value, f"{prefix}{name}."))
        elif not isinstance(value, list):
            cells[f"{prefix}{name}"] = value
    return cells


@pytest.mark.parametrize("trace", TRACES, ids=lambda path: path.parent.name)
def test_equal_to_the_document(trace):
    document = analyzed(trace)
    hot = tables_of(str(trace), "trace.sqlite", recipe="llama_hotspot_sum")
    for table in ("kernel_sum", "category_sum", "family_sum", "quant_sum"):
        assert without_file(hot[table]) == document[table]
    pace = tables_of(str(trace), "trace.sqlite", recipe="llama_step_pace")
    assert without_file(pace["steps"]) == analyzed(trace, "--analysis=steps")["steps"]["steps"]
    phases = document["steps"]["by_phase"]
    assert without_file(pace["phases"]) == [{"phase": phase} | flattened(cost) for phase, cost in phases.items()]
    sync = tables_of(str(trace), "trace.sqlite", recipe="llama_sync_sum")
    assert sync["sync"][0]["wait_share"] == document["sync"]["wait_share"]
    assert {row["class"]: row["calls"] for row in sync["sync_by_class"]} == {
        name: row["calls"] for name, row in document["sync"]["by_class"].items()
    }
    assert without_file(sync["sync_by_api"]) == document["sync"]["by_api"]
    gaps = tables_of(str(trace), "trace.sqlite", recipe="llama_gpu_gaps")
    assert without_file(gaps["devices"]) == [flattened(row) for row in document["devices"]]
    told = [gap for device in document["devices"] for gap in device["gaps"]]
    assert [(row["start_ns"], row["dur_ns"], row["before"], row["after"]) for row in gaps["gaps"]] == [
        (gap["start_ns"], gap["dur_ns"], gap["before"], gap["after"]) for gap in told
    ]
    for row, gap in zip(gaps["gaps"], told, strict=True):
        causes = {name: ns for name, ns in row.items() if name.startswith("causes.")}
        assert {name: ns for name, ns in causes.items() if ns} == {f"causes.{c}": ns for c, ns in gap["causes"].items()}
        assert sum(causes.values()) == row["dur_ns"]


def test_a_window(tmp_path):
    devices = tables_of(str(TRACES[0]), "trace.sqlite", recipe="llama_gpu_gaps", window="+1ms:+20ms")["devices"]
    document = analyzed(TRACES[0], "-a", "devices", "--window", "+1ms:+20ms")["devices"]
    assert [row["window_ns"] for row in devices] == [row["window_ns"] for row in document] == [19_000_000]
    assert devices[0]["idle.host"] == document[0]["idle"]["host"]


def test_what_cannot_be_told_is_named():
    missing = tables_of("nowhere.sqlite", "nowhere.sqlite", recipe="llama_gpu_gaps")
    assert set(missing) == {"trust"}
    assert left_out(missing)[0]["message"].startswith("nowhere.sqlite does not exist")
    together = joined([missing, tables_of(str(TRACES[0]), "trace.sqlite", recipe="llama_gpu_gaps")])
    assert len(together["devices"]) == 1
    assert [note["file"] for note in left_out(together)] == ["nowhere.sqlite"]


def test_written_files_hold_the_rows(tmp_path):
    tables = joined(tables_of(str(trace), "trace.sqlite", recipe="llama_gpu_gaps") for trace in TRACES[:2])
    write_tables(tables, lambda name: str(tmp_path / name), csv=True)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.{kind}" for name in tables for kind in
                                                          ("parquet", "csv")}  # fmt: skip
    for name, rows in tables.items():
        assert pl.read_parquet(tmp_path / f"{name}.parquet").to_dicts() == frame_of(rows).to_dicts()
    assert pl.read_csv(tmp_path / "devices.csv")["busy_ns"].to_list() == [row["busy_ns"] for row in tables["devices"]]


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "a\u202eb\x1b[2J"])
def test_a_table_is_safe_to_open_in_a_spreadsheet(tmp_path, name):
    write_tables({"t": [{name: name, "n": -5}]}, lambda file: str(tmp_path / file), csv=True)
    head, row = csv.reader((tmp_path / "t.csv").open(encoding="utf-8"))
    safe = f"'{name}" if name[0] in "=+-@" else "a\ufffdb\ufffd[2J"
    assert (head, row) == ([safe, "n"], [safe, "-5"])


def test_rows_with_different_columns():
    frame = frame_of([{"a": 1}, {"a": 2, "b": 2.5}])
    assert frame.to_dicts() == [{"a": 1, "b": None}, {"a": 2, "b": 2.5}]


def test_folders_stand_for_their_rep_files(tmp_path):
    for name in ("b.nsys-rep", "a.nsys-rep", "old.qdrep", "x.sqlite"):
        (tmp_path / name).touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "trace.nsys-rep").touch()
    assert input_files([str(tmp_path), str(tmp_path / "run"), "x.sqlite"]) == [
        *(str(tmp_path / name) for name in ("a.nsys-rep", "b.nsys-rep", "old.qdrep")), str(tmp_path / "run"), "x.sqlite"
    ]  # fmt: skip


def test_every_adapter_is_small_and_known():
    assert set(own_recipes()) == set(RECIPES)
    for name in RECIPES:
        folder = recipe_folder() / name
        metadata = json.loads((folder / "metadata.json").read_text())
        source = (folder / f"{metadata['module_name']}.py").read_text()
        assert f"class {metadata['class_name']}(Adapter, Recipe):" in source
        assert len(source.splitlines()) <= 60


def test_nothing_of_the_package_imports_nsys_python():
    found = [path for path in (ROOT / "nsyskit").rglob("*.py") if "import nsys_recipe" in path.read_text()
             or "from nsys_recipe" in path.read_text()]  # fmt: skip
    assert not found
