"""What must never reach a run folder."""

import subprocess
import sys

import pytest

from nsyskit.capture.secrets import (
    blanked_arguments,
    blanked_environment,
    hide_secrets,
    is_secret_variable,
    program_environment,
    relevant_environment,
    secret_values,
    strike,
)


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "LLAMA_API_KEY", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD_PASSWORD", "OPENAI_APIKEY"]
)
def test_secret_names(name):
    assert is_secret_variable(name)


@pytest.mark.parametrize("name", ["GGML_CUDA_DISABLE_GRAPHS", "LLAMA_ARG_API_KEY_FILE", "KEYBOARD", "MONKEY", "PATH"])
def test_names_without_secrets(name):
    assert not is_secret_variable(name)


def test_the_switches_that_matter_are_kept():
    environment = {
        "GGML_CUDA_PDL": "1", "CUDA_VISIBLE_DEVICES": "0", "CUDA_SCALE_LAUNCH_QUEUES": "4x", "LLAMA_API_KEY": "sk",
        "HF_TOKEN": "hf", "HOME": "/home/me", "LLAMA_ARG_MODEL_URL": "https://me:pw@host/m.gguf",
    }  # fmt: skip
    assert relevant_environment(environment) == {
        "CUDA_SCALE_LAUNCH_QUEUES": "4x", "CUDA_VISIBLE_DEVICES": "0", "GGML_CUDA_PDL": "1",
        "LLAMA_ARG_MODEL_URL": "https://(hidden)@host/m.gguf",
    }  # fmt: skip


def test_command_lines_are_shown_without_secrets():
    words = ["env", "HF_TOKEN=hf_1", "llama-server", "--api-key", "sk-1", "--hf-token=hf_2", "-hft", "hf_3",
             "--max-tokens", "5", "--api-key-file", "keys", "-m", "x"]  # fmt: skip
    assert hide_secrets(words) == (
        "env", "HF_TOKEN=(hidden)", "llama-server", "--api-key", "(hidden)", "--hf-token=(hidden)", "-hft", "(hidden)",
        "--max-tokens", "5", "--api-key-file", "keys", "-m", "x",
    )  # fmt: skip


def test_secret_values_and_striking_them(tmp_path):
    values = secret_values(["s", "--api-key", "sk-123456,sk-234567"], {"HF_TOKEN": "hf_123456", "A_KEY": "short"})
    assert values == {"sk-123456,sk-234567", "sk-123456", "sk-234567", "hf_123456"}
    log = tmp_path / "log"
    log.write_text("key sk-234567 and hf_123456\n")
    strike([log, tmp_path / "absent"], values)
    assert log.read_text() == "key (hidden) and (hidden)\n"


def test_blocks_keep_their_length():
    assert blanked_environment(b"A=1\0HF_TOKEN=abc\0") == b"A=1\0HF_TOKEN=xxx\0"
    assert blanked_arguments(b"s\0--api-key\0sk-12345\0-m\0") == b"s\0--api-key\0xxxxxxxx\0-m\0"


def test_a_process_blanks_itself():
    code = (
        "import os; from nsyskit.capture.secrets import blank_own_process as b; b();"
        "print(open('/proc/self/environ').read(), open('/proc/self/cmdline').read(), os.environ['HF_TOKEN'][:3])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, "--api-key", "sk-1234567"], env={"HF_TOKEN": "hf_1234567", "KEPT": "kept"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "hf_1234567" not in shown
    assert "sk-1234567" not in shown
    assert "KEPT=kept" in shown
    assert shown.endswith("hf_\n")


def test_a_llama_tool_gets_no_secret_that_it_does_not_need():
    environment = {"HF_TOKEN": "a", "AWS_SECRET_ACCESS_KEY": "b", "PATH": "/bin"}
    assert program_environment(environment, llama=True, downloads=False) == {"PATH": "/bin"}
    assert program_environment(environment, llama=True, downloads=True) == {"HF_TOKEN": "a", "PATH": "/bin"}
    assert program_environment(environment, llama=False, downloads=False) == environment
