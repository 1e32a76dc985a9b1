"""`nsyskit analyze`: formats, sections, windows, outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_trace import api, exporter, kernel, memcpy, os_call, string, write_parquet, write_sqlite

from nsyskit import analyze, open_trace
from nsyskit.analysis import analyze as analysis
from nsyskit.cli import analyze as analyze_command
from nsyskit.cli import cli
from nsyskit.report.json import document

ROWS = (
    exporter(), api("cudaLaunchKernel", 0, 3, corr=1), kernel("mul", 5, 8, corr=1), kernel("add", 10, 15, corr=1),
    memcpy("HtoD", 20, 21, 64), os_call("poll", 0, 3),
)  # fmt: skip


@pytest.fixture
def path(tmp_path) -> Path:
    return write_sqlite(tmp_path / "trace.sqlite", *ROWS)


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(cli, ["analyze", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, result.output
    return result


def test_the_choices_are_those_of_the_library():
    assert tuple(analysis.CHOICES) == analyze_command.CHOICES


class TestFormats:
    def test_text_is_the_default(self, path):
        assert run(path).stdout == run(path, "--format", "text").stdout
        assert run(path).stdout.startswith("trace.sqlite · window gpu 16 ns\n")

    def test_json_is_the_librarys_document(self, path):
        body = json.loads(run(path, "--format", "json").stdout)
        assert body == json.loads(json.dumps(document(analyze(open_trace(path)))))

    def test_csv_of_one_section(self, path):
        assert run(path, "--format", "csv", "-a", "mem_size_sum").stdout == (
            "name,total_bytes,count,avg_bytes,med_bytes,min_bytes,max_bytes,stddev_bytes\nHtoD,64,1,64.0,64.0,64,64,0.0\n"
        )

    def test_an_unknown_one(self, path):
        assert "'--format'" in run(path, "--format", "xml", code=2).stderr

    def test_a_parquet_directory(self, tmp_path):
        folder = write_parquet(tmp_path / "pq", *ROWS)
        assert run(folder).stdout.startswith("pq · window gpu 16 ns\n")


class TestSections:
    def test_one(self, path):
        body = json.loads(run(path, "--format", "json", "-a", "sync").stdout)
        assert set(body) == {"schema", "trace", "trust", "sync"}

    def test_several(self, path):
        body = json.loads(run(path, "--format", "json", "-a", "api_sum", "--analysis", "threads").stdout)
        assert set(body) == {"schema", "trace", "trust", "api_sum", "threads"}

    def test_an_unknown_one(self, path):
        result = run(path, "-a", "everything", code=2)
        assert "'everything' is not one of 'sums'" in result.stderr

    def test_top(self, path):
        assert "… and 1 more" in run(path, "-a", "kernel_sum", "--top", 1).stdout
        assert "more" not in run(path, "-a", "kernel_sum").stdout
        assert run(path, "--top", 0, code=2).stderr.endswith("0 is not in the range x>=1.\n")


class TestWindow:
    @pytest.mark.parametrize(
        ("text", "window"),
        [
            ("all", {"kind": "all", "start_ns": 0, "end_ns": 21}),
            ("gpu", {"kind": "gpu", "start_ns": 5, "end_ns": 21}),
            ("5:10", {"kind": "explicit", "start_ns": 5, "end_ns": 10}),
            ("+5ns:+1us", {"kind": "explicit", "start_ns": 10, "end_ns": 1005}),
        ],
    )  # fmt: skip
    def test_as_typed(self, path, text, window):
        assert json.loads(run(path, "--format", "json", "--window", text).stdout)["trace"]["window"] == window

    def test_sums_follow_it(self, path):
        body = json.loads(run(path, "--format", "json", "--window", "5:10").stdout)
        assert [row["name"] for row in body["kernel_sum"]] == ["mul"]

    @pytest.mark.parametrize("text", ["8:3", "3:3", "soon", "1:2:3", "1kg:2kg"])
    def test_what_is_none(self, path, text):
        result = run(path, "--window", text, code=2)
        assert result.stderr.startswith("nsyskit: ")
        assert result.stderr.count("\n") == 1

    def test_one_that_this_trace_cannot_have(self, tmp_path):
        path = write_sqlite(tmp_path / "cpu.sqlite", os_call("poll", 0, 3))
        said = run(path, "--window", "gpu", code=4).stderr
        assert said == "nsyskit: this trace holds no GPU work; capture with --trace=cuda, or look at --window all\n"


class TestOutput:
    def test_to_a_file(self, path, tmp_path):
        result = run(path, "--format", "json", "-o", tmp_path / "out.json")
        assert result.stdout == ""
        assert json.loads((tmp_path / "out.json").read_text())["schema"] == "nsyskit.analysis/1"

    def test_text_in_a_file_has_one_width_and_no_colour(self, path, tmp_path):
        run(path, "-o", tmp_path / "out.txt")
        said = (tmp_path / "out.txt").read_text()
        assert "\x1b" not in said
        assert max(map(len, said.splitlines())) <= 100

    def test_never_over_a_file_unless_told_to(self, path, tmp_path):
        (tmp_path / "out.txt").write_text("precious")
        for option in ("-o", "--html"):
            said = run(path, option, tmp_path / "out.txt", code=6).stderr
            assert said == f"nsyskit: {tmp_path}/out.txt exists; choose another name or add --force\n"
        assert (tmp_path / "out.txt").read_text() == "precious"
        run(path, "-o", tmp_path / "out.txt", "--force")
        assert (tmp_path / "out.txt").read_text().startswith("trace.sqlite · ")

    def test_refused_before_any_work(self, tmp_path):
        """The trace does not even exist."""
        said = run(tmp_path / "gone.sqlite", "-o", tmp_path / "no" / "out.txt", code=6).stderr
        assert said == f"nsyskit: the folder {tmp_path}/no does not exist; make it first\n"

    def test_not_onto_a_directory(self, path, tmp_path):
        assert (
            run(path, "-o", tmp_path, "--force", code=6).stderr == f"nsyskit: {tmp_path} is a directory; name a file\n"
        )

    def test_html_beside_the_text(self, path, tmp_path):
        result = run(path, "--html", tmp_path / "out.html")
        assert result.stdout.startswith("trace.sqlite · ")
        assert "trace.sqlite" in (tmp_path / "out.html").read_text()

    def test_no_scratch_file_stays(self, path, tmp_path):
        run(path, "-o", tmp_path / "out.txt", "--html", tmp_path / "out.html")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["out.html", "out.txt", "trace.sqlite"]

    def test_a_new_file_has_ordinary_rights(self, path, tmp_path):
        run(path, "-o", tmp_path / "out.txt")
        mask = os.umask(0)
        os.umask(mask)
        assert (tmp_path / "out.txt").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_reader_that_goes_away(path):
    """`nsyskit analyze … | head -1` ends quietly."""
    command = f"'{sys.executable}' -m nsyskit analyze '{path}' | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("trace.sqlite · window gpu 16 ns\n", "")


def test_no_escape_codes_and_no_progress_when_nobody_watches(path):
    done = subprocess.run([sys.executable, "-m", "nsyskit", "analyze", str(path)], capture_output=True, check=True)
    assert b"\x1b" not in done.stdout
    assert done.stderr == b""


def test_an_empty_trace_is_no_error(tmp_path):
    assert "No verdict" in run(write_sqlite(tmp_path / "empty.sqlite", string(1, "x"))).stdout


def test_rules_of_ones_own_that_are_none(path, tmp_path):
    (tmp_path / "rules.json").write_text("not json")
    result = CliRunner().invoke(cli, ["analyze", str(path), "--kernel-rules", str(tmp_path / "rules.json")])
    assert result.exit_code in {2, 3}
    assert result.stderr.startswith("nsyskit: ")
    assert result.stderr.count("\n") == 1
