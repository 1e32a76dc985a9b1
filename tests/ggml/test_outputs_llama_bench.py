"""llama-bench and llama-batched-bench, real outputs and damaged ones."""

from __future__ import annotations

import pytest

from nsyskit.ggml.outputs import ProgramNumbers, parse_output

# (label, n_prompt, n_gen, n_depth, n_divisor) of `-p 32 -n 8 -pg 32,8 -d 0,64`
TESTS = [
    ("pp32", 32, 0, 0, 32),
    ("tg8", 0, 8, 0, 8),
    ("pp32+tg8", 32, 8, 0, 40),
    ("pp32@d64", 32, 0, 64, 32),
    ("tg8@d64", 0, 8, 64, 8),
    ("pp32+tg8@d64", 32, 8, 64, 40),
]


def shapes(found: tuple[ProgramNumbers, ...]) -> list[tuple[object, ...]]:
    return [(one.label, one.n_prompt, one.n_gen, one.n_depth, one.n_divisor) for one in found]


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "sql", "md"])
def test_every_format_yields_the_same_tests(output, suffix):
    found = parse_output(output(f"llama-bench.{suffix}"))
    assert shapes(found) == TESTS
    assert {one.tool for one in found} == {"llama-bench"}
    assert [one.phase for one in found[:3]] == ["prefill", "decode", "mixed"]
    assert {one.extra["build_commit"] for one in found} == {"Debian"}
    assert {one.extra["model_type"] for one in found} == {"llama ?B F16"}
    assert {one.extra["n_threads"] for one in found} == {2}


def test_json_keeps_rate_time_and_samples(output):
    first = parse_output(output("llama-bench.json"))[0]
    assert (first.tokens_per_s, first.ms) == (7478.557616, 4.279162)
    assert first.extra["samples_ts"] == (7420.04, 7537.08)
    assert first.extra["samples_ns"] == (4312647.0, 4245677.0)
    assert first.extra["stddev_ts"] == 82.76075
    assert first.extra["build_number"] == 11669
    assert first.extra["flash_attn"] == -1
    assert first.extra["no_kv_offload"] is False


def test_csv_and_sql_keep_rate_and_time(output):
    csv, sql = (parse_output(output(f"llama-bench.{suffix}"))[1] for suffix in ("csv", "sql"))
    assert (csv.tokens_per_s, csv.ms, csv.extra["stddev_ts"]) == (4141.759319, 1.931835, 71.600784)
    assert (sql.tokens_per_s, sql.ms, sql.extra["n_ubatch"]) == (3543.745603, 2.329059, 512)


def test_md_has_a_rate_and_no_time(output):
    last = parse_output(output("llama-bench.md"))[-1]
    assert (last.tokens_per_s, last.ms, last.extra["stddev_ts"]) == (6026.28, None, 15.25)
    assert last.extra["build_number"] == 11669


def test_progress_lines_between_the_rows_of_a_csv(output):
    found = parse_output(output("llama-bench-progress.csv"))
    assert [one.label for one in found] == ["pp32", "tg8"] * 4
    assert [one.extra["flash_attn"] for one in found] == [0, 0, 1, 1] * 2
    assert found[-1].extra["model_filename"] == "moe.gguf"
    assert found[-1].tokens_per_s == 2601.826763


def test_the_same_test_in_two_formats_counts_once():
    row = '"abc","32","0","0","4000000","8000.004"'
    csv = f"build_commit,n_prompt,n_gen,n_depth,avg_ns,avg_ts\n{row}\n"
    md = "| model | test | t/s |\n| ----- | ---: | --: |\n| llama | pp32 | 8000.00 ± 1.00 |\n"
    assert [one.ms for one in parse_output(csv + md)] == [4.0]


def test_old_spellings_of_the_table():
    text = (
        "| model         |     size | ngl | fa | test       |              t/s |\n"
        "| ------------- | -------: | --: | -: | ---------- | ---------------: |\n"
        "| llama 7B Q4_0 | 3.56 GiB |  99 |  1 | pp 512     | 2345.67 ± 12.34  |\n"
        "| llama 7B Q4_0 | 3.56 GiB |  99 |  1 | tg 128     |    98,76 ± 0,05  |\n"
        "| llama 7B Q4_0 | 3.56 GiB |  99 |  1 | pp512+tg128 | 444.00         |\n"
        "\nbuild: 1234567 (2100)\n"
    )
    found = parse_output(text)
    assert [(one.label, one.tokens_per_s) for one in found] == [
        ("pp512", 2345.67),
        ("tg128", 98.76),
        ("pp512+tg128", 444.0),
    ]
    assert found[1].extra["stddev_ts"] == 0.05
    assert (found[0].extra["n_gpu_layers"], found[0].extra["flash_attn"]) == (99, 1)
    assert found[0].extra["build_commit"] == "1234567"


def test_a_numeric_commit_stays_text():
    text = 'build_commit,n_prompt,n_gen,avg_ns,avg_ts\n"4567890","32","0","1000000","1.5"\n'
    assert parse_output(text)[0].extra["build_commit"] == "4567890"


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "sql", "md"])
def test_cut_anywhere_yields_only_true_numbers(output, suffix):
    text = output(f"llama-bench.{suffix}")
    whole = {(one.label, one.tokens_per_s, one.ms) for one in parse_output(text)}
    for end in range(0, len(text), 7):
        cut = parse_output(text[:end])
        rates = {(one.label, one.tokens_per_s, one.ms) for one in cut}
        assert rates <= whole


def test_a_log_line_inside_an_indented_array(output):
    lines = output("llama-bench.json").splitlines(keepends=True)
    noisy = "".join(line + "llama_context: n_ctx_seq (512) < n_ctx_train (4096)\n" for line in lines)
    assert shapes(parse_output(noisy)) == TESTS


def test_a_record_does_not_swallow_what_follows_it(output):
    text = output("llama-bench.jsonl") + '{"type":"log","time":5,"level":"info","msg":"done"}\n'
    assert "level" not in parse_output(text)[-1].extra


def test_a_failed_run_has_no_finite_rate():
    text = '{"build_commit": "a", "n_prompt": 8, "n_gen": 0, "avg_ns": 0, "avg_ts": inf, "stddev_ts": -nan}'
    (one,) = parse_output(text)
    assert (one.tokens_per_s, one.extra["stddev_ts"]) == (None, None)


# --- llama-batched-bench


def test_batched_jsonl(output):
    found = parse_output(output("llama-batched-bench.jsonl"))
    assert len(found) == 6 * 3
    prompt, generation, both = found[6:9]  # PP 32, TG 8, 16 sequences
    assert (prompt.label, prompt.tokens_per_s, prompt.ms, prompt.n_divisor) == ("pp32@b16", 7753.933594, 66.031, 512)
    assert (generation.label, generation.tokens_per_s, generation.n_divisor) == ("tg8@d32@b16", 5671.747559, 128)
    assert (both.label, both.tokens_per_s, both.ms, both.n_divisor) == ("pp32+tg8@b16", 7223.557617, 88.599, 640)
    assert (generation.n_prompt, generation.n_gen, generation.n_depth, generation.extra["pl"]) == (0, 8, 32, 16)


def test_printed_rates_are_divisor_over_time(output):
    for one in parse_output(output("llama-batched-bench.jsonl")):
        assert one.tokens_per_s == pytest.approx(one.n_divisor / one.ms * 1e3, rel=1e-3)


def test_batched_md_with_a_shared_prompt(output):
    own, shared = (parse_output(output(f"llama-batched-bench{name}.md")) for name in ("", "-shared-prompt"))
    assert [one.n_divisor for one in own[3:]] == [128, 32, 160]
    assert [one.n_divisor for one in shared[3:]] == [32, 32, 64]  # though N_KV says 160
    assert [one.tokens_per_s for one in shared[3:]] == [7452.26, 5078.56, 6040.59]
