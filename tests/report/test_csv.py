"""Tables as CSV."""

from __future__ import annotations

import csv
import io

import pytest
from tiny_trace import api, kernel, memcpy, open_tiny, os_call, string

from nsyskit import analyze
from nsyskit.errors import UsageError
from nsyskit.report.csv import render_csv

ROWS = (
    api("cudaLaunchKernel", 0, 3, corr=1), kernel("void mul<int, int>(int)", 5, 8, corr=1), memcpy("HtoD", 8, 13, 64),
    os_call("poll", 0, 3),
)  # fmt: skip


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def render(tmp_path, *only: str) -> str:
    return render_csv(analyze(open_tiny(tmp_path, *ROWS), only=only))


def test_one_section_is_a_plain_file(tmp_path):
    assert render(tmp_path, "api_sum") == (
        "name,time_share,total_ns,count,avg_ns,med_ns,min_ns,max_ns,stddev_ns\n"
        "cudaLaunchKernel,1.0,3,1,3.0,3.0,3,3,0.0\n"
    )


def test_commas_and_quotes_survive(tmp_path):
    (row,) = table(render(tmp_path, "kernel_sum"))
    assert (row["name"], row["total_ns"], row["quant"]) == ("void mul<int, int>(int)", "3", "")


def test_several_sections_are_told_apart(tmp_path):
    text = render(tmp_path, "sums")
    names = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    assert names == [
        "api_sum", "osrt_sum", "kernel_sum", "category_sum", "family_sum", "quant_sum", "kern_exec_sum", "mem_time_sum",
        "mem_size_sum",
    ]  # fmt: skip
    sections = text.split("\n\n")
    assert [len(table(section.split("\n", 1)[1])) for section in sections] == [1] * len(names)


def test_nested_values_lie_flat(tmp_path):
    (row,) = table(render(tmp_path, "devices"))
    assert (row["busy_ns"], row["idle.host"], row["window_ns"]) == ("8", "0", "8")
    assert not [name for name in row if name.startswith("gaps")]


def test_a_pair_of_launch_and_kernel(tmp_path):
    (pair,) = table(render(tmp_path, "kern_exec_sum"))
    assert (pair["api"], pair["api_ns.avg"], pair["kernel"]) == ("cudaLaunchKernel", "3.0", "void mul<int, int>(int)")


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)"])
def test_names_that_a_spreadsheet_would_run_are_guarded(tmp_path, name):
    trace = open_tiny(tmp_path, kernel(name, 0, 3))
    (row,) = table(render_csv(analyze(trace, only=["kernel_sum"])))
    assert row["name"] == "'" + name


def test_control_characters_break_no_row(tmp_path):
    (row,) = table(render_csv(analyze(open_tiny(tmp_path, kernel("a\rb\nc\t=1", 0, 3)), only=["kernel_sum"])))
    assert row["name"] == "a\ufffdb\ufffdc\ufffd=1"


def test_numbers_stay_numbers(tmp_path):
    trace = open_tiny(tmp_path, memcpy("HtoD", 0, 3, -5))
    (row,) = table(render_csv(analyze(trace, only=["mem_size_sum"])))
    assert row["total_bytes"] == "-5"


@pytest.mark.parametrize("only", [["sync"], ["launch"], ["nvtx_sum"]])
def test_what_is_no_table(tmp_path, only):
    with pytest.raises(UsageError, match="there is no table to write; ask for sums"):
        render(tmp_path, *only)


def test_an_empty_trace(tmp_path):
    with pytest.raises(UsageError, match="there is no table to write"):
        render_csv(analyze(open_tiny(tmp_path, string(1, "x"))))
