"""What limits the numbers of a trace, each with its code and level."""

from __future__ import annotations

import pytest
from tiny_trace import Row, api, diagnostic, exporter, graph, kernel, memcpy, open_tiny, os_call, overhead, string

from nsyskit.analysis.trust import trust
from nsyskit.trace import Window

PAIR = (api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 3, 8, corr=1))


def notes(tmp_path, *rows: Row | list[Row], window: tuple[int, int] = (0, 100)) -> dict[str, tuple[str, str]]:
    """Code -> (level, message)"""
    found = trust(open_tiny(tmp_path, *rows), window=Window("explicit", *window))
    assert len({note.code for note in found}) == len(found)
    levels = [["error", "warning", "note"].index(note.level) for note in found]
    assert levels == sorted(levels), "errors first"
    return {note.code: (note.level, note.message) for note in found}


def test_where_it_comes_from(tmp_path):
    (tmp_path / "b").mkdir()
    assert notes(tmp_path, *PAIR, exporter("2023.4.4.54", "3.7.2"))["nsys"] == (
        "note", "exported by nsys 2023.4.4.54, schema 3.7.2",
    )  # fmt: skip
    assert notes(tmp_path / "b", *PAIR)["no_metadata"] == ("note", "the export names no nsys version (2021 or older)")


def test_what_was_not_collected(tmp_path):
    (tmp_path / "b").mkdir()
    assert notes(tmp_path, *PAIR)["not_collected"] == ("note", "not collected: osrt, nvtx, sched, samples, gpu_metrics")
    level, message = notes(tmp_path / "b", os_call("poll", 0, 3))["not_collected"]
    assert level == "warning"
    assert message.startswith("not collected: cuda, ")


def test_launches_without_any_kernel(tmp_path):
    level, message = notes(tmp_path, PAIR[0], memcpy("HtoD", 3, 5))["kernels_missing"]
    assert level == "error"
    assert message.startswith("1 kernel launches but not one kernel row: CUPTI lost them; capture again with ")


@pytest.mark.parametrize("row", [kernel("k", 3, 8, corr=1), graph(3, 8, corr=9)])
def test_launches_with_kernels_or_graphs_are_fine(tmp_path, row):
    assert "kernels_missing" not in notes(tmp_path, PAIR[0], row)


def test_launches_that_only_recorded_a_graph_need_no_kernels(tmp_path):
    recording = [api("cudaStreamBeginCapture", 0, 1), api("cudaLaunchKernel", 2, 3), api("cudaStreamEndCapture", 5, 8)]
    assert "kernels_missing" not in notes(tmp_path, *recording)


class TestGraphs:
    LAUNCHES = (api("cudaGraphLaunch", 10, 11, corr=2), api("cudaGraphLaunch", 20, 21, corr=3))

    def test_none_recorded(self, tmp_path):
        level, message = notes(tmp_path, *PAIR, *self.LAUNCHES)["graphs_missing"]
        assert (level, message) == (
            "error",
            (
                "2 CUDA graph launches left no row: what they ran is unknown; "
                "export with nsys 2024 or later, or capture with --cuda-graph-trace=node"
            ),
        )

    def test_some_recorded(self, tmp_path):
        level, message = notes(tmp_path, *PAIR, *self.LAUNCHES, graph(12, 15, corr=2))["graph_coverage"]
        assert (level, message) == (
            "warning", "only 1 of 2 CUDA graph launches left rows (50.0%); the rest is counted as unknown",
        )  # fmt: skip

    def test_all_recorded_but_opaque(self, tmp_path):
        """5 of 10 ns of GPU time lie inside graphs."""
        found = notes(tmp_path, *PAIR, self.LAUNCHES[0], graph(12, 17, corr=2))
        assert not found.keys() & {"graphs_missing", "graph_coverage"}
        assert found["graphs_opaque"][0] == "warning"
        assert found["graphs_opaque"][1].startswith("50.0% of GPU time lies inside CUDA graphs traced as a whole")

    def test_node_by_node(self, tmp_path):
        found = notes(tmp_path, *PAIR, self.LAUNCHES[0], kernel("n", 12, 17, corr=2, node=5))
        assert found["node_level"][0] == "warning"


def test_rows_without_a_call(tmp_path):
    assert notes(tmp_path, *PAIR, kernel("orphan", 10, 13, corr=77))["orphans"] == (
        "warning", "1 of 2 GPU rows have no API row (cut or dropped)",
    )  # fmt: skip


@pytest.mark.parametrize(("until", "level"), [(14, "note"), (15, "warning")])
def test_the_profilers_own_share(tmp_path, until, level):
    """From 10 on, of a window of 100: 4 % is worth a note, 5 % a warning."""
    found = notes(tmp_path, *PAIR, overhead("flush", 10, until))
    assert found["profiler_share"] == (level, f"the profiler itself worked in {until - 10:.1f}% of the window")


def test_the_profiler_in_a_process_that_drives_nothing(tmp_path):
    assert "profiler_share" not in notes(tmp_path, *PAIR, overhead("flush", 10, 90, pid=99))


class TestDropped:
    def test_what_nsys_said_it_lost_is_counted_and_not_quoted(self, tmp_path):
        said = diagnostic("Number of CUDA events dropped in /home/jane/secret: 8")
        level, message = notes(tmp_path, *PAIR, said)["dropped_events"]
        assert level == "warning"
        assert message.startswith("nsys warned 1 time(s) of dropped or incomplete events")
        assert "jane" not in message

    @pytest.mark.parametrize(
        "row", [diagnostic("8 events dropped", severity=1), diagnostic("Installed 3 hooks", severity=2)]
    )
    def test_other_messages_are_none(self, tmp_path, row):
        assert "dropped_events" not in notes(tmp_path, *PAIR, row)


def test_overlapping_kernels(tmp_path):
    assert notes(tmp_path, *PAIR, kernel("b", 5, 13, corr=1))["overlap"] == (
        "note", "kernels overlap by 3 ns: their durations sum to more than the GPU's time",
    )  # fmt: skip


def test_a_trace_that_holds_nothing_is_no_crash(tmp_path):
    assert set(notes(tmp_path, string(1, "x"))) == {"no_metadata", "not_collected"}
