"""The start-up ledger: parts that follow each other, against the schedule, and what a log says."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from itertools import pairwise

import jsonschema
import polars as pl
import pytest
from synthetic import synthesize

from nsyskit import analyze, open_trace
from nsyskit.analysis.startup import startup
from nsyskit.errors import MissingTableError
from nsyskit.report.html import render_html
from nsyskit.report.json import document, json_schema
from nsyskit.report.text import render_text
from nsyskit.report.words import start_sentence
from nsyskit.units import human_ns


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("loaded"), "gemma3-4b-f16-turing", "--steps", "3")


def test_parts_follow_each_other(loaded):
    found = startup(loaded.trace)
    rows = found.spans.rows(named=True)
    assert [row["name"] for row in rows] == ["program", "driver", "upload", "prepare", "first_token"]
    assert all(one["start_ns"] + one["dur_ns"] == two["start_ns"] for one, two in pairwise(rows))
    assert found.spans["dur_ns"].sum() == found.window.dur_ns
    assert (found.spans["api_ns"] <= found.spans["dur_ns"]).all()


def test_the_weights_and_the_first_token(loaded):
    rows = {row["name"]: row for row in startup(loaded.trace).spans.iter_rows(named=True)}
    weights = [row for row in loaded.truth["copies"] if row["purpose"] == "weights"]
    assert rows["upload"]["copy_bytes"] == sum(row["bytes"] for row in weights)
    assert rows["upload"]["copy_ns"] == sum(row["total_ns"] for row in weights)
    first = loaded.truth["steps"][0]
    assert rows["first_token"]["start_ns"] == first["begin_ns"]
    assert rows["first_token"]["dur_ns"] == first["forward_end_ns"] - first["begin_ns"]


def test_a_trace_that_begins_later(tmp_path):
    trace = synthesize(tmp_path, "bench-node", "--steps", "2").trace
    with pytest.raises(MissingTableError, match="from its start"):
        startup(trace)
    assert analyze(trace, only=["startup"]).sections["startup"] is None


def test_a_log(tmp_path):
    log = (
        "0.00.017.212 I srv    load_model: loading model 'tiny.gguf'\n"
        "0.02.034.594 I srv  llama_server: model loaded\n"
        "llama_perf_context_print:        load time =     810.50 ms\n"
    )
    found = startup(synthesize(tmp_path, "bench-node", "--steps", "2").trace, texts=[log])
    assert found.milestones.rows() == [("loading the model", 17.212), ("model loaded", 2034.594), ("load time", 810.5)]
    assert found.window is None
    assert found.spans.is_empty()


def test_a_real_server_without_a_gpu(real):
    report = analyze(open_trace(real("cpu-llama-server")), only=["startup"])
    rows = report.sections["startup"].milestones.rows()
    assert rows[:4] == [
        ("loading the model", 17.212), ("model loaded", 34.594), ("listening", 34.648), ("first request", 377.006),
    ]  # fmt: skip
    assert "model loaded at 34.6 ms" in render_text(report, width=120)


def test_in_text(loaded):
    shown = render_text(analyze(loaded.trace, only=["startup"]), width=110)
    assert "loading the weights onto the GPU" in shown


class TestDisk:
    """A server that reads its model tensor by tensor."""

    @pytest.fixture
    def case(self, tmp_path):
        return synthesize(tmp_path, "load-from-disk")

    def test_calls_on_files(self, case):
        found = startup(case.trace)
        files = {row["name"]: row["total_ns"] for row in case.truth["os"] if row["name"] in {"open64", "pread64"}}
        assert len(files) == 2
        assert found.disk_ns == sum(files.values())
        assert found.mapped is False
        assert found.spans.filter(name="upload")["disk_ns"].item() > 0
        assert (found.spans["disk_ns"] <= found.spans["os_ns"]).all()
        assert (found.spans["disk_ns"] + found.spans["copy_ns"] <= found.spans["dur_ns"]).all()

    def test_in_text_and_html(self, case):
        report = analyze(case.trace, only=["startup"])
        told = f"{human_ns(startup(case.trace).disk_ns)} in calls on files"
        assert told in " ".join(render_text(report, width=200).split())
        assert told in render_html(report)
        jsonschema.Draft202012Validator(json_schema()).validate(json.loads(json.dumps(document(report))))

    def test_a_mapped_file(self, loaded):
        found = startup(loaded.trace)
        assert found.mapped is True
        assert found.disk_ns == sum(row["total_ns"] for row in loaded.truth["os"] if row["name"] == "open64")
        assert "file is mapped" in start_sentence(found)

    def test_os_calls_not_collected(self, tmp_path):
        found = startup(synthesize(tmp_path, "load-from-disk", "--no-osrt").trace)
        assert (found.mapped, found.disk_ns) == (None, 0)
        assert "calls on files were not collected" in start_sentence(found)


class TestWhen:
    """The start of the process is where nsys's library came into it."""

    def test_not_told(self, loaded):
        assert startup(loaded.trace).whole is False
        assert "first traced call" in start_sentence(startup(loaded.trace))

    def test_told(self, tmp_path):
        case = synthesize(tmp_path, "load-from-disk")
        pid, tid = case.truth["steps"][0]["pid"], case.truth["steps"][0]["tid"]
        before = startup(case.trace).window
        with closing(sqlite3.connect(case.path)) as connection:
            (thread,) = connection.execute(
                "SELECT globalTid FROM OSRT_API WHERE (globalTid >> 24) & 0xFFFFFF = ? AND globalTid & 0xFFFFFF = ?",
                (pid, tid),
            ).fetchone()
            connection.execute("INSERT INTO StringIds VALUES (999999, 'OS runtime libraries profiling started')")
            connection.execute(
                "INSERT INTO OSRT_API (start, end, eventClass, globalTid, nameId, returnValue, nestingLevel,"
                " callchainId) VALUES (?, ?, 29, ?, 999999, 0, 0, 0)",
                (before.start_ns - 7_000, before.start_ns - 7_000, thread),
            )
            connection.commit()
        found = startup(open_trace(case.path))
        assert found.whole
        assert found.window.start_ns == before.start_ns - 7_000
        assert found.spans["dur_ns"].sum() == found.window.dur_ns
        assert "Counted from the process's start" in start_sentence(found)

    def test_a_real_trace_tells_it(self, real):
        """No weights go to a GPU there; but the mark stands before the process's first call."""
        trace = open_trace(real("cpu-llama-bench"))
        marks = trace.tables["os_marks"].collect()
        names = dict(trace.strings.filter(pl.col("string_id").is_in(marks["name_id"].implode())).collect().iter_rows())
        assert {names[name] for name in marks["name_id"]} == {
            "OS runtime libraries profiling started", "OS runtime libraries profiling finished",
        }  # fmt: skip
        assert marks["start_ns"].min() <= trace.os_calls.select(pl.col("start_ns").min()).collect().item()
