"""A run folder's requests and GPU samples: from the files that the capture's own writers leave to the page.

No GPU took part: the NVML samples are stand-ins, in the format that ``capture`` writes.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from page_figures import figures_of
from served_run import MS, served_run
from tiny_trace import os_call, write_sqlite

from nsyskit.analysis.served import Spread, gpu_samples, served
from nsyskit.cli import cli
from nsyskit.errors import TraceFormatError
from nsyskit.ingest.beside import Beside, read_beside
from nsyskit.report.figures import figure


@pytest.fixture
def run(tmp_path) -> Path:
    folder = served_run(tmp_path / "run")
    write_sqlite(folder / "trace.sqlite", os_call("poll", 0, 8))
    return folder


def test_what_clients_saw(run):
    """First tokens after 5 and 3 ms; pieces 3, 5 and 2 ms apart; 20 and 10 ms in all, of which the server tells 5."""
    found = served(read_beside(run))
    assert found is not None
    assert found.spreads == {
        "first token": Spread(5 * MS, 5 * MS, 5 * MS, 5 * MS, 2),
        "between tokens": Spread(3 * MS, 5 * MS, 5 * MS, 5 * MS, 3),
        "request": Spread(20 * MS, 20 * MS, 20 * MS, 20 * MS, 2),
        "server tax": Spread(15 * MS, 15 * MS, 15 * MS, 15 * MS, 2),
    }
    assert (found.requests.height, found.failed, found.tokens, found.dur_ns) == (2, 1, 5, 20 * MS)
    assert found.tokens_per_s == 250
    assert found.requests["at_ns"].to_list() == [0, 10 * MS]
    assert found.parts.rows() == [("decode", 25 * MS, 2, 25 / 30), ("accept", 5 * MS, 1, 5 / 30)]
    assert found.slowest["index"].to_list() == [1, 2]


def test_what_the_gpus_counters_say(run):
    found = gpu_samples(read_beside(run))
    assert found is not None
    columns = ["gpu", "peak_bytes", "power_w", "temperature_c", "throttled_share", "samples"]
    assert found.peaks.select(columns).rows() == [
        (0, 3 * 10**9, 95.0, 53, 0.25, 4),
        (1, 6 * 10**9, 95.0, 53, 0.25, 4),
    ]
    assert found.samples["at_ns"].max() == 3 * MS
    drawn = figure(found)
    assert [trace.y for trace in drawn.data[:2]] == [(0, 1, 2, 3), (3, 4, 5, 6)]  # GB, a line a GPU


def test_a_run_without_them(tmp_path):
    assert read_beside(tmp_path) == Beside()
    assert (served(Beside()), gpu_samples(Beside())) == (None, None)
    failed = pl.DataFrame({"index": [1], "send_ns": [3], "failed": [True], "total_ns": [None]})
    assert served(Beside(requests=failed, tokens=failed, parts=failed)) is None


def test_a_damaged_file_is_named(run):
    (run / "requests.sqlite").write_bytes(b"no database at all, but long enough")
    with pytest.raises(TraceFormatError, match=r"requests\.sqlite of the run cannot be read"):
        read_beside(run)


def test_the_page_of_a_run_folder(run, tmp_path):
    target = tmp_path / "report.html"
    result = CliRunner().invoke(cli, ["report", str(run), "-o", str(target)])
    assert (result.exit_code, result.stderr) == (0, "")
    html = target.read_text(encoding="utf-8")
    for said in ("Time to first token", "2 whole requests, 1 failed, 5 tokens in 20.00 ms", "0 Stand-in", "3.000 GB"):
        assert said in html
    assert {"requests", "gpu_samples"} <= figures_of(html).keys()
    assert "hunter2" not in html  # what a server answered is not shown
    again = CliRunner().invoke(cli, ["report", str(run), "-o", str(target), "--force"])
    assert (again.exit_code, target.read_text(encoding="utf-8")) == (0, html)
