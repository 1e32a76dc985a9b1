"""Figures: one a result, with the result's numbers in them."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go
import pytest
from tiny_trace import PID, api, kernel, memcpy, open_tiny

from nsyskit.analysis.analyze import analyze
from nsyskit.analysis.timeline import density, events
from nsyskit.ingest import open_trace
from nsyskit.report.figures import figure, has_figure
from nsyskit.report.figures.base import clipped_name, unique_names
from nsyskit.trace import Window

DEMO = Path(__file__).resolve().parents[2] / "traces" / "demo" / "trace.sqlite"
ROWS = (
    api("cudaLaunchKernel", 0, 2, corr=1), kernel("void mul<int>(int)", 3, 8, short="mul", corr=1),
    api("cudaMalloc", 10, 14), api("cudaMemcpyAsync", 19, 20, corr=2), memcpy("DtoH", 20, 23, 64, corr=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def demo():
    return analyze(open_trace(DEMO))


@pytest.fixture
def tiny(tmp_path):
    return open_tiny(tmp_path, *ROWS)


def test_every_section_of_the_demo_has_one(demo):
    told = {name: result for name, result in demo.sections.items() if has_figure(result) and name != "kern_exec_sum"}
    assert len(told) >= 18
    drawn = {name: figure(result) for name, result in told.items()}
    assert all(isinstance(one, go.Figure) for one in drawn.values())
    assert {name for name, one in drawn.items() if not one.data} == set()


def test_what_has_none(demo):
    assert not has_figure(3)
    with pytest.raises(NotImplementedError, match="no figure for int"):
        figure(3)
    with pytest.raises(NotImplementedError):
        figure(demo.sections["kern_exec_sum"])


def test_the_device_bar_is_the_ledger(tiny):
    (ledger,) = analyze(tiny).sections["devices"].devices
    drawn = figure(analyze(tiny).sections["devices"])
    values = {trace.name: trace.x[0] * 1e6 for trace in drawn.data}
    assert values == pytest.approx({
        "running kernels": 5, "copying": 3, "idle, CPU is launching work": 1, "idle, CPU is in another CUDA call": 4,
        "idle, CPU runs the program's code": 7,
    })  # fmt: skip
    assert sum(values.values()) == pytest.approx(ledger.window_ns)
    assert list(drawn.data[0].y) == [f"GPU 0 of process {PID}"]


def test_steps_over_time(demo):
    drawn = figure(demo.sections["steps"])
    decode = next(trace for trace in drawn.data if trace.name == "decode")
    rows = demo.sections["steps"].steps.filter(phase="decode").drop_nulls("period_ns")
    assert list(decode.y) == pytest.approx((rows["period_ns"] / rows["n_tokens"] / 1e6).to_list())
    begin, end, index = decode.customdata[0]
    assert index == rows["index"][0]
    assert end - begin == rows["end_ns"][0] - rows["begin_ns"][0]


def test_density_is_shares(tiny):
    """Window 3–23; the kernel runs 5 of its 20 ns."""
    drawn = figure(density(tiny))
    kernel_lane = next(trace for trace in drawn.data if trace.meta.get("part") == "kernel")
    widths = [end - begin for begin, end in zip(kernel_lane.x, kernel_lane.x[1:], strict=False)]
    time = sum(share * width for share, width in zip(kernel_lane.y, widths, strict=False))
    assert time * 1000 == pytest.approx(5)  # the axis is in µs


def test_a_bubbles_hover(tiny):
    drawn = figure(events(tiny, Window("explicit", 3, 23)))
    idle = [text for trace in drawn.data if trace.meta["lane"] == 0 for text in trace.customdata]
    assert (
        "idle, cuda 4 ns<br>bubble of 12 ns on GPU 0<br>host 58.3 %, cuda 33.3 %, submit 8.3 %"
        "<br>after mul<br>before memcpy DtoH 64 B"
    ) in idle


def test_very_many_events_are_put_together(tmp_path):
    trace = open_tiny(tmp_path, *(kernel("k", 2 * at, 2 * at + 1) for at in range(5000)))
    drawn = figure(events(trace, Window("explicit", 0, 10_000)))
    kernels = next(one for one in drawn.data if one.meta["part"] == "kernel")
    assert len(kernels.x) <= 1200
    assert kernels.customdata[0].endswith("events (kernel), together 5 ns")


def test_names_for_axes():
    assert clipped_name("void mul<(int)4>(float*, int)") == "mul&lt;(int)4&gt;"
    assert len(clipped_name("k" * 100)) == 48
    assert unique_names(["a", "b", "a"]) == ["a", "b", "a (2)"]
