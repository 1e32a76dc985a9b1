"""Canonical tables as Parquet files."""

from __future__ import annotations

import polars as pl
from click.testing import CliRunner
from tiny_trace import api, fact, kernel, open_tiny, string, write_sqlite

from nsyskit.cli import cli
from nsyskit.report.parquet import write_parquet
from nsyskit.schema import polars_schema
from nsyskit.trace import Window

ROWS = (api("cudaLaunchKernel", 0, 2, corr=1), kernel("void mul<int>(int)", 3, 8, short="mul", corr=1))


def test_tables_with_rows_and_the_strings_they_name(tmp_path):
    trace = open_tiny(tmp_path, *ROWS, string(900, "TOKEN=secret"), fact("PROCESS_0:ARGS", "--api-key secret"))
    written = write_parquet(trace, tmp_path / "out")
    assert sorted(path.name for path in written) == ["api_calls.parquet", "kernels.parquet", "strings.parquet"]
    kernels = pl.read_parquet(tmp_path / "out" / "kernels.parquet")
    assert kernels.schema == polars_schema("kernels")
    assert kernels.select("start_ns", "end_ns").rows() == [(3, 8)]
    strings = pl.read_parquet(tmp_path / "out" / "strings.parquet")["value"].to_list()
    assert sorted(strings) == ["cudaLaunchKernel", "mul", "void mul<int>(int)"]


def test_a_window(tmp_path):
    trace = open_tiny(tmp_path, *ROWS, kernel("late", 20, 21))
    write_parquet(trace, tmp_path / "out", window=Window("explicit", 7, 20))
    assert pl.read_parquet(tmp_path / "out" / "kernels.parquet")["start_ns"].to_list() == [3]


def test_the_command(tmp_path):
    source = write_sqlite(tmp_path / "t.sqlite", *ROWS)
    argv = ["export", str(source), "--to", "parquet"]
    assert CliRunner().invoke(cli, argv).stdout == f"{tmp_path / 't-parquet'}\n"
    again = CliRunner().invoke(cli, argv)
    assert (again.exit_code, "is not empty" in again.stderr) == (6, True)
    assert CliRunner().invoke(cli, [*argv, "--force"]).exit_code == 0
