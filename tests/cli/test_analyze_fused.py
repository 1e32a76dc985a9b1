"""A fused run folder: times from the graph-level trace, the split of kernels from the node-level one."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from synthetic import synthesize

from nsyskit import open_trace
from nsyskit.analysis.analyze import analyze
from nsyskit.cli import cli


@pytest.fixture
def fused(tmp_path) -> Path:
    run = tmp_path / "run"
    for arm, preset in (("graph", "bench-graph"), ("node", "bench-node")):
        folder = run / arm
        folder.mkdir(parents=True)
        shutil.copy(synthesize(tmp_path / preset, preset).path, folder / "trace.sqlite")
        (folder / "run.json").write_text(json.dumps({"schema": "nsyskit.run/1"}))
    (run / "run.json").write_text(json.dumps({"schema": "nsyskit.run/1", "arms": ["graph", "node"]}))
    return run


def test_shares_come_from_the_node_level_trace(fused):
    graph, node = (open_trace(fused / arm / "trace.sqlite") for arm in ("graph", "node"))
    whole, inside = analyze(graph).sections, analyze(node).sections
    result = CliRunner().invoke(cli, ["analyze", str(fused), "--format", "json"])
    document = json.loads(result.stdout)
    assert document["devices"][0]["busy_ns"] == whole["devices"].devices[0].busy_ns
    assert document["devices"][0]["graph_ns"] > 0
    categories = dict(inside["category_sum"].rows.select("category", "total_ns").iter_rows())
    assert {row["category"]: row["total_ns"] for row in document["category_sum"]} == categories
    assert "fused" in {note["code"] for note in document["trust"]}


def test_a_plain_trace_has_no_shares_of_its_own(fused):
    result = CliRunner().invoke(cli, ["analyze", str(fused / "graph"), "--format", "json", "-a", "hotspots"])
    document = json.loads(result.stdout)
    assert "fused" not in {note["code"] for note in document["trust"]}
