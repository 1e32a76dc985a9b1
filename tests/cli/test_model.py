"""``nsyskit model`` as a user runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from nsyskit.cli import cli

pytest.importorskip("gguf", reason="the writer of test models needs the package gguf")
sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_gguf import write_tiny_gguf


@pytest.fixture
def tiny(tmp_path):
    return str(write_tiny_gguf(tmp_path / "tiny.gguf"))


def run(*arguments: str):
    return CliRunner().invoke(cli, ["model", *arguments])


def test_text(tiny):
    result = run(tiny, "--ctx", "512")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "tiny random: llama, 2,494,720 parameters, 4.994 MB"
    for line in (
        "  KV heads    2",
        "  attn_k       262.1 kB   5.2 %  4 × F16",
        "  F16  4.985 MB  99.8 %",
        "  weights read     4.861 MB",
        "  KV cache         2.048 kB read per token in context (f16 keys, f16 values)",
        "  KV cache at 512  1.049 MB (1.00 MiB)",
    ):
        assert line in result.stdout.splitlines()


def test_json(tiny):
    result = run(tiny, "--format", "json", "--ctk", "q8_0", "--ctv", "q4_0")
    document = json.loads(result.stdout)
    assert document["schema"] == "nsyskit.model/1"
    assert (document["architecture"], document["layers"], document["kv_heads"]) == ("llama", 4, [2, 2, 2, 2])
    assert document["bytes_per_token"] == 4_860_928
    assert (document["n_ctx"], document["type_k"]) == (4096, "q8_0")
    assert document["kv_bytes_per_token"] == 4 * (128 * 34 + 128 * 18) // 32
    assert document["kv_bytes"] == 4096 * document["kv_bytes_per_token"]
    assert document["roles"][-1] == {"role": "norms", "bytes": 9 * 256 * 4, "types": {"F32": 9}}
    assert {row["type"]: row["bytes"] for row in document["types"]} == {"F16": 4_984_832, "F32": 9216}


def test_names_from_the_file_are_printed_safely(tmp_path):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", layers=1, width=64, ffn=64)
    path.write_bytes(path.read_bytes().replace(b"tiny random", b"\x1b[31mrandom"))
    result = run(str(path))
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout


def test_errors_are_one_line(tmp_path, tiny):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"no model at all")
    for arguments, code, words in (
        ([str(bad)], 3, "bad.gguf is no GGUF file; give a model"),
        ([str(tmp_path / "none.gguf")], 2, "check the path"),
        ([tiny, "--ctk", "q9"], 2, "'q9' is no type of a KV cache; give one of"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (code, 1)
        assert words in result.stderr
    assert run(tiny, "--ctx", "0").exit_code == 2


def test_help_has_a_runnable_example(tiny, monkeypatch):
    example = next(line for line in run("--help").stdout.splitlines() if "--ctk q8_0" in line)
    monkeypatch.chdir(Path(tiny).parent)
    assert CliRunner().invoke(cli, example.split()[1:]).exit_code == 0
