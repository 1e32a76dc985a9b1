"""The load generator against a server that poses as llama-server, and its prompts."""

import json
import subprocess
import time
import urllib.request
from itertools import pairwise

import pytest

from nsyskit.capture.address import Address, check_port_free, free_port, listens
from nsyskit.capture.config import LoadConfig
from nsyskit.capture.endpoints import parse_metrics, parse_slots
from nsyskit.capture.load import Load, Request, error_text, has_text, request_body
from nsyskit.capture.prompts import MadeUp, read_prompts, words
from nsyskit.capture.summary import load_summary
from nsyskit.errors import CaptureError, UsageError

from .conftest import program


@pytest.fixture
def server():
    started = []

    def start(*arguments: object) -> tuple[Address, subprocess.Popen]:
        address = Address("127.0.0.1", free_port("127.0.0.1"))
        process = subprocess.Popen(program("quick_server.py", "--port", address.port, *arguments))
        started.append(process)
        for _ in range(100):
            if answers(address):
                return address, process
            time.sleep(0.05)
        raise AssertionError("the server does not answer")

    yield start
    for process in started:
        process.kill()
        process.wait()


def answers(address):
    try:
        return urllib.request.urlopen(f"{address.url}/health", timeout=1).read()  # noqa: S310  own server
    except OSError:
        return None


def drive(address, **options: object):
    load = Load(address, LoadConfig(max_tokens=3, prompt_tokens=8, **options))
    load.prepare()
    load.warm_up()
    load.run()
    return load


def test_a_closed_loop(server):
    address, _ = server()
    load = drive(address, requests=5, concurrency=2, warmup=1)
    assert [request.warmup for request in load.requests].count(True) == 1
    assert sorted(request.index for request in load.requests) == [0, 1, 2, 3, 4, 5]
    for request in load.requests:
        assert request.error is None
        assert len(request.token_ns) == 3
        assert request.send_ns < request.first_byte_ns <= request.first_token_ns < request.end_ns
        assert request.ttft_ns > 2_000_000  # a token takes 2 ms
        assert request.end_ns - request.send_ns > 6_000_000  # whoever reads late sees two at once
        assert request.prompt_n == 8  # the tokenizer makes one token of a character
    summary = load_summary(load.requests, (), None)
    assert (summary["requests"], summary["failed"], summary["predicted_n"]) == (5, 0, 15)


def test_an_open_loop_keeps_its_schedule(server):
    address, _ = server("--token-s", "0.05")
    load = drive(address, requests=6, rate=50.0, warmup=0)
    sent = [request.send_ns for request in sorted(load.requests, key=lambda r: r.index)]
    assert len(sent) == 6
    assert (sent[-1] - sent[0]) / 1e9 < 0.6  # one after another they would take 0.9 s
    again = drive(address, requests=6, rate=50.0, warmup=0)
    due = [request.scheduled_ns for request in sorted(again.requests, key=lambda r: r.index)]
    before = [request.scheduled_ns for request in sorted(load.requests, key=lambda r: r.index)]
    assert [b - a for a, b in pairwise(due)] == [b - a for a, b in pairwise(before)]


def test_a_duration_ends_the_load(server):
    address, _ = server()
    begin = time.monotonic()
    load = drive(address, requests=None, duration_s=0.3, warmup=0)
    assert 0.3 <= time.monotonic() - begin < 3
    assert len(load.requests) > 3


def test_a_server_that_dies_is_told_by_each_request(server):
    address, process = server("--crash-after", "2")
    load = Load(address, LoadConfig(requests=9, max_tokens=2, warmup=0), alive=lambda: process.poll() is None)
    load.prepare()
    load.run()
    assert [request.error is None for request in load.requests[:3]] == [True, True, False]
    assert len(load.requests) < 9


def test_a_wrong_key(server, tmp_path):
    (tmp_path / "keys").write_text("right\n")
    address, _ = server("--api-key-file", tmp_path / "keys")
    wrong = drive(Address(address.host, address.port, api_key="wrong"), requests=1, warmup=0)
    assert wrong.requests[0].error == "HTTP 401: Invalid API Key"
    right = drive(Address(address.host, address.port, api_key="right"), requests=1, warmup=0)
    assert right.requests[0].error is None


def test_proxies_are_not_asked(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    address, _ = server()
    assert drive(address, requests=1, warmup=0).requests[0].error is None


def test_who_listens(server):
    address, process = server()
    assert listens([process.pid], address.port) is True
    assert listens([1], address.port) in {False, None}
    with pytest.raises(CaptureError, match="cannot be listened on"):
        check_port_free(address)


def test_made_up_prompts_differ_from_their_first_word_on():
    made = [MadeUp(0, 100, 4.0, False).body(index)["prompt"] for index in range(20)]
    assert {len(text) for text in made} == {400}
    assert len({text.split()[0] for text in made}) == 20
    assert made[3] == words(0, 3, 400)
    chat = MadeUp(0, 2, 4.0, True).body(0)
    assert chat["messages"][0]["role"] == "user"


def test_prompts_of_a_file(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text('"one"\n\n{"prompt": "two", "temperature": 0}\n')
    prompts = read_prompts(file, chat=False)
    assert [dict(prompts.body(index)) for index in range(3)] == [
        {"prompt": "one"}, {"prompt": "two", "temperature": 0}, {"prompt": "one"},
    ]  # fmt: skip
    assert read_prompts(file, chat=True).body(0) == {"messages": [{"role": "user", "content": "one"}]}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"messages": []}'])
def test_a_file_without_prompts(tmp_path, text):
    file = tmp_path / "p.jsonl"
    file.write_text(text)
    with pytest.raises(UsageError):
        read_prompts(file, chat=False)


@pytest.mark.parametrize(
    ("chunk", "text"),
    [
        ({"content": "", "tokens": [0], "stop": False}, True),
        ({"content": "", "tokens": [], "stop": True}, False),
        ({"choices": [{"text": "n", "index": 0}]}, True),
        ({"choices": [{"delta": {"role": "assistant", "content": None}}]}, False),
        ({"choices": [{"delta": {"reasoning_content": "hm"}}]}, True),
        ({"choices": []}, False),
    ],
)
def test_which_pieces_carry_text(chunk, text):
    assert has_text(chunk) is text


def test_bodies_ask_for_exactly_as_many_tokens():
    assert request_body("completion", 5, {"prompt": "a"}) == {
        "n_predict": 5, "ignore_eos": True, "prompt": "a", "stream": True,
    }  # fmt: skip
    assert request_body("chat", 5, {"messages": []})["stream_options"] == {"include_usage": True}


def test_error_texts():
    assert error_text(b'{"error": {"message": "no\\nslot"}}', 503) == "HTTP 503: no slot"
    assert error_text(b"<html>", 502) == "HTTP 502: <html>"


def test_the_servers_own_endpoints():
    assert parse_metrics("# HELP x\nllamacpp:n_decode_total 20\nbroken x\n") == [
        {"name": "llamacpp:n_decode_total", "value": 20.0}
    ]
    slot = {
        "id": 0,
        "id_task": 3,
        "is_processing": True,
        "n_ctx": 8,
        "prompt": "secret",
        "next_token": [{"n_decoded": 2}],
    }
    assert parse_slots(json.loads(json.dumps([slot]))) == [
        {"id_slot": 0, "id_task": 3, "processing": True, "n_ctx": 8, "n_prompt_tokens": None,
         "n_prompt_tokens_processed": None, "n_prompt_tokens_cache": None, "n_decoded": 2},
    ]  # fmt: skip


def test_a_request_without_an_answer_has_no_times():
    request = Request(index=0, send_ns=5)
    assert (request.ttft_ns, request.total_ns, request.itl_ns) == (None, None, ())
