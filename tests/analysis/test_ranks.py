"""One run in several reports: a schedule split by GPU or process, its halves' clocks moved, is put together again."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from synthetic import Synthetic, synthesize
from tiny_trace import Row as TinyRow
from tiny_trace import api, fact, gpu, kernel, os_call, write_sqlite

from nsyskit.analysis.devices import devices
from nsyskit.analysis.ranks import ONE_MACHINE_NS, rank_names, ranks
from nsyskit.analysis.several_gpus import several_gpus
from nsyskit.analysis.windows import window_gpu
from nsyskit.cli import cli
from nsyskit.errors import MissingTableError, UsageError
from nsyskit.ingest import open_trace
from nsyskit.report.ranks import json_schema
from nsyskit.trace import Window

GPU_TABLES = ("CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_MEMCPY", "CUPTI_ACTIVITY_KIND_MEMSET")
TIMES = {"start", "end", "timestamp"}


def without(path: Path, condition: str, target: Path, *, later_ns: int = 0) -> Path:
    """A copy of a report without the GPU rows that meet a condition, of a session that began ``later_ns`` later."""
    shutil.copy(path, target)
    target.chmod(0o644)
    with closing(sqlite3.connect(target)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table in set(GPU_TABLES) & tables:
            connection.execute(f"DELETE FROM {table} WHERE {condition}")
        for table in tables:
            for column in {name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")} & TIMES:
                connection.execute(f"UPDATE {table} SET {column} = {column} - {later_ns}")
        connection.execute(f"UPDATE TARGET_INFO_SESSION_START_TIME SET utcEpochNs = utcEpochNs + {later_ns}")
        connection.commit()
    return target


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> tuple[Synthetic, list[Path]]:
    """One process with two GPUs, and a report of each; the second session began 123.456789 ms later."""
    folder = tmp_path_factory.mktemp("ranks")
    whole = synthesize(folder, "two-gpus-layer-split", "--seed", "4")
    parts = [
        without(whole.path, "deviceId = 1", folder / "rank0.sqlite"),
        without(whole.path, "deviceId = 0", folder / "rank1.sqlite", later_ns=123_456_789),
    ]
    return whole, parts


def test_the_alignment_is_recovered(split):
    whole, parts = split
    result = ranks([open_trace(part) for part in parts], window="gpu")
    assert [rank.shift_ns for rank in result.ranks] == [0, 123_456_789]
    known = several_gpus(whole.trace, window=result.window)
    assert result.busy_count.rows() == known.busy_count.rows()
    assert result.busy_sets.rows() == known.busy_sets.rows()
    assert result.busy_count["ns"].sum() == result.window.dur_ns
    assert result.waits.select("waiting", "other", "idle_ns").rows() == (
        known.waits.select("waiting", "other", "idle_ns").rows()
    )
    busy = {ledger.use.device: ledger.busy_ns for ledger in devices(whole.trace, window=result.window).devices}
    assert [rank.busy_ns for rank in result.ranks] == [busy[0], busy[1]]


def test_what_if_the_shift_were_ignored(split):
    """The same rows without the sessions' starts overlap otherwise: the test above can fail."""
    _whole, parts = split
    result = ranks([open_trace(part) for part in parts], window="gpu")
    other = open_trace(parts[1])
    raw = sum(ledger.busy_ns for ledger in devices(other, window=result.window).devices)
    assert raw != result.ranks[1].busy_ns


def test_the_window_is_what_all_cover(split):
    _whole, parts = split
    traces = [open_trace(part) for part in parts]
    result = ranks(traces, window="gpu")
    own = [window_gpu(trace) for trace in traces]
    assert result.window.start_ns == max(own[0].start_ns, own[1].start_ns + 123_456_789)
    assert result.window.end_ns == min(own[0].end_ns, own[1].end_ns + 123_456_789)
    explicit = ranks(traces, window=f"{result.window.start_ns}:{result.window.start_ns + 5_000_000}")
    assert explicit.window == Window("explicit", result.window.start_ns, result.window.start_ns + 5_000_000)
    assert sum(explicit.busy_sets["ns"]) == 5_000_000


def test_processes_of_their_own(tmp_path):
    """Two servers in one trace, then in a report each: ledgers with their causes stay as they were."""
    whole = synthesize(tmp_path, "two-processes")
    pids = sorted(ledger.use.pids[0] for ledger in devices(whole.trace).devices)
    parts = [
        without(whole.path, f"(globalPid >> 24) & 16777215 != {pids[0]}", tmp_path / "a.sqlite", later_ns=-7_001),
        without(whole.path, f"(globalPid >> 24) & 16777215 != {pids[1]}", tmp_path / "b.sqlite", later_ns=50_000_003),
    ]
    result = ranks([open_trace(part) for part in parts], window="gpu")
    in_whole = Window("gpu", result.window.start_ns - 7_001, result.window.end_ns - 7_001)
    known = {ledger.use.pids[0]: ledger for ledger in devices(whole.trace, window=in_whole).devices}
    for rank, pid in zip(result.ranks, pids, strict=True):
        (ledger,) = rank.ledgers
        assert (ledger.busy_ns, dict(ledger.idle)) == (known[pid].busy_ns, dict(known[pid].idle))


def report(folder: Path, name: str, *rows: TinyRow, start: int | None = 1_000, machine: str | None = None,
           uuid: str | None = None) -> Path:  # fmt: skip
    """A report of one kernel launch and more, with or without a session start, a machine's name, a GPU's uuid."""
    facts = [TinyRow("TARGET_INFO_SESSION_START_TIME", {"utcEpochNs": start})] if start is not None else []
    facts += [fact("DEVICE_DISPLAY_NAME", machine)] if machine else []
    facts += [gpu(0, "GPU", ordinal=0, uuid=uuid)] if uuid else []
    return write_sqlite(folder / name, *facts, *rows)


def working(start: int, end: int) -> tuple[TinyRow, ...]:
    return api("cudaLaunchKernel", 0, 1, corr=1), kernel("k", start, end, corr=1)


def test_by_hand(tmp_path):
    """The first works in [10, 30) of its clock; the second, 5 ns later begun, in [15, 45), which is [20, 50) there."""
    numbered = fact("PROCESS_0:ENVIRONMENT_VARIABLE", "OMPI_COMM_WORLD_RANK=3")
    one = report(tmp_path, "one.sqlite", *working(10, 30), numbered, machine="box")
    two = report(tmp_path, "two.sqlite", *working(15, 45), start=1_005, machine="box")
    result = ranks([open_trace(one), open_trace(two)], window="0:100")
    assert result.busy_count["ns"].to_list() == [60, 30, 10]
    assert result.waits.select("waiting", "other", "idle_ns").rows() == [(0, 1, 20), (1, 0, 10)]
    assert (result.clock, result.uncertainty_ns) == ("one machine", ONE_MACHINE_NS)
    assert result.waits["low_ns"].to_list() == [0, 0]  # ten microseconds move all of it out of the window
    assert [rank.number for rank in result.ranks] == [3, None]
    assert ranks([open_trace(one), open_trace(two)]).window == Window("gpu", 20, 30)


@pytest.mark.parametrize(
    ("machines", "uuids", "clock"),
    [
        (("a", "a"), (None, None), "one machine"),
        (("a", "b"), (None, None), "several machines"),
        (("a", None), (None, None), "unknown machines"),
        (("(hidden)", "(hidden)"), (None, None), "unknown machines"),
        (("container1", "container2"), ("u", "u"), "one machine"),
        (("a", "b"), ("u", "v"), "several machines"),
    ],
)
def test_where_they_ran(tmp_path, machines, uuids, clock):
    traces = [
        open_trace(report(tmp_path, f"{n}.sqlite", *working(10, 30), machine=machines[n], uuid=uuids[n]))
        for n in range(2)
    ]
    result = ranks(traces)
    assert result.clock == clock
    assert (result.uncertainty_ns is None) == (clock != "one machine")
    assert result.waits["high_ns"].null_count() == (0 if clock == "one machine" else 2)
    assert result.shared == ((("u", (0, 1)),) if uuids == ("u", "u") else ())


def test_what_cannot_be_put_together(tmp_path):
    good = open_trace(report(tmp_path, "good.sqlite", *working(10, 30)))
    with pytest.raises(UsageError, match="two or more"):
        ranks([good])
    with pytest.raises(MissingTableError, match="session start in old"):
        ranks([good, open_trace(report(tmp_path, "old.sqlite", *working(10, 30), start=None))])
    with pytest.raises(UsageError, match="no time in common"):
        ranks([good, open_trace(report(tmp_path, "later.sqlite", *working(10, 30), start=9_000))])
    with pytest.raises(MissingTableError, match="GPU work in idle"):
        ranks([good, open_trace(report(tmp_path, "idle.sqlite", os_call("poll", 0, 9)))])
    with pytest.raises(UsageError, match="not every report"):
        ranks([good, good], window="steady")


def test_the_command(split, tmp_path):
    _, parts = split
    told = CliRunner().invoke(cli, ["ranks", *map(str, parts), "--format", "json"])
    assert told.exit_code == 0, told.output
    document = json.loads(told.output)
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(document, json_schema())
    assert [rank["name"] for rank in document["ranks"]] == ["rank0.sqlite", "rank1.sqlite"]
    assert sum(row["ns"] for row in document["busy_count"]) == (
        document["window"]["end_ns"] - document["window"]["start_ns"]
    )
    text = CliRunner().invoke(cli, ["ranks", *map(str, parts)]).output
    assert "aligned by the sessions' start in UTC, to ±10.00 µs: one machine" in text
    assert "rank1.sqlite: busy" in text
    assert "its clock +123.5 ms" in text
    refused = CliRunner().invoke(cli, ["ranks", str(parts[0])])
    assert refused.exit_code == 2
    assert len(refused.output.splitlines()) == 1


def test_names_of_equal_files(tmp_path):
    paths = (tmp_path / "a" / "t.sqlite", tmp_path / "b" / "t.sqlite", tmp_path / "u.sqlite")
    assert rank_names(paths) == ["a/t.sqlite", "b/t.sqlite", "u.sqlite"]
    assert rank_names((paths[0], paths[0])) == ["a/t.sqlite (1)", "a/t.sqlite (2)"]
