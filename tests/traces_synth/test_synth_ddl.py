"""Tables and columns are nsys's own: compared with what the installed nsys writes, and accepted by its reports."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from synth_layouts import layout_of, truth_of

from traces.synth.ddl import SCHEMAS, columns, create
from traces.synth.writer import write

ADDED_SINCE_2022 = {
    "greenContextId", "parentContextId", "isGreenContext", "threadState", "jsonTextId", "jsonText",
}  # fmt: skip
RENAMED = {"META_DATA_EXPORT": "EXPORT_META_DATA"}
ROOT = os.environ.get("NSYSKIT_E2E_ROOT")
CLEAN = ["env", "-i", "PATH=/usr/bin:/bin", "HOME=/root"]


def layout_of_tables(path: Path) -> dict[str, list[tuple[str, str, bool, bool]]]:
    """(name, type, NOT NULL, key) of every column of every table."""
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: [
                (row[1], row[2], bool(row[3]), bool(row[5])) for row in connection.execute(f"PRAGMA table_info({name})")
            ]
            for name in names
        }


def made_here(tmp_path: Path, schema: str) -> dict[str, list[tuple[str, str, bool, bool]]]:
    path = tmp_path / "own.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        for table, spec in SCHEMAS[schema].tables.items():
            connection.execute(create(table, spec))
    return layout_of_tables(path)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> dict[str, list[tuple[str, str, bool, bool]]]:
    """The tables of the nsys on PATH, from an eager export."""
    nsys = shutil.which("nsys")
    if nsys is None:
        pytest.skip("needs nsys on PATH")
    folder = tmp_path_factory.mktemp("nsys")
    profile = [nsys, "profile", "--trace=osrt", "--sample=none", "--cpuctxsw=none", "-o", "r", "true"]
    export = [nsys, "export", "--type=sqlite", "--lazy=false", "-o", "r.sqlite", "r.nsys-rep"]
    for command in (profile, export):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if not (folder / "r.sqlite").is_file():
        pytest.skip(f"nsys cannot profile here: {(done.stderr or done.stdout).strip()[-200:]}")
    return layout_of_tables(folder / "r.sqlite")


@pytest.mark.nsys
@pytest.mark.parametrize("table", sorted(SCHEMAS["2023.4"].tables))
def test_columns_are_those_of_the_installed_nsys(table, installed, tmp_path):
    theirs = installed.get(table) or installed.get(RENAMED.get(table, ""))
    if theirs is None:
        pytest.skip(f"this nsys has no {table}")
    ours = [column for column in made_here(tmp_path, "2023.4")[table] if column[0] not in ADDED_SINCE_2022]
    assert ours == [column for column in theirs if column[0] not in ADDED_SINCE_2022]


@pytest.mark.e2e
@pytest.mark.skipif(not ROOT, reason="needs NSYSKIT_E2E_ROOT, a root with nsys 2023.4")
def test_columns_are_those_of_2023_4_and_its_reports_work(tmp_path):
    shared = Path(str(ROOT)) / "tmp" / "nsyskit-synth"
    shared.mkdir(exist_ok=True)
    try:
        run_in_root("nsys profile -t osrt -s none --cpuctxsw=none -f true -o r true && "
                    "nsys export --type sqlite --lazy=false -f true -o eager.sqlite r.nsys-rep")  # fmt: skip
        theirs, ours = layout_of_tables(shared / "eager.sqlite"), made_here(tmp_path, "2023.4")
        assert {table: theirs[table] for table in ours} == ours
        for schema, name in (("2023.4", "blocking-copies"), ("2025", "bench-node")):
            write(layout_of(name), shared / "trace.sqlite", name=name, seed=7)
            reports = "cuda_gpu_kern_sum,cuda_api_sum,cuda_gpu_mem_time_sum,osrt_sum,cuda_kern_exec_sum"
            text = run_in_root(f"nsys stats -r {reports} -f csv --force-export=false trace.sqlite")
            assert text.count("Time (%)") == 4, schema
            for row in truth_of(name)["kernels"]:
                assert re.search(rf",{row['total_ns']},{row['count']},", text)
    finally:
        shutil.rmtree(shared)


def run_in_root(command: str) -> str:
    inner = ["chroot", str(ROOT), *CLEAN, "sh", "-c", f"cd /tmp/nsyskit-synth && {command}"]
    return subprocess.run(inner, capture_output=True, text=True, timeout=300, check=True).stdout


def test_both_schemas_spell_the_columns_that_the_tables_share():
    older, newer = SCHEMAS["2023.4"].tables, SCHEMAS["2025"].tables
    for table, spec in older.items():
        assert set(columns(spec)) <= set(columns(newer[table]))
