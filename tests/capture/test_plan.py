"""From a command line to the commands that are run: additions, addresses, keys, goldens."""

from datetime import datetime
from pathlib import Path

import pytest

from nsyskit.capture.address import server_address
from nsyskit.capture.build import build_config
from nsyskit.capture.config import LoadConfig, complete_program, default_folder, move_keys, program_kind
from nsyskit.capture.plan import build_plan, profile_argv, shell_lines, start_argv
from nsyskit.capture.profiles import PROFILES, check_profile
from nsyskit.errors import UsageError
from nsyskit.nsys import Nsys

OLD = Nsys(Path("/opt/nsys/bin/nsys"), (2023, 4, 4), "2023.4.4")
NEW = Nsys(Path("/opt/nsys/bin/nsys"), (2025, 3, 1), "2025.3.1")
LAUNCH = frozenset({"--trace", "--cuda-graph-trace", "--cuda-flush-interval", "--osrt-threshold", "--wait"})
EVERY = LAUNCH | {"--sample", "--cpuctxsw", "--osrt-backtrace-threshold", "--gpu-metrics-device"}


@pytest.fixture(autouse=True)
def known_options(monkeypatch):
    """What nsys says in its help, without an nsys."""
    monkeypatch.setattr("nsyskit.capture.plan.options", lambda _nsys, command: LAUNCH if command == "launch" else EVERY)
    monkeypatch.setattr("nsyskit.capture.profiles.options", lambda _nsys, _command: EVERY)


def config(words, **options: object):
    return build_config(words, environment={}, folder=Path("/runs/a"), session="s1", **options)


SERVER_PLAN = """\
# the API keys, one a line, into /tmp/s1.keys, only for this user
# the server, ready to be captured
/opt/nsys/bin/nsys launch --session-new=s1 --trace=cuda,nvtx,osrt --cuda-graph-trace=node \
--cuda-flush-interval=10000 llama-server -m 'my model.gguf' --port 8080 --api-key-file /tmp/s1.keys &
# wait until GET http://127.0.0.1:8080/health answers 200, at most 300 s
# warm up: 2 requests
# the window begins
/opt/nsys/bin/nsys start --session=s1 --output=/runs/a/trace --force-overwrite=true --sample=none --cpuctxsw=none
# load: 8 requests, 4 at a time, prompts of about 128 tokens, 64 new tokens each, POST http://127.0.0.1:8080/completion
# the window ends; the server goes on
/opt/nsys/bin/nsys stop --session=s1
# SIGTERM to the server, SIGKILL after 20 s; if the session is left over:
/opt/nsys/bin/nsys shutdown --session=s1 --kill=sigkill
# export
/opt/nsys/bin/nsys export --type=sqlite --force-overwrite=true --output=/runs/a/trace.sqlite /runs/a/trace.nsys-rep"""


def test_the_plan_of_a_server():
    words = ["llama-server", "-m", "my model.gguf", "--port", "8080", "--api-key", "sk-secret"]
    assert shell_lines(build_plan(config(words, load=LoadConfig(concurrency=4)), NEW)) == SERVER_PLAN


def test_the_plan_of_a_benchmark():
    plan = build_plan(config(["llama-bench", "-m", "a.gguf"], profile="spans"), NEW)
    assert [step.purpose for step in plan] == ["run under nsys", "export"]
    assert plan[0].argv == (
        "/opt/nsys/bin/nsys", "profile", "--session-new=s1", "--output=/runs/a/trace", "--force-overwrite=true",
        "--trace=cuda,nvtx,osrt", "--cuda-graph-trace=graph", "--cuda-flush-interval=10000",
        "--sample=none", "--cpuctxsw=none", "llama-bench", "-m", "a.gguf", "-o", "jsonl",
    )  # fmt: skip


def test_without_load_the_plan_waits():
    plan = build_plan(config(["llama-server", "--port", "8080"], wait_s=5), NEW)
    assert "wait for your own traffic on http://127.0.0.1:8080 for 5 s" in [step.purpose for step in plan]


def test_own_options_of_nsys_replace_those_of_the_profile_and_find_their_command():
    asked = config(["llama-server", "--port", "1"], nsys_args=("--trace=cuda", "--gpu-metrics-device=all"))
    plan = build_plan(asked, NEW)
    assert "--trace=cuda" in plan[0].argv
    assert "--trace=cuda,nvtx,osrt" not in plan[0].argv
    assert "--gpu-metrics-device=all" not in plan[0].argv
    assert "--gpu-metrics-device=all" in start_argv(asked, NEW)


def test_percent_signs_in_a_folder_are_no_placeholders_of_nsys():
    asked = build_config(["true"], environment={}, folder=Path("/runs/100%p"), session="s1")
    assert "--output=/runs/100%%p/trace" in profile_argv(asked, NEW)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["llama-server"], "server"),
        (["/opt/llama/bin/llama-bench", "-m", "x"], "bench"),
        (["numactl", "-N", "0", "llama-server", "-m", "x"], "server"),
        (["env", "A=1", "taskset", "-c", "0", "/b/llama-cli"], "cli"),
        (["python3", "llama-server"], "other"),
        (["./llama-completion"], "completion"),
        (["rpc-server"], "rpc"),
    ],
)
def test_the_kind_of_a_program(words, kind):
    assert program_kind(words) == kind


@pytest.mark.parametrize(
    ("words", "added"),
    [
        (["llama-bench"], ("-o", "jsonl")),
        (["llama-bench", "-o", "md"], ()),
        (["llama-bench", "--output", "csv"], ()),
        (["llama-batched-bench"], ("--output-format", "jsonl")),
        (["llama-cli"], ()),
    ],
)
def test_a_format_is_added_where_none_was_chosen(words, added):
    completed, address = complete_program(words, program_kind(words), {})
    assert completed == (*words, *added)
    assert address is None


@pytest.mark.parametrize(
    ("words", "environment", "url"),
    [
        (["--port", "81"], {}, "http://127.0.0.1:81"),
        (["--host", "localhost", "--port", "81"], {}, "http://127.0.0.1:81"),
        (["--host", "::1", "--port", "81"], {}, "http://[::1]:81"),
        (["--port", "81", "--port", "82"], {}, "http://127.0.0.1:82"),
        ([], {"LLAMA_ARG_PORT": "83", "LLAMA_ARG_API_PREFIX": "/x/"}, "http://127.0.0.1:83/x"),
        (["--port", "84", "--ssl-key-file", "k"], {}, "https://127.0.0.1:84"),
    ],
)
def test_the_address_of_a_server(words, environment, url):
    address, named = server_address(["llama-server", *words], environment)
    assert (address.url, named) == (url, True)


def test_a_server_without_a_port_gets_a_free_one():
    words, address = complete_program(["llama-server", "-m", "x"], "server", {})
    assert words == ("llama-server", "-m", "x", "--port", str(address.port))


@pytest.mark.parametrize("words", [["--port", "x"], ["--port", "70000"], ["--host", "/tmp/a.sock"]])
def test_an_address_that_cannot_be_used(words):
    with pytest.raises(UsageError):
        server_address(["llama-server", *words], {})


def test_keys_leave_the_command_line():
    file = Path("/tmp/k")
    assert move_keys(["s", "--api-key", "a,b", "-c", "1"], {}, file) == (
        ("s", "-c", "1", "--api-key-file", "/tmp/k"),
        ("a", "b"),
    )
    assert move_keys(["s", "--api-key=a"], {}, file)[1] == ("a",)
    assert move_keys(["s"], {"LLAMA_API_KEY": "c"}, file)[1] == ("c",)
    assert move_keys(["s"], {}, file) == (("s",), ())


def test_a_key_is_in_no_text_of_the_config():
    asked = config(["llama-server", "--port", "1", "--api-key", "sk-secret"])
    assert "sk-secret" not in repr(asked)
    assert asked.address.api_key == "sk-secret"


def test_the_default_folder():
    now = datetime(2026, 5, 8, 3, 5, 8)  # noqa: DTZ001  any time will do
    folder = default_folder(["/b/llama-bench", "-m", "/m/Tiny Llama.Q4_K.gguf"], now)
    assert folder == Path("nsyskit-runs/20260508-030508-llama-bench-Tiny-Llama.Q4_K")


@pytest.mark.parametrize("name", ["spans", "light"])
def test_a_profile_that_this_nsys_cannot_deliver_is_refused(name):
    with pytest.raises(UsageError, match=r"needs whole-graph rows, and nsys 2023\.4\.4 cannot export them"):
        check_profile(PROFILES[name], OLD, {})
    check_profile(PROFILES[name], OLD, {"GGML_CUDA_DISABLE_GRAPHS": "1"})
    check_profile(PROFILES[name], NEW, {})


def test_an_option_that_this_nsys_does_not_know_is_refused(monkeypatch):
    monkeypatch.setattr("nsyskit.capture.profiles.options", lambda *_: EVERY - {"--cuda-graph-trace"})
    with pytest.raises(UsageError, match="does not know --cuda-graph-trace"):
        check_profile(PROFILES["kernels"], OLD, {})


def test_what_a_profile_costs_is_not_made_up():
    assert {profile.slowdown for profile in PROFILES.values()} == {"not measured"}
