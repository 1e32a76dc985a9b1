"""What a run's setup tells, and what it never tells."""

from runs import SMALL, run

from nsyskit.compare.setup import base_model, command_facts


def test_harmless_flags_under_llama_benchs_names():
    command = ["/home/me/build/llama-server", "-m", "/secret/place/model-q4.gguf", "-ngl", "99", "--flash-attn", "on",
               "-ctk", "q8_0", "-ts", "3,1", "--parallel=4", "-nkvo"]  # fmt: skip
    assert command_facts(command) == {
        "program": "llama-server", "model": "model-q4.gguf", "n_gpu_layers": "99", "flash_attn": "on", "type_k": "q8_0",
        "tensor_split": "3,1", "n_parallel": "4", "no_kv_offload": "1",
    }  # fmt: skip


def test_prompts_keys_and_paths_stay_out():
    command = ["llama-cli", "-p", "my diary", "--api-key", "hunter2", "-m", "weird name\n.gguf",
               "--host", "box.example", "-n", "secret", "--lora", "/home/me/x", "-t", "8;rm"]  # fmt: skip
    assert command_facts(command) == {"program": "llama-cli", "model": "(hidden)"}
    assert command_facts(["python", "-t", "4"]) == {"program": "python"}


def test_facts_of_a_trace():
    setup = run(SMALL, 1).setup
    assert setup["gpu"] == "NVIDIA GeForce RTX 3060"
    assert setup["model_type"] == "llama 1B Q4_K - Medium"
    assert setup["graph_trace"] == "node"
    assert setup["n_vocab"] == "32000"
    assert setup["build"] == "0 (synthetic)"


def test_a_model_without_its_quantisation():
    assert base_model("llama 1B Q4_K - Medium") == base_model("llama 1B Q8_0") == "llama 1B"
    assert base_model("gemma3 4B F16") == "gemma3 4B"
