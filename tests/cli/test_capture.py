"""The options of ``nsyskit capture``: what is shown, refused, and handed on."""

import shutil

import pytest
from click.testing import CliRunner

from nsyskit.cli.capture import command
from nsyskit.errors import NsyskitError, UsageError

pytestmark = [
    pytest.mark.nsys,
    pytest.mark.skipif(shutil.which("nsys") is None, reason="no nsys on PATH"),
]


def run(*words: str):
    return CliRunner().invoke(command, words, catch_exceptions=False)


def test_the_programs_options_are_its_own(tmp_path):
    result = run(
        "--dry-run", "-o", str(tmp_path / "r"), "llama-bench", "-q", "--help", "-o", "md", "--profile", "spans"
    )
    assert result.exit_code == 0
    assert "llama-bench -q --help -o md --profile spans\n" in result.stdout
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("dashes", [[], ["--"]])
def test_the_two_dashes_may_be_left_out(tmp_path, dashes):
    result = run("--dry-run", "-o", str(tmp_path / "r"), *dashes, "llama-cli", "-m", "a.gguf")
    assert result.stdout.splitlines()[1].endswith(" llama-cli -m a.gguf")


def test_a_fused_dry_run_shows_three_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("GGML_CUDA_DISABLE_GRAPHS", "1")
    shown = run("--dry-run", "--fused", "-o", str(tmp_path / "r"), "llama-bench").stdout
    assert shown.count("llama-bench -o jsonl") == 3
    assert "--cuda-graph-trace=graph" in shown
    assert "--cuda-graph-trace=node" in shown


def test_a_repeated_dry_run_shows_each(tmp_path):
    shown = run("--dry-run", "--repeat", "2", "-o", str(tmp_path / "r"), "llama-bench").stdout
    assert "run-1/trace" in shown
    assert "run-2/trace" in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fused", "--repeat", "2"], "leave out --repeat"),
        (["--no-load"], "--no-load is for llama-server"),
        (["--kind", "server", "--no-load", "--requests", "3"], "leave out --requests"),
        (["--beside", ""], "--beside needs a command"),
    ],
)
def test_options_that_do_not_fit(options, words):
    with pytest.raises(UsageError, match=words):
        run("--dry-run", *options, "true")


def test_keys_are_not_shown(tmp_path):
    shown = run("--dry-run", "-o", str(tmp_path), "llama-server", "--port", "9", "--api-key", "sk-secret").stdout
    assert "sk-secret" not in shown
    assert "--api-key-file" in shown


def test_a_program_that_is_none(tmp_path):
    with pytest.raises(NsyskitError, match="not a program that can be run"):
        run("-o", str(tmp_path / "r"), "no-such-program")
    assert not (tmp_path / "r").exists()
