"""The run without nsys, as the untraced arm of ``--fused`` has it: no nsys is needed to test what surrounds it."""

import itertools
import json
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import sqlite_utils

from nsyskit.capture.address import free_port
from nsyskit.capture.build import build_config
from nsyskit.capture.capture import _clock_held, capture
from nsyskit.capture.clock import Clock
from nsyskit.capture.config import LoadConfig
from nsyskit.capture.group import arms_of, repeat
from nsyskit.capture.summary import summary_lines
from nsyskit.errors import OutputError, UsageError
from nsyskit.runfolder import load_run

from .conftest import program

LOAD = LoadConfig(requests=6, concurrency=2, max_tokens=4, prompt_tokens=8)


class Told:
    """A Ui that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[str] = []

    @contextmanager
    def stage(self, title):
        self.stages.append(title)
        yield lambda _share, _word: None

    def note(self, text):
        self.notes.append(text)


def config(tmp_path, words, *, kind="other", load=None, **options: object):
    built = build_config(words, kind=kind, folder=tmp_path / "run", load=load, nvml_hz=0.0, **options)
    return replace(built, profile=None)


def test_a_server(tmp_path):
    told = Told()
    words = program("quick_server.py", "--api-key", "sk-0123456789")
    outcome = capture(config(tmp_path, words, kind="server", load=LOAD), None, ui=told)
    assert (outcome.state, outcome.exit_code, outcome.message, outcome.notes) == ("complete", 0, "", ())
    assert told.stages == [
        "waiting for the server to load its model", "warming up", "driving the load", "ending the server",
        "waiting for nsys",
    ]  # fmt: skip
    assert outcome.summary["load"]["predicted_n"] == 24
    assert summary_lines(outcome.summary)[0].startswith("6 requests, 0 failed; ")
    facts = load_run(tmp_path / "run").facts
    assert facts["outcome"]["state"] == "complete"
    assert "sk-0123456789" not in json.dumps(facts)
    database = sqlite_utils.Database(tmp_path / "run" / "requests.sqlite")
    assert database["requests"].count == 8  # two of them warm-up
    assert database["tokens"].count == 32


def test_a_server_that_cannot_load_its_model(tmp_path):
    outcome = capture(config(tmp_path, program("crashing_program.py", 3), kind="server", load=LOAD), None)
    assert (outcome.state, outcome.exit_code) == ("failed", 3)
    assert "before it was healthy: error: out of memory" in outcome.message


def test_a_server_that_is_never_healthy(tmp_path):
    words = program("quick_server.py", "--never-healthy")
    outcome = capture(config(tmp_path, words, kind="server", load=LOAD, ready_timeout_s=0.5), None)
    assert (outcome.state, outcome.exit_code) == ("failed", 7)


def test_a_server_that_refuses_the_key(tmp_path):
    words = program("quick_server.py", "--api-key", "sk-0123456789")
    asked = config(tmp_path, words, kind="server", load=LOAD, api_key="sk-another-one")
    outcome = capture(asked, None)
    assert outcome.exit_code == 7
    assert "no warm-up request succeeded (HTTP 401: Invalid API Key)" in outcome.message
    assert (tmp_path / "run" / "requests.sqlite").exists()


def test_own_traffic_for_a_while(tmp_path):
    outcome = capture(config(tmp_path, program("quick_server.py"), kind="server", wait_s=0.3), None)
    assert outcome.state == "complete"
    times = load_run(tmp_path / "run").facts["times"]
    assert times["window_end_ns"] - times["window_begin_ns"] >= 300_000_000


@pytest.mark.parametrize(("code", "state"), [(0, "complete"), (5, "failed")])
def test_a_program(tmp_path, code, state):
    outcome = capture(config(tmp_path, program("crashing_program.py", code)), None)
    assert (outcome.state, outcome.exit_code, outcome.program_exit) == (state, code, code)


def test_the_output_of_a_benchmark(tmp_path):
    record = {"build_commit": "x", "n_prompt": 8, "n_gen": 0, "avg_ts": 5.0, "avg_ns": 3, "n_depth": 0}
    words = [sys.executable, "-c", f"print('''{json.dumps(record)}''')"]
    outcome = capture(config(tmp_path, words, kind="bench"), None)
    assert [number["label"] for number in outcome.summary["program"]] == ["pp8"]
    assert json.loads((tmp_path / "run" / "results.jsonl").read_text()) == record
    assert summary_lines(outcome.summary) == ["pp8: 5.00 tokens/s"]


def test_the_time_of_the_first_text(tmp_path):
    code = "import time; print('Hi', end='', flush=True); time.sleep(0.3); print(' you', flush=True)"
    words = [sys.executable, "-c", code, "-p", "Hi"]
    outcome = capture(config(tmp_path, words, kind="completion"), None)
    assert 300_000_000 <= outcome.summary["first_text_ns"] < 5_000_000_000
    assert (tmp_path / "run" / "program.out").read_text() == "Hi you\n"


@pytest.mark.parametrize("jump_s", [-3_600, 3_600])
@pytest.mark.parametrize("kind", ["server", "completion"])
def test_somebody_sets_the_clock(tmp_path, monkeypatch, jump_s, kind):
    """An hour to and fro at every look: all times of a run come from one steady clock, durations are what they were."""
    real, looks = time.time_ns, itertools.count()
    monkeypatch.setattr(time, "time_ns", lambda: real() + jump_s * 10**9 * next(looks))
    words = [sys.executable, "-c", "import time; print('Hi', flush=True); time.sleep(0.3); print('you')", "-p", "Hi"]
    served = kind == "server"
    begun = time.monotonic()
    outcome = capture(
        config(tmp_path, program("quick_server.py") if served else words, kind=kind, load=LOAD if served else None),
        None,
    )
    took_ns = (time.monotonic() - begun) * 1e9
    times = list(load_run(tmp_path / "run").facts["times"].values())
    assert times == sorted(times)
    assert times[-1] - times[0] < took_ns
    summary = outcome.summary
    spans = [summary["load"]["total_ns"]["p99"], summary["load"]["dur_ns"]] if served else [summary["first_text_ns"]]
    assert all(0 < span < took_ns for span in spans)
    if served:
        rows = sqlite_utils.Database(tmp_path / "run" / "requests.sqlite")["requests"].rows
        assert all(times[0] <= row["send_ns"] <= row["end_ns"] <= times[-1] for row in rows)


def test_a_clock_that_was_set_ties_no_request_to_a_trace(tmp_path):
    told = Told()
    run = SimpleNamespace(clock=Clock(), note=told.note)
    assert _clock_held(run)
    run.clock = replace(run.clock, unix_ns=run.clock.unix_ns - 2_000_000_000)
    assert not _clock_held(run)
    assert told.notes == ["the machine's clock was set by +2.000 s meanwhile: requests are not tied to the trace"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption(tmp_path, number):
    def interrupt() -> None:
        time.sleep(0.5)
        signal.pthread_kill(threading.main_thread().ident, number)

    threading.Thread(target=interrupt).start()
    outcome = capture(config(tmp_path, program("busy_program.py", 60)), None)
    assert (outcome.state, outcome.exit_code) == ("interrupted", 128 + number)


def test_what_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(UsageError):
        capture(config(tmp_path, ["no-such-program"]), None)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    with pytest.raises(OutputError, match="is not empty"):
        capture(config(tmp_path, ["true"]), None)


def test_the_arms_of_a_fused_capture(tmp_path):
    arms = arms_of(config(tmp_path, ["true"]), fused=True, times=1)
    assert [(arm.folder.name, arm.profile and arm.profile.name) for arm in arms] == [
        ("untraced", None), ("graph", "spans"), ("node", "kernels"),
    ]  # fmt: skip
    assert len({arm.session for arm in arms}) == 3


def test_a_program_beside(tmp_path):
    beside = program("quick_server.py", "--port", free_port("127.0.0.1"))
    outcome = capture(config(tmp_path, program("busy_program.py", 0.1), beside=[beside]), None)
    assert (outcome.state, outcome.notes) == ("complete", ())
    assert [arm.state for arm in load_run(tmp_path / "run").arms] == ["complete"]


def test_a_program_beside_that_ends(tmp_path):
    outcome = capture(config(tmp_path, ["true"], beside=[program("crashing_program.py", 4)]), None)
    assert outcome.exit_code == 7
    assert "ended with exit code 4: error: out of memory" in outcome.message


@pytest.mark.parametrize(("code", "runs"), [(0, ["run-1", "run-2"]), (5, ["run-1"])])
def test_a_series_ends_with_its_first_failure(tmp_path, code, runs):
    outcome = repeat(config(tmp_path, program("crashing_program.py", code)), None, times=2)
    assert outcome.exit_code == code
    whole = load_run(tmp_path / "run")
    assert whole.facts["kind"] == "repeat"
    assert [arm.path.name for arm in whole.arms] == runs
