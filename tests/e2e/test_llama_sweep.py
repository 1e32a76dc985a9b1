"""``nsyskit sweep`` over the real llama-bench, on the CPU."""

import json


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
