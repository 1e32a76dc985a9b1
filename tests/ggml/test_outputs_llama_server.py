"""llama-server's log in four spellings, and the timings of its responses."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from nsyskit.ggml.outputs import ProgramNumbers, parse_output

TRACES = Path(__file__).parents[3] / "shared" / "traces"


def generations(found: tuple[ProgramNumbers, ...]) -> list[tuple[object, ...]]:
    return [(one.label, one.n_gen, one.n_divisor, one.ms, one.tokens_per_s) for one in found if one.phase == "decode"]


def test_one_by_one_divides_by_n_minus_one(output):
    found = parse_output(output("llama-server-one-by-one.log"))
    assert generations(found) == [
        ("slot 0 task 0 tg8", 8, 7, 1.55, 4501.61),
        ("slot 1 task 9 tg1", 1, 0, 0.0, 0.0),  # one token comes from the prompt step: nothing was timed
        ("slot 0 task 11 tg16", 16, 15, 5.84, 2568.05),
    ]
    prompts = [(one.label, one.n_divisor, one.tokens_per_s) for one in found if one.phase == "prefill"]
    assert prompts[0] == ("slot 0 task 0 pp22", 22, 6058.94)
    assert found[0].extra == {"id_slot": 0, "id_task": 0, "total_ms": 5.19, "graphs_reused": 7, "n_context": 29}


def test_three_slots_at_once(output):
    found = parse_output(output("llama-server-three-slots.log"))
    assert [(one.label, one.n_divisor) for one in found] == [
        ("slot 1 task 1 pp22", 22), ("slot 1 task 1 tg30", 29),
        ("slot 0 task 0 pp42", 42), ("slot 0 task 0 tg40", 39),
        ("slot 1 task 35 pp20", 20), ("slot 1 task 35 tg8", 7),
        ("slot 0 task 45 pp40", 40), ("slot 0 task 45 tg8", 7),
        ("slot 1 task 46 pp60", 60), ("slot 1 task 46 tg8", 7),
        ("slot 2 task 3 pp602", 602), ("slot 2 task 3 tg50", 49),
    ]  # fmt: skip


def test_drafts_accepted(output):
    found = parse_output(output("llama-server-speculative.log"))
    assert generations(found) == [("slot 0 task 0 tg30", 30, 29, 33.73, 859.77)]
    assert (found[1].extra["draft_n"], found[1].extra["draft_n_accepted"]) == (102, 1)
    answer = parse_output(output("llama-server-speculative-response.json"))
    assert (answer[1].extra["draft_n"], answer[1].extra["draft_n_accepted"]) == (102, 1)


def test_progress_lines_are_no_results(output):
    found = parse_output(output("llama-server-long.log"))
    assert generations(found) == [("slot 0 task 0 tg3194", 3194, 3193, 4759.57, 670.86)]


def test_jsonl_log_with_memory(output):
    found = parse_output(output("llama-server-log-jsonl.log"))
    assert [one.label for one in found] == [
        "slot 1 task 1 pp42", "slot 1 task 1 tg1", "slot 0 task 0 pp22", "slot 0 task 0 tg8", "memory Host",
    ]  # fmt: skip
    assert found[-1].tool == "llama-server"
    assert found[-1].extra["context_bytes"] == 4 << 20


def test_header_and_bare_lines_of_2024_divide_by_n():
    text = (
        "srv  update_slots: run slots completed\n"
        "slot print_timing: id  3 | task 17 | \n"
        "prompt eval time =     200.00 ms /   100 tokens (    2.00 ms per token,   500.00 tokens per second)\n"
        "       eval time =    1000.00 ms /    50 tokens (   20.00 ms per token,    50.00 tokens per second)\n"
        "      total time =    1200.00 ms /   150 tokens\n"
        "slot print_timing: id  3 | task 17 | \n"
        "draft acceptance rate = 0.50000 (   10 accepted /    20 generated)\n"
        "slot      release: id  3 | task 17 | stop processing: n_past = 149, truncated = 0\n"
    )
    prompt, gen = parse_output(text)
    assert (prompt.label, prompt.n_divisor, prompt.ms) == ("slot 3 task 17 pp100", 100, 200.0)
    assert (gen.label, gen.n_gen, gen.n_divisor, gen.tokens_per_s) == ("slot 3 task 17 tg50", 50, 50, 50.0)
    drafted = {"draft_n": 20, "draft_n_accepted": 10}
    assert gen.extra == {"id_slot": 3, "id_task": 17, "total_ms": 1200.0, "n_context": 149} | drafted


def test_print_timings_of_early_2024_text_and_json():
    text = (
        "INFO [           print_timings] prompt eval time     =     200.00 ms /   100 tokens (    2.00 ms per token,"
        '   500.00 tokens per second) | tid="1" timestamp=1 id_slot=1 id_task=5 t_token=2.0\n'
        "INFO [           print_timings] generation eval time =    1000.00 ms /    50 runs   (   20.00 ms per token,"
        '    50.00 tokens per second) | tid="1" timestamp=1 id_slot=1 id_task=5 n_decoded=50\n'
        'INFO [           print_timings]           total time =    1200.00 ms | tid="1" id_slot=1 id_task=5\n'
        '{"function":"print_timings","level":"INFO","msg":"generation eval time =     300.00 ms /    30 runs   '
        '(   10.00 ms per token,   100.00 tokens per second)","n_decoded":30,"slot_id":2,"t_token":10.0,"task_id":6}\n'
    )
    assert generations(parse_output(text)) == [
        ("slot 1 task 5 tg50", 50, 50, 1000.0, 50.0),
        ("slot 2 task 6 tg30", 30, 30, 300.0, 100.0),
    ]


@pytest.mark.parametrize(
    ("n", "ms", "per_token", "rate", "divisor"),
    [
        (48, "14.47", "0.31", "3247.65", 47),
        (48, "14.47", "0.30", "3317.21", 48),
        (2000, "400200.20", "200.20", "5.00", 1999),  # the rate is too coarse to tell; the time per token is not
        (2000, "400200.20", "200.10", "5.00", 2000),
        (2, "5,00", "5,00", "200,00", 1),  # a locale with commas
    ],
)
def test_the_divisor_is_read_off_the_numbers(n, ms, per_token, rate, divisor):
    numbers = f"eval time = {ms} ms / {n} tokens ({per_token} ms per token, {rate} tokens per second)"
    (one,) = parse_output(f"slot print_timing: id 0 | task 1 | {numbers}")
    assert (one.n_gen, one.n_divisor) == (n, divisor)


def test_responses(output):
    found = parse_output(output("llama-server-responses.jsonl"))
    assert [(one.label, one.ms, one.n_divisor) for one in found] == [
        ("slot 0 pp22", 3.631, 22), ("slot 0 tg8", 1.555, 7), ("slot 1 pp42", 5.122, 42), ("slot 1 tg1", 0.001, 0),
    ]  # fmt: skip
    chat = parse_output(output("llama-server-chat-response.json"))
    assert [one.label.split()[-1] for one in chat] == ["pp72", "tg8"]
    assert chat[0].label.startswith("chatcmpl-")
    assert chat[1].tokens_per_s == 3943.6619718309867


def test_a_stream_counts_once(output):
    found = parse_output(output("llama-server-stream.txt"))
    assert [(one.label, one.ms, one.n_divisor) for one in found] == [
        ("slot 0 pp22", 2.797, 22),
        ("slot 0 tg8", 1.938, 7),
    ]


def test_log_and_response_of_one_request_count_once(output):
    log, response = output("llama-server-speculative.log"), output("llama-server-speculative-response.json")
    assert [one.label for one in parse_output(log + response)] == ["slot 0 task 0 pp22", "slot 0 task 0 tg30"]


def test_cached_tokens_are_depth():
    text = (
        '{"timings":{"cache_n":38,"prompt_n":1,"prompt_ms":0.5,"prompt_per_token_ms":0.5,"prompt_per_second":2000.0,'
        '"predicted_n":3,"predicted_ms":2.0,"predicted_per_token_ms":1.0,"predicted_per_second":1000.0}}'
    )
    prompt, gen = parse_output(text)
    assert (prompt.label, prompt.n_depth, prompt.n_prompt) == ("pp1", 38, 1)
    assert (gen.n_gen, gen.n_divisor) == (3, 2)


@pytest.mark.skipif(not TRACES.is_dir(), reason="the shared real traces are not here")
@pytest.mark.parametrize(
    ("trace", "labels"),
    [
        ("cpu-llama-bench", ["pp128", "tg64"]),
        (
            "cpu-llama-server",
            ["slot 0 task 0 pp39", "slot 0 task 0 tg48"]
            + [f"slot 0 task {task} {what}" for task in (49, 98, 147) for what in ("pp1", "tg48")],
        ),
    ],
)
def test_streams_of_real_traces(trace, labels):
    with sqlite3.connect(f"file:{TRACES / trace / 'trace.sqlite'}?mode=ro&immutable=1", uri=True) as connection:
        rows = connection.execute("SELECT value FROM ProcessStreams JOIN StringIds ON id = contentId").fetchall()
    found = [one for (text,) in rows for one in parse_output(text)]
    assert [one.label for one in found] == labels
    if trace == "cpu-llama-server":
        assert {one.n_divisor for one in found if one.phase == "decode"} == {47}
        assert (found[1].ms, found[1].tokens_per_s) == (14.47, 3247.65)
    else:
        assert (found[0].tokens_per_s, found[0].ms) == (8562.013574, 15.013386)
