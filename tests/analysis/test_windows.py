"""What an analysis looks at."""

from __future__ import annotations

import pytest
from tiny_trace import api, kernel, memcpy, nvtx, open_tiny, os_call

from nsyskit.analysis.windows import default_window, parse_window, window_all, window_gpu
from nsyskit.errors import MissingTableError, UsageError
from nsyskit.trace import Window

CALL, WORK, WAIT = api("cudaFree", 3, 20), kernel("k", 5, 8), os_call("poll", 0, 50)


def test_all_is_cuda_calls_and_gpu_work(tmp_path):
    assert window_all(open_tiny(tmp_path, CALL, WORK, memcpy("HtoD", 21, 30), WAIT)) == Window("all", 3, 30)


def test_all_is_os_calls_where_there_is_nothing_else(tmp_path):
    assert window_all(open_tiny(tmp_path, WAIT)) == Window("all", 0, 50)


def test_gpu_is_the_first_to_the_last_operation(tmp_path):
    assert window_gpu(open_tiny(tmp_path, CALL, WORK, memcpy("HtoD", 21, 30))) == Window("gpu", 5, 30)


def test_the_default_is_gpu_then_all(tmp_path):
    (tmp_path / "b").mkdir()
    assert default_window(open_tiny(tmp_path, CALL, WORK)).kind == "gpu"
    assert default_window(open_tiny(tmp_path / "b", CALL)) == Window("all", 3, 20)


def test_a_trace_without_any_of_it(tmp_path):
    trace = open_tiny(tmp_path, nvtx("x", 0, 3))
    with pytest.raises(MissingTableError, match="no CUDA API calls, GPU work or OS runtime calls"):
        window_all(trace)
    with pytest.raises(MissingTableError, match="no GPU work; capture with --trace=cuda, or look at --window all"):
        window_gpu(trace)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("all", Window("all", 3, 20)), ("gpu", Window("gpu", 5, 8)), ("3:8", Window("explicit", 3, 8)),
        ("1us:2us", Window("explicit", 1000, 2000)), ("1.5ms:2s", Window("explicit", 1_500_000, 2_000_000_000)),
        ("+3:+5", Window("explicit", 8, 10)), ("0:+1us", Window("explicit", 0, 1005)),
        ("-3:8", Window("explicit", -3, 8)),
    ],
)  # fmt: skip
def test_as_typed(tmp_path, text, window):
    assert parse_window(text, open_tiny(tmp_path, CALL, WORK)) == window


@pytest.mark.parametrize("text", ["", "3", "3:", ":3", "a:b", "3:5:8", "8:3", "5:5", "3kg:5kg", "steady-ish"])
def test_what_is_no_window(tmp_path, text):
    with pytest.raises(UsageError, match="; "):
        parse_window(text, open_tiny(tmp_path, CALL, WORK))
