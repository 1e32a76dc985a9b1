"""The history in the real Datasette, where one is installed: its tables, their links, and SQL over them."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from nsyskit.history.history import Cell, History, StoredRun

DATASETTE = os.environ.get("NSYSKIT_DATASETTE") or shutil.which("datasette")


@pytest.fixture
def served(tmp_path):
    """A history of two runs and a sweep, and the address under which Datasette shows it."""
    if DATASETTE is None:
        pytest.skip("no datasette on the PATH and none named by NSYSKIT_DATASETTE")
    with History(tmp_path / "h.sqlite") as history:
        for build, value in (("1 (a)", 2.0), ("2 (b)", 3.0)):
            history.add(StoredRun(name="run", added="t", build=build, metrics={"decode.ms_per_token": (value, "ms")},
                                  steps={"decode": b"\x00"}, tags=("main",)))  # fmt: skip
        history.put_cell(Cell("s", "k", {"n_threads": "1"}, "done", "t", results=({"label": "tg8", "n_gen": 8},)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [DATASETTE, "serve", tmp_path / "h.sqlite", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}/h"
    finally:
        process.terminate()
        process.wait(10)


def fetch(address: str):
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - this machine's own server
                return json.load(answer)
        except urllib.error.URLError as error:
            if isinstance(error, urllib.error.HTTPError) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_tables_links_and_sql(served):
    tables = {one["name"]: one for one in fetch(f"{served}.json")["tables"] if not one["hidden"]}
    assert set(tables) == {"runs", "metrics", "steps", "tags", "cells", "results"}
    assert {name: one["count"] for name, one in tables.items()} == {
        "runs": 2, "metrics": 2, "steps": 2, "tags": 2, "cells": 1, "results": 1,
    }  # fmt: skip
    incoming = {key["other_table"] for key in tables["runs"]["foreign_keys"]["incoming"]}
    assert incoming == {"metrics", "steps", "tags"}
    sql = "select build, value from metrics join runs on runs.id = run where metrics.name = 'decode.ms_per_token'"
    query = urllib.parse.urlencode({"sql": sql, "_shape": "arrays"})
    assert fetch(f"{served}.json?{query}")["rows"] == [["1 (a)", 2.0], ["2 (b)", 3.0]]
