"""What a trace is looked at for after its capture, on traces of a few rows; and what nsys's words mean."""

import time
from types import SimpleNamespace

import polars as pl
import pytest

from nsyskit.capture import disk
from nsyskit.capture.gpubounds import gpu_bounds
from nsyskit.capture.load import Request
from nsyskit.capture.run import last_errors, launch_error, missing_rep, nsys_stumbled
from nsyskit.capture.tax import GpuBounds
from nsyskit.capture.verify import verify, verify_file
from nsyskit.errors import OutputError
from nsyskit.nsys import Nsys
from nsyskit.runfolder import RunFolder
from nsyskit.schema import TABLES, empty, polars_schema
from nsyskit.trace import CaptureFacts, Trace, TraceMeta

SECOND = 1_000_000_000


def trace(start_ns=None, **rows: list[dict]):
    tables = {name: empty(name).lazy() for name in TABLES}
    for name, given in rows.items():
        schema = polars_schema(name)
        tables[name] = pl.DataFrame([dict.fromkeys(schema) | row for row in given], schema=schema).lazy()
    return Trace(TraceMeta("a", "sqlite", capture=CaptureFacts(session_start_utc_ns=start_ns)), tables)


def span(start, end, **more: object):
    return {"start_ns": start, "end_ns": end, **more}


def test_a_trace_without_events():
    found = verify(trace(), gpu=False, window_ns=None)
    assert found.first_ns is None
    assert found.notes == ("the trace holds no events at all: nothing was traced in the window",)


def test_os_runtime_rows_do_without_a_gpu():
    found = verify(trace(os_calls=[span(1, 3 * SECOND)]), gpu=False, window_ns=3 * SECOND)
    assert (found.rows["os_calls"], found.first_ns, found.last_ns, found.notes) == (1, 1, 3 * SECOND, ())


def test_a_window_that_was_lost():
    found = verify(trace(os_calls=[span(0, SECOND)]), gpu=False, window_ns=5 * SECOND)
    assert found.notes == ("the events span 1.00 s of a window of 5.00 s",)


def test_cuda_calls_without_kernels():
    found = verify(trace(api_calls=[span(0, 5)]), gpu=True, window_ns=None)
    assert found.notes == ("CUDA calls but no kernels and no graph rows in the trace: see nsyskit doctor",)
    assert "no CUDA calls in the trace" in verify(trace(os_calls=[span(0, 5)]), gpu=True, window_ns=None).notes[0]


def test_an_export_that_cannot_be_read(tmp_path):
    (tmp_path / "a.sqlite").write_bytes(b"SQLite format 3\0 but no more")
    opened, found = verify_file(tmp_path / "a.sqlite", gpu=False, window_ns=None)
    assert opened is None
    assert "cannot be read" in found.notes[0]


def test_first_upload_and_last_sync_of_requests_that_were_alone():
    # the trace began at 1000; uploads at 3 and 13, syncs end at 8 and 18, a launch at 19
    made = trace(
        1000,
        memcpys=[span(3, 4, label="HtoD"), span(5, 6, label="DtoH"), span(13, 14, label="HtoD")],
        api_calls=[span(6, 8, name_id=1), span(16, 18, name_id=1), span(18, 19, name_id=2)],
        strings=[
            {"string_id": 1, "value": "cudaStreamSynchronize"}, {"string_id": 2, "value": "cudaLaunchKernel_v7000"},
        ],
    )  # fmt: skip
    requests = [Request(index=5, send_ns=1001, end_ns=1009), Request(index=8, send_ns=1011, end_ns=1020)]
    assert gpu_bounds(made, requests) == {5: GpuBounds(1003, 1008), 8: GpuBounds(1013, 1018)}
    together = [Request(index=5, send_ns=1001, end_ns=1012), requests[1]]
    assert gpu_bounds(made, together) == {}
    assert gpu_bounds(trace(None), requests) == {}


@pytest.fixture
def run(tmp_path):
    """As much of a run as reading its logs needs."""
    nsys = Nsys(tmp_path / "target" / "nsys", (2022, 4), "2022.4")
    config = SimpleNamespace(session="s1", program=("prog",))
    made = SimpleNamespace(nsys=nsys, config=config, folder=RunFolder(tmp_path))
    for log in made.folder.logs:
        log.touch()
    return made


def test_the_errors_in_a_log(run):
    log = run.folder.program_err
    log.write_text("loading\nerror: no memory\nfailed to load\nbye\n")
    assert last_errors(log) == "error: no memory | failed to load"
    log.write_text("one\ntwo\n")
    assert last_errors(log) == "two"
    assert last_errors(log.with_name("absent")) == ""


def test_nsys_that_stumbles(run):
    assert not nsys_stumbled(run)
    run.folder.program_err.write_text("/b/QuadD/x.cpp(1): Throw in function X\n[boost::errinfo_errno_*] = 2\n")
    assert nsys_stumbled(run)
    run.folder.program_out.write_text("the program's own words\n")
    assert not nsys_stumbled(run)


def test_what_nsys_says_of_a_launch(run):
    assert launch_error(run) is None
    run.folder.program_err.write_text("Process launch is not allowed in this state.\n")
    assert "nsys shutdown --session=s1" in str(launch_error(run))
    run.folder.program_err.write_text("Program not found: prog\n")
    assert "prog was not found by nsys" in str(launch_error(run))


def test_why_there_is_no_rep_file(run, monkeypatch):
    assert "mend it with" in str(missing_rep(run, "Importer error status: The importer binary was not found."))
    monkeypatch.setattr("nsyskit.capture.run.full_folder", lambda *_: run.folder.path)
    assert isinstance(missing_rep(run, ""), OutputError)


def test_a_disk_that_stays_full(tmp_path, monkeypatch):
    watch = disk.DiskWatch(tmp_path)
    watch()
    now = [time.monotonic() + 10]
    monkeypatch.setattr(disk.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    watch()
    now[0] += 2
    watch()
    now[0] += 2
    with pytest.raises(OutputError, match="the disk is full"):
        watch()
    assert watch.found_full
