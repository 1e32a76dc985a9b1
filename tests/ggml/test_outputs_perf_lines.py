"""llama-cli, llama-completion and llama-perplexity: perf lines, memory breakdown, final PPL; and text that is none."""

from __future__ import annotations

import doctest
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from nsyskit.ggml.outputs import ProgramNumbers, parse_output, shared

OUTPUTS = Path(__file__).parents[1] / "data" / "outputs"


def numbers(found: tuple[ProgramNumbers, ...]) -> list[tuple[object, ...]]:
    return [(one.label, one.ms, one.tokens_per_s, one.n_divisor) for one in found]


def test_perf_lines_in_colour(output):
    found = parse_output(output("llama-completion-colors.log"))
    assert numbers(found) == [
        ("load", 8.04, None, None),
        ("pp13", 1.52, 8547.01, 13),
        ("tg15", 2.72, 5520.79, 15),
        ("total", 4.61, None, None),
    ]
    assert {one.tool for one in found} == {"llama-completion"}
    assert [one.phase for one in found] == [None, "prefill", "decode", None]
    assert found[1].extra == {"sampling_ms": 0.1}


def test_one_token_has_no_rate(output):
    found = parse_output(output("llama-completion-one-token.log"))
    assert numbers(found)[2] == ("tg1", 0.0, None, 1)


def test_memory_breakdown(output):
    memory = parse_output(output("llama-completion-verbose.log"))[-1]
    assert memory.label == "memory Host"
    assert memory.extra == {
        "self_bytes": 11 << 20, "model_bytes": 4 << 20, "context_bytes": 1 << 20, "compute_bytes": 6 << 20,
    }  # fmt: skip
    assert parse_output(output("llama-completion-log-jsonl.log"))[-1].extra == memory.extra


def test_memory_breakdown_of_a_gpu():
    rows = (
        "| memory breakdown [MiB] | total   free    self   model   context   compute    unaccounted |",
        "|   - CUDA0 (RTX 4090)   | 24080 = 20393 + (2675 =  2016 +     112 +     546) +         1012 |",
        "|   - CUDA1 (RTX 4090)   | 24080 = 24000 + ( 100 =   100 +       0 +       0) + 17592186044396 |",
        "|   - Host               |                  1022 =  1000 +       0 +      22                |",
    )
    text = "".join(f"llama_memory_breakdown_print: {row}\n" for row in rows)
    cuda0, cuda1, host = parse_output(text)
    assert [one.label for one in (cuda0, cuda1, host)] == ["memory CUDA0", "memory CUDA1", "memory Host"]
    assert cuda0.extra["context_bytes"] == 112 << 20
    assert cuda0.extra["unaccounted_bytes"] == 1012 << 20
    assert cuda1.extra["unaccounted_bytes"] == -20 << 20  # printed as an unsigned number
    assert (host.extra["model_bytes"], "total_bytes" in host.extra) == (1000 << 20, False)


def test_perf_lines_of_2024_of_a_draft_and_a_target():
    lines = (
        "       load time =     500.00 ms",
        "prompt eval time =     100.00 ms /    50 tokens (    2.00 ms per token,   500.00 tokens per second)",
        "       eval time =     400.00 ms /    20 runs   (   20.00 ms per token,    50.00 tokens per second)",
        "      total time =     510.00 ms /    70 tokens",
    )
    context = "".join(f"llama_perf_context_print: {line}\n" for line in lines)
    found = parse_output(context + context.replace("500.00 ms\n", "90.00 ms\n").replace("400.00", "420.00"))
    assert [one.label for one in found] == ["load", "pp50", "tg20", "total"] * 2
    assert [one.ms for one in found if one.label == "load"] == [500.0, 90.0]
    assert {one.tool for one in found} == {"llama-cli"}


def test_print_timings_of_2023_are_no_servers():
    lines = (
        "     sample time =    12.00 ms /    64 runs   (    0.19 ms per token,  5333.33 tokens per second)",
        "prompt eval time =   100.00 ms /     8 tokens (   12.50 ms per token,    80.00 tokens per second)",
        "       eval time =   630.00 ms /    63 runs   (   10.00 ms per token)",
        "      total time =   800.00 ms",
    )
    text = "".join(f"llama_print_timings: {line}\n" for line in lines)
    assert numbers(parse_output(text)) == [
        ("pp8", 100.0, 80.0, 8),
        ("tg63", 630.0, None, 63),
        ("total", 800.0, None, None),
    ]


def test_chat_turn_has_rates_only(output):
    found = parse_output(output("llama-cli-chat.txt"))
    assert [(one.label, one.phase, one.tokens_per_s, one.n_gen) for one in found] == [
        ("prompt", "prefill", 6200.8, 0),
        ("generation", "decode", 2868.1, None),
    ]


def test_final_perplexity(output):
    run, found = parse_output(output("llama-perplexity.log"))
    assert (found.tool, found.label, found.phase) == ("llama-perplexity", "ppl", None)
    facts = {"n_chunks": 49, "n_ctx": 128, "n_batch": 2048, "n_seq": 16}
    assert found.extra == {"ppl": 235.6753, "ppl_stderr": 2.69948, **facts}
    assert (run.label, run.phase, run.n_prompt, run.ms) == ("pass 16x128", "prefill", 2048, 280)
    assert round(run.tokens_per_s * 0.28) == 2048


def test_a_torn_final_perplexity_is_none(output):
    text = output("llama-perplexity.log").rstrip()
    assert [one.label for one in parse_output(text[: text.index("Final")])] == ["pass 16x128"]
    assert parse_output(text[text.index("perplexity: 0.28") : text.index("Final")]) == ()
    assert parse_output("Final estimate: PPL = nan +/- nan\n")[0].extra["ppl"] is None


def test_nothing_to_find():
    assert parse_output("") == ()
    assert parse_output("hello\n| a | b |\n{}\n[1, 2]\neval time = 3 ms\n") == ()


REAL = [path.read_bytes().decode() for path in sorted(OUTPUTS.iterdir()) if path.suffix != ".md"]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(REAL),
    st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 60), st.text(max_size=12)), max_size=8),
)
def test_damaged_output_never_raises(text, damages):
    for start, length, noise in damages:
        text = text[:start] + noise + text[start + length :]
    for one in parse_output(text):
        assert one.tokens_per_s is None or one.tokens_per_s == one.tokens_per_s
        assert one.n_divisor is None or one.n_divisor >= 0 or one.n_gen == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(['"timings":{', '"build_commit":', '"avg_ts": ', "1e999", "9" * 400, ",", "}", "|",
                                 "| test | t/s |\n", "[", '"', "\\", "\n", "eval time = ", " ms / ", " tokens",
                                 "print_timing", "id 0 | task 1 |", "-1", "'", "INSERT INTO t (avg_ts) VALUES (",
                                 ");", "build: x (", "1", "pp", "\x1b[3", "m", "\r", "\0"]), max_size=40))  # fmt: skip
def test_fragments_never_raise(parts):
    parse_output("".join(parts))


def test_examples_in_docstrings():
    assert doctest.testmod(shared) == (0, 2)
