"""``nsyskit sweep`` over the real llama-bench, on the CPU."""

import json
import signal
import sqlite3

import pytest

from .conftest import interrupt


def test_a_sweep_over_threads_and_flash_attention(root):
    words = ["nsyskit", "sweep", "--model", "tiny.gguf", "-p", "16", "-n", "4", "-r", "2", "-t", "1,2", "-fa", "0,1",
             "--db", "sweep.sqlite", "--name", "real"]  # fmt: skip
    done = root.run(*words, "--format", "json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["axes"] == ["n_threads", "flash_attn"]
    assert [cell["state"] for cell in document["cells"]] == ["done"] * 4
    for cell in document["cells"]:
        assert set(cell["results"]) == {"pp16", "tg4"}
        assert all(result["tokens_per_s"] > 0 and result["samples"] == 2 for result in cell["results"].values())
    again = root.run(*words)
    assert "0 ran, 0 failed, 4 known before" in again.err


def test_a_setting_that_llama_bench_refuses_is_recorded(root):
    done = root.run("nsyskit", "sweep", "--model", "tiny.gguf", "-p", "8", "-n", "2", "-r", "1", "-ctk", "f16,nonsense",
                    "--db", "refused.sqlite", "--format", "json")  # fmt: skip
    assert done.code == 0, done.err
    states = {cell["settings"]["type_k"]: cell["state"] for cell in json.loads(done.out)["cells"]}
    assert states == {"f16": "done", "nonsense": "failed"}


@pytest.fixture(scope="module")
def text(root):
    """Enough text for one chunk of perplexity."""
    (root.work / "text.txt").write_text("the quick brown fox jumps over the lazy dog " * 60)
    return "text.txt"


def test_quantisations_side_by_side(root, text):
    """Speed, memory, KV, time to first token and perplexity, all from the real programs."""
    for name, kind in (("q8.gguf", "Q8_0"), ("q4.gguf", "Q4_0")):
        done = root.run("llama-quantize", "tiny.gguf", name, kind)
        assert done.code == 0, done.err
    words = ["nsyskit", "sweep", "--model", "tiny.gguf", "--model", "q8.gguf", "--model", "q4.gguf", "-p", "32", "-n",
             "8", "-r", "2", "-t", "2", "--memory", "--ttft", "--ppl", text, "--db", "quants.sqlite"]  # fmt: skip
    done = root.run(*words, "--format", "json", "--html", "quants.html")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert [cell["error"] for cell in document["cells"]] == [None] * 3
    sides = document["quantisations"]
    assert [one["name"] for one in sides] == ["Q4_0", "Q8_0", "F16"]
    assert [round(one["bits_per_weight"]) for one in sides][-1] == 16
    for one in sides:
        assert set(one["results"]) == {"pp32", "tg8", "ttft32", "ppl"}
        assert one["vram_bytes"] is None  # a machine without a GPU
        assert one["kv_bytes"] == one["results"]["pp32"]["kv_bytes"] > 0
        assert one["results"]["pp32"]["memory_bytes"] > one["size_bytes"] * 0.9
        assert one["results"]["ttft32"]["prompt_n"] == 32  # all computed, none out of the prompt cache
        assert 0 < one["results"]["ttft32"]["ttft_ms"] < 10_000
        assert 1 < one["results"]["ppl"]["ppl"] < 10_000
    assert 'data-figure="quants-ppl"' in (root.work / "quants.html").read_text()
    assert "0 ran, 0 failed, 3 known before" in root.run(*words).err
    assert "Quantisations side by side" in root.run(*words, "-q").out


def test_at_a_depth_only_the_prompt_is_computed(root):
    done = root.run("nsyskit", "sweep", "--model", "tiny.gguf", "-p", "16", "-n", "4", "-r", "1", "-d", "0,64",
                    "--ttft", "--memory", "--db", "depth.sqlite", "--format", "json")  # fmt: skip
    assert done.code == 0, done.err
    cells = json.loads(done.out)["cells"]
    assert [cell["settings"]["n_depth"] for cell in cells] == ["0", "64"]
    assert [cell["results"]["ttft16"]["prompt_n"] for cell in cells] == [16, 16]
    assert [cell["results"]["pp16"]["kv_bytes"] for cell in cells][1] == 5 * cells[0]["results"]["pp16"]["kv_bytes"]


def test_one_traced_repetition_of_each_cell(root):
    """Without a GPU there is no ledger, and that is said; the traces are there, and a second call makes none again."""
    words = ["nsyskit", "sweep", "--model", "tiny.gguf", "-p", "16", "-n", "4", "-r", "2", "-t", "1,2", "--traced",
             "cells", "--db", "traced.sqlite"]  # fmt: skip
    done = root.run(*words, "--format", "json", "--html", "traced.html")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    for cell, ledger in zip(document["cells"], document["ledgers"], strict=True):
        folder = root.work / cell["trace"]
        assert (folder / "trace.sqlite").is_file()
        command = json.loads((folder / "run.json").read_text())["command"]
        assert command[command.index("-t") + 1] == cell["settings"]["n_threads"]
        assert command[command.index("-r") + 1] == "1"
        assert ledger["sentence"] == "no ledger: this trace holds no llama.cpp steps (no CUDA API calls were traced)"
        assert cell["results"]["tg4"]["samples"] == 2  # numbers of the untraced repetitions
    page = (root.work / "traced.html").read_text()
    assert 'href="#cell-1"' in page
    assert 'id="cell-1"' in page
    assert "traced" not in root.run(*words).err


def test_killed_half_way_the_real_sweep_goes_on(root):
    """SIGKILL once the second cell is known: nothing that was measured is measured again."""
    words = ["nsyskit", "sweep", "--model", "tiny.gguf", "-p", "256", "-n", "128", "-r", "3", "-t", "1,2", "-fa", "0,1",
             "-b", "64,128", "--db", "killed.sqlite", "--name", "killed"]  # fmt: skip
    process = root.start(*words)
    said = interrupt(process, "[2/8]", number=signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert "about" in said  # the time that is left
    assert root.left_running() == []  # no llama-bench that would share the machine with what is measured next
    with sqlite3.connect(root.work / "killed.sqlite") as database:
        before = database.execute("SELECT key, added FROM cells WHERE sweep = 'killed' ORDER BY id").fetchall()
    assert len(before) == 2
    again = root.run(*words, "--format", "json")
    assert "6 ran, 0 failed, 2 known before" in again.err
    with sqlite3.connect(root.work / "killed.sqlite") as database:
        after = database.execute("SELECT key, added FROM cells WHERE sweep = 'killed' ORDER BY id").fetchall()
    assert after[:2] == before
    assert len(json.loads(again.out)["cells"]) == 8
