"""Directories of Parquet files: the same trace as the SQLite export of the same rows."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
from tiny_trace import (
    api,
    awaited,
    exporter,
    global_tid,
    gpu,
    kernel,
    memcpy,
    memset,
    nvtx,
    open_tiny,
    os_call,
    process,
    sample,
    switch,
    thread_name,
    write_parquet,
)

from nsyskit.errors import TraceFormatError
from nsyskit.ingest import open_trace
from nsyskit.schema import TABLES

ROWS = [
    exporter(), process("llama-bench"), gpu(0, "Tesla T4", ordinal=0),
    api("cudaLaunchKernel_v7000", 3, 5, corr=1), api("cudaStreamSynchronize", 5, 13, corr=2), awaited(2, stream=7),
    kernel("mul", 5, 8, corr=1), memcpy("HtoD", 8, 9, 64, src="pageable", corr=3), memset(9, 10, 16),
    os_call("poll", 0, 3), nvtx("step", 0, 13), sample(5, "f", number=1), switch(3, runs=True), thread_name("main"),
]  # fmt: skip


def test_equal_to_the_sqlite_export(tmp_path):
    lite, parquet = open_tiny(tmp_path, *ROWS), open_trace(write_parquet(tmp_path / "pq", *ROWS))
    for table in TABLES:
        assert parquet.tables[table].collect().equals(lite.tables[table].collect()), table
    assert (parquet.meta.container, parquet.meta.name) == ("parquet", "pq")
    for fact in ("nsys_version", "schema_version", "sources", "gpus", "ordinals", "processes", "tables"):
        assert getattr(parquet.meta, fact) == getattr(lite.meta, fact), fact


def test_ids_use_all_64_bits(tmp_path):
    folder = write_parquet(tmp_path / "pq", api("cudaFree", 0, 3, globalTid=global_tid(10, 11) + (1 << 63)))
    assert open_trace(folder).api_calls.select("pid", "tid").collect().rows() == [(10, 11)]


def test_a_damaged_table_is_named(tmp_path):
    folder = write_parquet(tmp_path / "pq", *ROWS)
    table = folder / "CUPTI_ACTIVITY_KIND_KERNEL.parquet"
    table.write_bytes(table.read_bytes()[:-8])
    with pytest.raises(TraceFormatError, match=r"pq/CUPTI_ACTIVITY_KIND_KERNEL.parquet cannot be read; export it"):
        open_trace(folder).kernels.collect()


def test_text_where_numbers_belong(tmp_path):
    folder = write_parquet(tmp_path / "pq", *ROWS)
    table = folder / "CUPTI_ACTIVITY_KIND_KERNEL.parquet"
    pl.read_parquet(table).with_columns(start=pl.lit("soon")).write_parquet(table)
    with pytest.raises(TraceFormatError, match=r"CUPTI_ACTIVITY_KIND_KERNEL.parquet cannot be read"):
        open_trace(folder).kernels.collect()


def test_glob_characters_in_the_path(tmp_path):
    folder = write_parquet(tmp_path / "run [1]*", *ROWS)
    assert open_trace(folder).kernels.collect().height == 1


@pytest.mark.parametrize("content", [(), ("notes.txt",), ("other.parquet",)])
def test_a_directory_that_is_no_export(tmp_path, content):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in content:
        (folder / name).write_text("x")
    with pytest.raises(TraceFormatError, match="folder is a directory but no nsys export"):
        open_trace(folder)


@pytest.mark.e2e
def test_a_real_one(tmp_path):
    """Captured and exported by the real nsys 2023.4: the same trace as its SQLite export."""
    import subprocess

    root = os.environ.get("NSYSKIT_E2E_ROOT")
    if not root or not (Path(root) / "usr/bin/nsys").exists():
        pytest.skip("needs NSYSKIT_E2E_ROOT with the real nsys 2023.4")
    import tempfile

    with tempfile.TemporaryDirectory(prefix="nsyskit-", dir=Path(root) / "tmp") as outside:
        inside = f"/tmp/{Path(outside).name}"

        def nsys(*arguments: str) -> None:
            argv = ["chroot", root, "nsys", *arguments]
            subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)

        nsys("profile", "--trace=osrt", "--sample=none", "--cpuctxsw=none", f"--output={inside}/a", "sleep", "0.01")
        nsys("export", "--type=parquetdir", f"--output={inside}/pq", f"{inside}/a.nsys-rep")
        nsys("export", "--type=sqlite", f"--output={inside}/a.sqlite", f"{inside}/a.nsys-rep")
        parquet, lite = open_trace(Path(outside) / "pq"), open_trace(Path(outside) / "a.sqlite")
        assert lite.os_calls.collect().height > 0
        for table in TABLES:
            if table != "strings":  # nsys numbers its strings anew in every export
                names = [
                    column for column in TABLES[table] if not column.endswith(("name_id", "symbol_id", "module_id"))
                ]
                ours, theirs = (trace.tables[table].select(names).collect() for trace in (parquet, lite))
                assert ours.equals(theirs), table
