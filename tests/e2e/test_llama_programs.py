"""The real llama-bench, llama-batched-bench, llama-cli and llama-completion under the real nsys 2023.4."""

import json

import pytest


def test_llama_bench(root):
    done = root.run(
        "nsyskit", "capture", "-o", "bench", "llama-bench", "-m", "tiny.gguf", "-p", "64", "-n", "16", "-r", "2"
    )
    assert done.code == 0, done.err
    program = root.facts("bench")["summary"]["program"]
    assert [number["label"] for number in program] == ["pp64", "tg16"]
    results = [json.loads(line) for line in (root.work / "bench" / "results.jsonl").read_text().splitlines()]
    assert [result["avg_ts"] for result in results] == [number["tokens_per_s"] for number in program]
    analyzed = root.run("nsyskit", "analyze", "bench", "--format", "json")
    assert analyzed.code == 0, analyzed.err
    document = json.loads(analyzed.out)
    assert document["osrt_sum"]
    if "program" not in document:
        pytest.skip("analyze has no program section yet")
    assert {entry["label"] for entry in document["program"]} == {"pp64", "tg16"}


def test_a_format_of_the_users_own_choice_is_kept(root):
    words = ["llama-bench", "-m", "tiny.gguf", "-p", "8", "-n", "4", "-r", "1", "-o", "md"]
    assert root.run("nsyskit", "capture", "-q", "-o", "md", *words).code == 0
    facts = root.facts("md")
    assert facts["command"] == words
    assert [number["label"] for number in facts["summary"]["program"]] == ["pp8", "tg4"]


def test_llama_batched_bench(root):
    words = ["llama-batched-bench", "-m", "tiny.gguf", "-npp", "32", "-ntg", "8", "-npl", "1,2", "-c", "2048"]
    assert root.run("nsyskit", "capture", "-q", "-o", "batched", *words).code == 0
    labels = {number["label"] for number in root.facts("batched")["summary"]["program"]}
    assert {"pp32", "tg8@d32", "pp32@b2"} <= labels


@pytest.mark.parametrize(
    "words",
    [
        ["llama-completion", "-m", "tiny.gguf", "-p", "Hello you", "-n", "8", "-no-cnv", "--ignore-eos"],
        ["llama-cli", "-m", "tiny.gguf", "-p", "Hello you", "-n", "8", "-st", "--ignore-eos"],
    ],
)
def test_time_to_first_text_by_the_clock(root, words):
    assert root.run("nsyskit", "capture", "-q", "--no-export", "-o", words[0], "--", *words).code == 0
    facts = root.facts(words[0])
    life = facts["times"]["end_ns"] - facts["times"]["begin_ns"]
    assert 10_000_000 < facts["summary"]["first_text_ns"] < life
    assert any(number["n_gen"] != 0 for number in facts["summary"]["program"])


def test_fused(root):
    words = ["llama-bench", "-m", "tiny.gguf", "-p", "16", "-n", "8", "-r", "1"]
    refused = root.run("nsyskit", "capture", "-q", "-o", "refused", "--fused", *words)
    assert refused.code == 2
    assert "needs whole-graph rows, and nsys 2023.4" in refused.err
    # without CUDA graphs there are no such rows to miss
    done = root.run("nsyskit", "capture", "-q", "-o", "fused", "--fused", *words, env={"GGML_CUDA_DISABLE_GRAPHS": "1"})
    assert done.code == 0, done.err
    facts = root.facts("fused")
    assert facts["arms"] == ["untraced", "graph", "node"]
    assert set(facts["summary"]["traced_against_untraced"]["node"]) == {"pp16", "tg8"}
    assert not (root.work / "fused" / "untraced" / "trace.nsys-rep").exists()
    assert root.run("nsyskit", "analyze", "fused", "--format", "json").code == 0


def test_repeat_and_the_cpu_profile(root):
    words = ["llama-bench", "-m", "tiny.gguf", "-p", "16", "-n", "4", "-r", "1"]
    done = root.run("nsyskit", "capture", "-q", "-o", "twice", "--repeat", "2", "--profile", "cpu", *words)
    assert done.code == 0, done.err
    for name in ("run-1", "run-2"):
        assert root.facts(f"twice/{name}")["summary"]["program"]
        assert root.facts(f"twice/{name}")["profile"] == "cpu"


def test_the_doctor_finds_everything(root):
    done = root.run("nsyskit", "doctor", "--json")
    assert done.code == 0, done.out
    checks = {check["name"]: check for check in json.loads(done.out)["checks"]}
    assert checks["nsys"]["found"].startswith("2023.4")
    assert checks["recipes"]["status"] == "ok"
    assert "llama-server" in checks["llama.cpp"]["found"]
    assert "parquetdir" in checks["export"]["found"]
