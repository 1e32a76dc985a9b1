"""A part is what its trace says, and nothing of where or when it was made."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest
from fleets import TINY, broken, copied, trace

from nsyskit.analysis.devices import devices
from nsyskit.compare.sample import sample_run
from nsyskit.errors import OutputError
from nsyskit.fleet.content import Stamp, content_hash, fingerprint, stamp
from nsyskit.fleet.part import BIN_WIDTH, bin_middle, make_part, step_bin
from nsyskit.fleet.store import Store
from nsyskit.fleet.task import Outcome, Task, run_task
from nsyskit.ingest import open_trace


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return trace(tmp_path_factory.mktemp("small") / "trace.sqlite", 1, preset=TINY, host="gpubox", rank=3)


def test_numbers_are_those_of_the_analyses(small):
    opened = open_trace(small)
    part, sample, gpu = make_part(opened), sample_run(opened), devices(opened).devices[0]
    metrics = part.facts["metrics"]
    decode = sample.phases["decode"].steps
    assert metrics["decode.ms_per_step"] == [decode["ms_per_token"].sum() / decode.height / 1e6, "ms"]
    assert metrics["gpu.busy_share"] == [gpu.busy_ns / gpu.window_ns, "share"]
    ledger = {name: total for kind, _, name, _, total in part.rows.iter_rows() if kind == "device"}
    assert sum(ledger.values()) == gpu.window_ns
    tokens = part.rows.filter(kind="tokens", scope="decode")
    assert tokens["total_ns"].sum() == decode["ms_per_token"].sum()
    assert part.rows.filter(kind="steps", scope="decode")["count"].sum() == decode.height
    assert part.rows.filter(kind="kernel")["count"].sum() == opened.kernels.collect().height
    assert part.facts["rank"] == 3
    assert "gpubox" not in json.dumps(part.facts)


@pytest.mark.parametrize("ns", [1.0, 500.0, 487_954.7, 3e9])
def test_bins_are_one_percent_wide(ns):
    assert bin_middle(step_bin(ns)) == pytest.approx(ns, rel=BIN_WIDTH - 1)


def test_a_task_says_what_it_read(small, tmp_path):
    outcome = run_task(Task("t", str(small), host_key="00" * 32), tmp_path)
    assert outcome.error is None
    assert outcome.content == content_hash(small)
    assert len(outcome.facts["hosts"]) == 1
    assert outcome.facts["hosts"][0] != "gpubox"
    assert Outcome.from_plain(json.loads(json.dumps(outcome.plain()))) == outcome
    again = run_task(Task("t", str(small), host_key="00" * 32, known=(outcome.key,)), tmp_path)
    assert (again.key, again.facts) == (outcome.key, None)
    assert run_task(Task("t", str(small), names=True), tmp_path).facts["hosts"] == ["gpubox"]


def test_what_is_no_trace_is_said_in_a_line(small, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    files = broken(tmp_path / "home" / "mallory", small) | {"gone": tmp_path / "home" / "mallory" / "gone.sqlite"}
    for name, path in files.items():
        outcome = run_task(Task(f"x/{name}.sqlite", str(path)), scratch)
        assert outcome.error.startswith(f"x/{name}.sqlite ")
        assert "mallory" not in outcome.error
        assert "; " in outcome.error
        assert (outcome.fault, outcome.facts) == (False, None)


def test_a_fault_of_ours_stops_nobody(small, tmp_path, monkeypatch):
    def fails(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError("in the middle")

    monkeypatch.setattr("nsyskit.fleet.task.make_part", fails)
    outcome = run_task(Task("a.sqlite", str(small)), tmp_path)
    assert outcome.fault
    assert "ZeroDivisionError: in the middle" in outcome.error


def test_content_is_the_bytes_wherever_they_lie(small, tmp_path):
    other = copied(small, tmp_path / "elsewhere" / "called.sqlite")
    folder = tmp_path / "run"
    copied(small, folder / "trace.sqlite")
    (folder / "run.json").write_text('{"schema": "nsyskit.run/1", "outcome": {"state": "complete"}}')
    assert content_hash(small) == content_hash(other) == content_hash(folder)
    assert fingerprint(str(small), stamp(str(small))) == fingerprint(str(other), stamp(str(other)))
    assert stamp(str(small)) != stamp(str(other))
    own = stamp(str(other))
    with other.open("ab") as file:
        file.write(b"x")
    assert stamp(str(other)).key != own.key
    assert content_hash(other) != content_hash(small)
    assert stamp(str(tmp_path / "gone")) == Stamp("", -1, ())


def test_parquet_exports_are_hashed_as_a_whole(tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    pl.DataFrame({"id": [1], "value": ["a"]}).write_parquet(folder / "StringIds.parquet")
    first = content_hash(folder)
    shutil.copytree(folder, tmp_path / "q")
    assert content_hash(tmp_path / "q") == first
    (folder / "StringIds.parquet").rename(folder / "NVTX_EVENTS.parquet")
    assert content_hash(folder) != first


def test_traces_behind_a_url(small, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/far/a.sqlite", small.read_bytes())
    known = stamp("memory://far/a.sqlite")
    assert (known.size, known.members) == (small.stat().st_size, ("",))
    assert fingerprint("memory://far/a.sqlite", known) == fingerprint(str(small), stamp(str(small)))
    far = run_task(Task("a.sqlite", "memory://far/a.sqlite", members=("",)), tmp_path)
    assert far == run_task(Task("a.sqlite", str(small)), tmp_path)
    assert list(tmp_path.iterdir()) == []
    gone = run_task(Task("b.sqlite", "memory://far/b.sqlite"), tmp_path)
    assert "cannot be fetched" in gone.error


def test_a_damaged_part_is_made_again(small, tmp_path):
    store = Store(tmp_path / "out")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    outcome = run_task(Task("t", str(small)), scratch)
    store.put(outcome, stamp(str(small)))
    store.close()
    store = Store(tmp_path / "out")
    assert store.known(stamp(str(small))).key == outcome.key
    assert store.keys_of_size() == {small.stat().st_size: {outcome.key}}
    (rows,) = (tmp_path / "out").rglob("??/*.parquet")
    rows.write_bytes(rows.read_bytes()[:-1])
    assert store.load(outcome.key) is None
    assert store.known(stamp(str(small))) is None


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(OutputError, match="holds other things"):
        Store(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        Store(tmp_path / "file")
    Store(tmp_path / "new").close()
    (tmp_path / "new" / "parts" / "FORMAT").write_text("something else")
    with pytest.raises(OutputError, match="another version"):
        Store(tmp_path / "new")


def test_an_index_that_was_cut_off_costs_only_a_reading(small, tmp_path):
    store = Store(tmp_path / "out")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    store.put(run_task(Task("t", str(small)), scratch), stamp(str(small)))
    index = tmp_path / "out" / "parts" / "index.jsonl"
    index.write_text(index.read_text()[:40])
    assert Store(tmp_path / "out").known(stamp(str(small))) is None
