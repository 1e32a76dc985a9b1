"""The report in Markdown."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from tiny_trace import api, kernel, memcpy, open_tiny

from nsyskit.analysis.analyze import analyze
from nsyskit.cli import cli
from nsyskit.report.markdown import render_markdown

DEMO = Path(__file__).resolve().parents[2] / "traces" / "demo" / "trace.sqlite"


def test_a_small_trace_in_full(tmp_path):
    """A kernel 3–8, a copy 8–23 of a call that waits: busy all the time."""
    trace = open_tiny(
        tmp_path, api("cudaLaunchKernel", 0, 2, corr=1), kernel("void mul<int>(int)", 3, 8, short="mul", corr=1),
        api("cudaMemcpyAsync", 4, 5, corr=2), memcpy("DtoH", 8, 23, 64, corr=2),
    )  # fmt: skip
    told = render_markdown(analyze(trace))
    assert told.startswith("## Copying data is the limit (`copy-bound`)\n\ncopy-bound: GPU 0 works 100.0 % of the time")
    assert "### GPU 0: busy 100.0 % of 20 ns\n\n| part | what | time | share |\n|---|---:|---:|---:|\n" in told
    assert "| memcpy | copying | 15 ns | 75.0 % |\n| kernel | running kernels | 5 ns | 25.0 % |" in told
    assert "| `mul<int>` | 100.0 % | 5 ns | 1 | 5 ns |" in told


def test_names_stay_names(tmp_path):
    evil = "k`|@everyone<img src=x>"
    told = render_markdown(analyze(open_tiny(tmp_path, kernel(evil, 0, 5))))
    assert "| `k'\\|@everyone<img src=x>` |" in told


def test_phases():
    assert "| phase | steps | tokens | tokens/s |" in CliRunner().invoke(
        cli, ["report", str(DEMO), "--format", "markdown"]
    ).stdout  # fmt: skip


def test_to_a_file(tmp_path):
    target = tmp_path / "r.md"
    assert CliRunner().invoke(cli, ["report", str(DEMO), "--format", "markdown", "-o", str(target)]).exit_code == 0
    assert target.read_text(encoding="utf-8").startswith("## The GPU waits for the CPU (`host-bound`)")


def test_html_needs_a_file():
    refused = CliRunner().invoke(cli, ["report", str(DEMO)])
    assert (refused.exit_code, "-o report.html" in refused.stderr) == (2, True)
