"""Memory held on each GPU, by allocations and releases."""

from __future__ import annotations

import pytest
from tiny_trace import PID, allocation, api, cuda_device, gpu, kernel, memcpy, open_tiny

from nsyskit.analysis.analyze import analyze
from nsyskit.analysis.gpu_memory import gpu_memory
from nsyskit.cli.report import with_beside, write_html
from nsyskit.errors import MissingTableError
from nsyskit.report.figures import figure

ROWS = (api("cudaLaunchKernel", 0, 1, corr=1), kernel("k", 2, 9, corr=1))


def test_what_is_held_at_each_instant(tmp_path):
    """300, then 500, then 200; 8 bytes of pinned memory lie on the host."""
    held = (allocation(1, 300), allocation(3, 200), allocation(4, 8, kind=1), allocation(5, 300, release=True))
    (found,) = gpu_memory(open_tiny(tmp_path, *ROWS, *held)).devices
    assert found.points.rows() == [(1, 300), (3, 500), (5, 200)]
    assert (found.peak_bytes, found.end_bytes, found.before_bytes, found.allocations) == (500, 200, 0, 2)


def test_what_was_held_before_the_trace_counts(tmp_path):
    """A release of 500 that nobody allocated: 500 were there; 200 more make 700."""
    rows = (allocation(2, 200), allocation(3, 500, release=True))
    (found,) = gpu_memory(open_tiny(tmp_path, *ROWS, *rows)).devices
    assert (found.before_bytes, found.points.rows()) == (300, [(2, 500), (3, 0)])


def test_a_device_a_process(tmp_path):
    rows = (
        gpu(3, "A", totalMemory=900), cuda_device(3, 0), allocation(1, 5), allocation(2, 8, device=1),
        allocation(3, 13, pid=PID + 1),
    )  # fmt: skip
    result = gpu_memory(open_tiny(tmp_path, *ROWS, *rows))
    found = result.devices
    assert [(one.pid, one.device, one.label, one.peak_bytes) for one in found] == [
        (PID, 0, f"GPU 3 A, process {PID}", 5), (PID, 1, "GPU 1", 8), (PID + 1, 0, f"GPU 0, process {PID + 1}", 13),
    ]  # fmt: skip
    assert found[0].total_bytes == 900
    assert [trace.name for trace in figure(result).data] == [one.label for one in found]


def test_many_points_keep_their_peak(tmp_path):
    rows = [allocation(2 * at, 10, release=at % 2 == 1) for at in range(9_999)] + [allocation(5, 10**9)]
    found = gpu_memory(open_tiny(tmp_path, *ROWS, *rows))
    drawn = figure(found).data[0]
    assert len(drawn.x) <= 4_000
    assert max(drawn.y) == pytest.approx(found.devices[0].peak_bytes / 1e9, abs=1e-12)


def test_not_recorded(tmp_path):
    with pytest.raises(MissingTableError, match="--cuda-memory-usage=true"):
        gpu_memory(open_tiny(tmp_path, *ROWS, memcpy("DtoH", 9, 10)))


def test_the_page(tmp_path):
    trace = open_tiny(tmp_path, *ROWS, allocation(1, 3 * 10**9), allocation(3, 10**9))
    target = tmp_path / "report.html"
    told = analyze(trace)
    assert "gpu_memory" in with_beside(trace, told, tmp_path).sections
    write_html(trace, told, target, source=tmp_path)
    html = target.read_text(encoding="utf-8")
    assert "most held" in html
    assert "4.000 GB" in html
