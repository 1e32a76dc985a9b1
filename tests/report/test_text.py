"""The report in a terminal: it fits, says what matters first, and names cannot break it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_trace import api, awaited, gpu, graph, kernel, memcpy, nvtx, open_tiny, os_call, os_chain, sample, string

from nsyskit import analyze, open_trace
from nsyskit.analysis.analyze import CHOICES
from nsyskit.report.names import shortened
from nsyskit.report.text import render_text

SHIPPED = sorted(Path(__file__).parents[2].glob("traces/*/trace.sqlite"))
LONG = "void mul_mat_very_long_name<" + ", ".join(f"(int){number}" for number in range(60)) + ">(const void *)"
NASTY = "[red]\x1b[31mname[/red]\u202e\n" + "x" * 200
ROWS = (
    gpu(0, "NVIDIA GeForce RTX 9090 Ti Super Ultra Limited Edition 48 GB", ordinal=0),
    api("cudaLaunchKernel_v7000", 0, 3, corr=1), kernel(LONG, 5, 8, corr=1),
    api("cudaMemcpyAsync", 8, 13, corr=2), memcpy("DtoH", 9, 13, 2**40, dst="pageable", corr=2),
    api("cudaGraphLaunch", 13, 14, corr=3), graph(15, 18, corr=3), api(NASTY, 14, 18, corr=4), awaited(4),
    os_call("poll", 18, 20, chain=1), os_chain(1, *(f"frame_{number}_of_many" for number in range(20))),
    sample(19, NASTY, number=1), nvtx(NASTY, 0, 20), kernel(NASTY, 20, 5_000_000_021),
)  # fmt: skip
ESCAPE = "\x1b"


def text(trace, *, width: int = 80, color: bool = False, **options: object) -> str:
    return render_text(analyze(trace, **options), width=width, color=color)


@pytest.mark.parametrize("width", [80, 160])
class TestFits:
    def check(self, said: str, width: int) -> None:
        assert max(len(line) for line in said.splitlines()) <= width
        assert not any(line != line.rstrip() for line in said.splitlines())

    def test_a_trace_of_long_names(self, tmp_path, width):
        self.check(text(open_tiny(tmp_path, *ROWS), width=width), width)

    @pytest.mark.parametrize("choice", sorted(CHOICES))
    def test_each_choice(self, tmp_path, width, choice):
        self.check(text(open_tiny(tmp_path, *ROWS), width=width, only=[choice]), width)

    def test_a_real_trace(self, real_trace, width):
        self.check(text(open_trace(real_trace), width=width), width)

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
    def test_a_shipped_trace(self, width, path):
        self.check(text(open_trace(path), width=width), width)


def test_figures_stay_whole_where_names_are_cut(tmp_path):
    said = text(open_tiny(tmp_path, api("cudaFree", 0, 3), kernel(LONG, 5, 1_234_567_005)), only=["kernel_sum"])
    (line,) = [line for line in said.splitlines() if "mul_mat_very" in line]
    assert re.match(r"^100\.0 %  1\.235 s +1  1\.235 s  1\.235 s  mul_mat_very_long_name<.*…$", line), line


class TestOrder:
    def test_trust_then_verdict_then_ledgers_then_tables(self, tmp_path):
        said = text(open_tiny(tmp_path, *ROWS))
        places = [
            said.index(mark) for mark in ("trace.sqlite · window gpu", "note: ", "gpu-bound: ", ": busy ", "Kernels\n")
        ]
        assert places == sorted(places)

    def test_errors_before_notes(self, tmp_path):
        said = text(open_tiny(tmp_path, api("cudaLaunchKernel", 0, 3, corr=1), memcpy("HtoD", 5, 8)))
        assert said.splitlines()[1].startswith("error: 1 kernel launches but not one kernel row")
        assert "No verdict: 1 kernel launches" in said


class TestSays:
    def test_the_window(self, tmp_path):
        assert text(open_tiny(tmp_path, api("cudaFree", 0, 3), kernel("k", 5, 13))).startswith(
            "trace.sqlite · window gpu 8 ns\n"
        )

    def test_what_was_not_collected(self, tmp_path):
        said = text(open_tiny(tmp_path, kernel("k", 5, 13)))
        assert "note: not collected: osrt, nvtx, sched, samples, gpu_metrics" in said
        assert "not collected, so not shown: host_functions, nvtx_sum, osrt_by_thread, osrt_sum" in " ".join(
            said.split()
        )

    def test_the_sync_share_and_what_it_was(self, tmp_path):
        rows = [
            api("cudaLaunchKernel", 0, 2, corr=1),
            kernel("k", 2, 10, corr=1),
            api("cudaStreamSynchronize", 2, 10, corr=2),
        ]
        said = " ".join(text(open_tiny(tmp_path, *rows), only=["sync"]).split())
        assert "80.0 % of API time in synchronize calls, 80.0 % with blocking copies." in said
        assert "Of the sync time of driver threads the GPU was busy 100.0 %." in said
        assert "1 8 ns gpu_wait: waited for a working GPU" in said

    def test_how_many_rows_are_not_shown(self, tmp_path):
        rows = [kernel(f"k{number}", number, number + 1) for number in range(8)]
        report = analyze(open_tiny(tmp_path, *rows), only=["kernel_sum"])
        assert "… and 5 more" in render_text(report, top=3, width=80, color=False)
        assert "more" not in render_text(report, top=8, width=80, color=False)

    def test_wide_terminals_get_more_columns(self, tmp_path):
        trace = open_tiny(tmp_path, kernel("k", 5, 13))
        narrow, wide = (text(trace, width=width, only=["kernel_sum"]) for width in (80, 160))
        assert "stddev" not in narrow
        assert re.search(r"min +max +stddev +category +name", wide)

    def test_a_bar_has_the_width_of_the_line(self, tmp_path):
        said = text(open_tiny(tmp_path, *ROWS), only=["devices"])
        (bar,) = [line.strip() for line in said.splitlines() if set(line.strip()) <= {"█", "░"} and line.strip()]
        assert len(bar) == 78

    @pytest.mark.parametrize("choice", sorted({"kern_exec_sum", "osrt_sum", "mem_size_sum"}))
    def test_details_are_shown_when_asked_for(self, tmp_path, choice):
        assert len(text(open_tiny(tmp_path, *ROWS), only=[choice]).splitlines()) > 4

    def test_an_empty_trace_still_says_something(self, tmp_path):
        assert "No verdict: CUDA was not collected; capture with --trace=cuda." in text(
            open_tiny(tmp_path, string(1, "x"))
        )


class TestColour:
    def test_none_when_nobody_looks(self, tmp_path):
        assert ESCAPE not in render_text(analyze(open_tiny(tmp_path, *ROWS)))

    def test_some_in_a_terminal(self, tmp_path, monkeypatch):
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert ESCAPE in render_text(analyze(open_tiny(tmp_path, *ROWS)))

    def test_none_with_no_color(self, tmp_path, monkeypatch):
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        monkeypatch.setenv("NO_COLOR", "1")
        assert ESCAPE not in render_text(analyze(open_tiny(tmp_path, *ROWS)))


def test_names_of_a_trace_steer_nothing(tmp_path):
    said = text(open_tiny(tmp_path, *ROWS), width=160)
    assert ESCAPE not in said
    assert "\u202e" not in said
    assert "[red]\N{REPLACEMENT CHARACTER}[31mname[/red]\N{REPLACEMENT CHARACTER}" in said, (
        "shown as it is, as no markup"
    )


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("void mul_mat_q<(ggml_type)12, (int)128>(const char *, int)", "mul_mat_q<(ggml_type)12, (int)128>"),
        ("mul", "mul"), ("quantize_q8_1(const float *, void *)", "quantize_q8_1"),
        ("void k_bin_bcast<&op_add(float, float), float>(const float *)", "k_bin_bcast<&op_add(float, float), float>"),
        ("(anonymous namespace)::f(int)", "(anonymous namespace)::f(int)"),
    ],
)  # fmt: skip
def test_names_without_return_type_and_parameters(name, short):
    assert shortened(name) == short
