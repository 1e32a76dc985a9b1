"""The rule of exit codes."""

import signal

import pytest

from nsyskit.capture.facts import parse_build
from nsyskit.capture.group import distortion
from nsyskit.capture.outcome import Outcome, exit_code, program_code
from nsyskit.capture.program import prompt_echo
from nsyskit.errors import CaptureError, NsysError, OutputError


@pytest.mark.parametrize(
    ("returncode", "ended_by_us", "code"),
    [
        (0, False, 0),
        (7, False, 7),
        (-signal.SIGSEGV, False, 139),
        (143, False, 143),
        (143, True, 0),
        (-signal.SIGKILL, True, 0),
        (9, True, 9),
        (139, True, 139),
    ],
)
def test_the_programs_code(returncode, ended_by_us, code):
    assert program_code(returncode, ended_by_us=ended_by_us) == code


@pytest.mark.parametrize(
    ("interrupted", "program", "error", "code"),
    [
        (None, 0, None, 0),
        (None, None, None, 0),
        (signal.SIGINT, 7, NsysError("x"), 130),
        (signal.SIGTERM, None, None, 143),
        (None, 7, NsysError("x"), 7),
        (None, 0, NsysError("x"), 5),
        (None, None, CaptureError("x"), 7),
        (None, 0, OutputError("x"), 6),
    ],
)
def test_the_rule(interrupted, program, error, code):
    assert exit_code(interrupted=interrupted, program=program, error=error) == code


def test_what_tracing_did_to_the_speed(tmp_path):
    def arm(rate: float) -> Outcome:
        program = [{"label": "tg8", "tokens_per_s": rate}]
        return Outcome(state="complete", folder=tmp_path, exit_code=0, summary={"program": program})

    told = distortion({"untraced": arm(10.0), "graph": arm(9.0), "node": arm(5.0)})
    assert told["traced_against_untraced"] == {"graph": {"tg8": 0.9}, "node": {"tg8": 0.5}}


@pytest.mark.parametrize(
    ("text", "number", "commit"),
    [
        ("version: 0.7.0 (build 11669, commit Debian)\nbuilt with GNU", 11669, "Debian"),
        ("ggml_cuda_init: found 1\nversion: 4689 (90e4dba4)\n", 4689, "90e4dba4"),
        ("version: unknown\n", None, None),
    ],
)
def test_builds(text, number, commit):
    build = parse_build(text)
    assert (build["build_number"], build["build_commit"]) == (number, commit)
    assert parse_build("nothing") is None


def test_what_stands_before_the_first_token():
    assert prompt_echo(["llama-completion", "-p", "Hi "], "completion") == b"Hi"
    assert prompt_echo(["llama-completion", "-p", "Hi", "--no-display-prompt"], "completion") == b""
    assert prompt_echo(["llama-cli", "-p", "Hi"], "cli") == b"> Hi"
    assert prompt_echo(["llama-cli"], "cli") is None
