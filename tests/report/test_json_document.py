"""The JSON document: its schema, strict in both directions, on every trace at hand; and its numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from tiny_trace import (
    api,
    awaited,
    cuda_device,
    exporter,
    gpu,
    graph,
    kernel,
    memcpy,
    nvtx,
    open_tiny,
    os_call,
    os_chain,
    process,
    sample,
    string,
    switch,
)

from nsyskit import analyze, open_trace
from nsyskit.analysis.analyze import CHOICES, SECTIONS
from nsyskit.report.json import document, json_schema, render_json
from nsyskit.trace import Window

SHIPPED = sorted(Path(__file__).parents[2].glob("traces/*/trace.sqlite"))
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
ROWS = (
    exporter(), gpu(0, "Tesla T4", memoryBandwidth=320), cuda_device(0, 0), process("/home/jane/llama-bench"),
    api("cudaLaunchKernel_v7000", 0, 3, corr=1), kernel("void mul<int>(int)", 5, 8, short="mul", corr=1),
    api("cudaMemcpyAsync", 8, 13, corr=2), memcpy("DtoH", 9, 13, 64, dst="pageable", corr=2),
    api("cudaGraphLaunch", 13, 14, corr=3), graph(15, 18, corr=3),
    api("cudaStreamSynchronize", 14, 18, corr=4), awaited(4), os_call("poll", 18, 20, chain=1),
    os_chain(1, "poll", "loop"),
    sample(19, "sample_top_k", number=1), switch(0, runs=True), switch(19, runs=False), nvtx("step", 0, 20),
    kernel("void mul<int>(int)", 20, 21, short="mul", corr=5), api("cudaLaunchKernel_v7000", 19, 20, corr=5),
)  # fmt: skip


def valid(body: dict) -> dict:
    """The document as a reader gets it, checked against the schema."""
    read = json.loads(json.dumps(body, allow_nan=False))
    problems = [f"{list(error.path)}: {error.message[:200]}" for error in VALIDATOR.iter_errors(read)]
    assert not problems
    return read


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_every_object_of_ours_is_closed():
    """What the schema does not name must not appear: objects say so, or say what their other values are."""

    def objects(node: object) -> Iterator[dict[str, object]]:
        if isinstance(node, dict):
            if node.get("type") == "object":
                yield node
            for child in node.values():
                yield from objects(child)
        elif isinstance(node, list):
            for child in node:
                yield from objects(child)

    assert not [node for node in objects(json_schema()) if "additionalProperties" not in node]


class TestValid:
    def test_tiny(self, tmp_path):
        body = valid(document(analyze(open_tiny(tmp_path, *ROWS))))
        absent = {"steps", "program", "startup", "layers", "depth", "several_gpus"}
        assert all(body[name] for name in body if name not in absent), "every section has something in it"
        assert all(body[name] is None for name in absent)

    def test_with_a_window(self, tmp_path):
        body = valid(document(analyze(open_tiny(tmp_path, *ROWS), window=Window("explicit", 3, 8))))
        assert body["trace"]["window"] == {"kind": "explicit", "start_ns": 3, "end_ns": 8}

    def test_a_real_trace(self, real_trace):
        valid(document(analyze(open_trace(real_trace))))

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
    def test_a_shipped_trace(self, path):
        assert valid(document(analyze(open_trace(path))))["steps"]["count"] > 0

    @pytest.mark.parametrize("choice", sorted(CHOICES))
    def test_each_choice(self, tmp_path, choice):
        body = valid(document(analyze(open_tiny(tmp_path, *ROWS), only=[choice])))
        told_elsewhere = {"gaps", "host_functions"}
        expected = {"mem_hist" if name == "copies" else name for name in CHOICES[choice] if name not in told_elsewhere}
        assert set(body) == {"schema", "trace", "trust", *expected}

    @pytest.mark.parametrize(
        "rows", [[string(1, "x")], [os_call("poll", 0, 3)], [api("cudaFree", 0, 3)], [kernel("k", 0, 3)]]
    )
    def test_traces_that_lack_something(self, tmp_path, rows):
        valid(document(analyze(open_tiny(tmp_path, *rows))))


class TestStrict:
    """The schema notices what should not be there and what should."""

    @pytest.mark.parametrize(
        "place", [(), ("trace",), ("devices", 0), ("sync",), ("launch", "graph"), ("kernel_sum", 0)]
    )
    def test_a_key_too_many_and_a_key_too_few(self, tmp_path, place):
        body = json.loads(json.dumps(document(analyze(open_tiny(tmp_path, *ROWS)))))
        part = body
        for key in place:
            part = part[key]
        part["surprise"] = 1
        assert not VALIDATOR.is_valid(body)
        del part["surprise"]
        assert VALIDATOR.is_valid(body)
        del part[next(key for key in part if key != "gaps")]
        assert not VALIDATOR.is_valid(body)


class TestNumbers:
    """What the sections say of ``ROWS``: window 5–21; kernel 3, copy 4, graph 3, kernel 1."""

    @pytest.fixture
    def body(self, tmp_path):
        return valid(document(analyze(open_tiny(tmp_path, *ROWS))))

    def test_trace(self, body):
        trace = body["trace"]
        assert (trace["name"], trace["nsys_version"], trace["export_schema"]) == (
            "trace.sqlite", "2023.4.4.54-234433681190v0", "3.7.2",
        )  # fmt: skip
        assert trace["window"] == {"kind": "gpu", "start_ns": 5, "end_ns": 21}
        assert trace["gpus"] == [{"gpu": 0, "name": "Tesla T4", "uuid": None, "memory_bandwidth": 320}]
        assert trace["processes"] == [{"pid": 10, "program": "llama-bench"}]
        assert trace["sources"] == {
            "cuda": True, "osrt": True, "nvtx": True, "sched": True, "samples": True, "gpu_metrics": False,
        }  # fmt: skip
        assert trace["tables"]["CUPTI_ACTIVITY_KIND_KERNEL"] == 2

    def test_sums(self, body):
        (row,) = body["kernel_sum"]
        assert (row["name"], row["total_ns"], row["count"], row["category"]) == ("void mul<int>(int)", 4, 2, "other")
        assert [row["name"] for row in body["api_sum"]] == [
            "cudaMemcpyAsync", "cudaLaunchKernel", "cudaStreamSynchronize", "cudaGraphLaunch",
        ]  # fmt: skip
        assert [(row["name"], row["total_bytes"]) for row in body["mem_size_sum"]] == [("DtoH", 64)]

    def test_a_pair_keeps_its_names_beside_its_figures(self, body):
        (row,) = body["kern_exec_sum"]
        assert (row["api"], row["kernel"], row["count"]) == ("cudaLaunchKernel", "void mul<int>(int)", 2)
        assert (row["api_ns"]["avg"], row["queue_ns"]["max"], row["kernel_ns"]["med"]) == (2.0, 2, 2.0)

    def test_device_and_thread(self, body):
        (device,), (thread,) = body["devices"], body["threads"]
        assert [device[name] for name in ("busy_ns", "kernel_ns", "graph_ns", "memcpy_ns", "idle_ns", "window_ns")] == [
            11, 4, 3, 4, 5, 16,
        ]  # fmt: skip
        assert {cause: ns for cause, ns in device["idle"].items() if ns} == {
            "sync": 1, "submit": 2, "dispatch": 1, "blocked": 1,
        }  # fmt: skip
        assert sum(gap["dur_ns"] for gap in device["gaps"]) == 5
        assert sum(value for name, value in thread.items() if name.endswith(("busy_ns", "idle_ns"))) == 16

    def test_sync_and_launch(self, body):
        assert (body["sync"]["calls"], body["sync"]["total_ns"]) == (1, 4)
        assert (body["launch"]["pairs"], body["launch"]["graph"]["coverage"]) == (1, 1.0)

    def test_a_copy_bin(self, body):
        assert body["mem_hist"] == [
            {"label": "DtoH", "memory": "pageable", "lo_bytes": 64, "hi_bytes": 128, "count": 1, "bytes": 64,
             "total_ns": 4, "gb_per_s": 16.0, "blocking_count": 1},
        ]  # fmt: skip

    def test_the_evidence_of_the_verdict_points_into_the_document(self, body):
        for item in body["verdict"]["evidence"]:
            value = body
            for key in item["path"].replace("[0]", ".0").split("."):
                value = value[int(key)] if key.isdigit() else value[key]
            assert value == item["value"], item["path"]

    def test_os_runtime(self, body):
        (thread,) = body["osrt_by_thread"]
        assert thread["calls"] == [{"name": "poll", "class": "blocked", "total_ns": 2, "count": 1}]
        assert thread["chains"] == [{"frames": ["poll", "loop"], "total_ns": 2, "count": 1}]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_evidence_of_a_shipped_trace_points_into_the_document(path):
    body = document(analyze(open_trace(path)))
    for item in body["verdict"]["evidence"]:
        value = body
        for key in item["path"].replace("[0]", ".0").split("."):
            value = value[int(key)] if key.isdigit() else value[key]
        assert value == item["value"], item["path"]


def test_what_was_not_collected_is_null_and_what_was_not_asked_for_absent(tmp_path):
    body = document(analyze(open_tiny(tmp_path, kernel("k", 0, 3)), only=["osrt_sum", "kernel_sum"]))
    assert body["osrt_sum"] is None
    assert body["kernel_sum"]
    assert "api_sum" not in body


def test_the_text_is_the_document_without_nan(tmp_path):
    report = analyze(open_tiny(tmp_path, *ROWS))
    text = render_json(report)
    assert json.loads(text) == json.loads(json.dumps(document(report)))
    assert text.endswith("}\n")
    assert not any(word in text for word in ("NaN", "Infinity"))


def test_nothing_of_the_documents_order_depends_on_chance(tmp_path):
    rows = [kernel(f"k{number % 5}", number, number + 1, corr=number) for number in range(50)]
    texts = set()
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        texts.add(render_json(analyze(open_tiny(tmp_path / str(number), *rows))))
    assert len(texts) == 1


def test_every_section_is_known_to_the_schema():
    names = {"mem_hist" if name == "copies" else name for name in SECTIONS} - {"gaps", "host_functions"}
    assert names <= set(json_schema()["properties"])


@pytest.mark.parametrize("name", ["damaged", "cpu-experts"])
def test_the_same_bytes_every_time(name):
    """Whichever thread is first: sums of fractions must not depend on it."""
    path = Path(__file__).parents[2] / "traces" / name / "trace.sqlite"
    assert len({render_json(analyze(open_trace(path))) for _ in range(4)}) == 1
