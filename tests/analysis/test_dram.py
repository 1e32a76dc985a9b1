"""The memory's counters beside the floor. No shared trace holds any: the tables are those that a real nsys 2023.4 makes
with ``export --lazy=false``, the rows are made here.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import jsonschema
import pytest
from synthetic import synthesize

from nsyskit import analyze, open_trace
from nsyskit.analysis.dram import dram_use
from nsyskit.analysis.limits import ModelLoad, limits
from nsyskit.analysis.step_costs import steps
from nsyskit.report.json import document, json_schema
from nsyskit.report.words import limit_sentences

DDL = {
    "GPU_METRICS": "timestamp INTEGER, typeId INTEGER NOT NULL, metricId INTEGER NOT NULL, value INTEGER NOT NULL",
    "TARGET_INFO_GPU_METRICS": "typeId INTEGER NOT NULL, sourceId INTEGER NOT NULL, typeName TEXT NOT NULL, "
    "metricId INTEGER NOT NULL, metricName TEXT NOT NULL",
}
NAMES = {
    3: "SMs Active [Throughput %]", 8: "DRAM Read Bandwidth [Throughput %]", 9: "DRAM Write Bandwidth [Throughput %]",
}  # fmt: skip


def with_counters(case, samples, *, sources=(77,), names=NAMES):
    """The trace with samples ``(timestamp, metric, value)``."""
    with closing(sqlite3.connect(case.path)) as connection:
        for table, columns in DDL.items():
            connection.execute(f"CREATE TABLE {table} ({columns})")
        for source in sources:
            rows = [(source, 1, "GPU Metrics", metric, name) for metric, name in names.items()]
            connection.executemany("INSERT INTO TARGET_INFO_GPU_METRICS VALUES (?, ?, ?, ?, ?)", rows)
            rows = [(at, source, metric, value) for at, metric, value in samples]
            connection.executemany("INSERT INTO GPU_METRICS VALUES (?, ?, ?, ?)", rows)
        connection.commit()
    return open_trace(case.path)


@pytest.fixture
def bench(tmp_path):
    return synthesize(tmp_path, "bench-node", "--steps", "4")


def decode_steps(case):
    steady = case.truth["windows"]["steady"]["start_ns"]
    return [
        step for step in case.truth["steps"]
        if step["phase"] == "decode" and step["begin_ns"] >= steady and not step["last_of_request"]
    ]  # fmt: skip


def test_counters_within_the_steps_measured(bench):
    """60 and 80 % read within steps, 100 % outside of them, which does not count."""
    inside = [step["begin_ns"] + 5 for step in decode_steps(bench)][:2]
    outside = bench.truth["steps"][0]["begin_ns"] - 1_000
    samples = [(inside[0], 8, 60), (inside[0], 9, 4), (inside[1], 8, 80), (inside[1], 9, 2), (inside[1], 3, 99)]
    trace = with_counters(bench, [*samples, (outside, 8, 100)])
    assert trace.meta.sources["gpu_metrics"]
    found = limits(trace, load=ModelLoad(600_000_000, {}))
    assert (found.dram.samples, found.dram.read_share, found.dram.write_share) == (2, 0.7, 0.03)
    told = next(line for line in limit_sentences(found) if "counters" in line)
    assert told.startswith("The memory's own counters: 70.0 % read and 3.0 % written of its peak in these steps (2 sam")
    assert f"{0.7 / found.bandwidth_share:.2f} times what these steps have to read" in told


def test_in_the_document(bench):
    trace = with_counters(bench, [(decode_steps(bench)[0]["begin_ns"] + 5, 8, 50)])
    body = json.loads(json.dumps(document(analyze(trace, only=["limits"], load=ModelLoad(500, {})))))
    jsonschema.Draft202012Validator(json_schema()).validate(body)
    assert body["limits"]["dram"] == {"samples": 1, "read_share": 0.5, "write_share": None}


def test_counters_of_several_gpus_are_not_told_apart(bench):
    at = decode_steps(bench)[0]["begin_ns"] + 5
    trace = with_counters(bench, [(at, 8, 50)], sources=(77, 78))
    assert limits(trace, load=ModelLoad(500, {})).dram is None


@pytest.mark.parametrize(
    ("samples", "names"),
    [([], NAMES), ([(5, 8, 50)], NAMES), ([(5, 3, 50)], {3: "SMs Active [Throughput %]"}), ([(5, 8, 50)], {})],
    ids=["no samples", "outside of steps", "other counters", "no names"],
)
def test_nothing_of_the_memory(bench, samples, names):
    trace = with_counters(bench, samples, names=names)
    assert dram_use(trace, steps(trace).steps) is None


def test_not_collected(bench):
    assert dram_use(bench.trace, steps(bench.trace).steps) is None
