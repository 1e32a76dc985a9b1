"""The model's size by the program's own output; no number where the output says too little."""

from __future__ import annotations

import json

import pytest

from nsyskit.analysis.printed_model import printed_load

ROW = {
    "build_commit": "a", "model_type": "llama 1B Q4_K - Medium", "model_size": 667521024, "n_gpu_layers": 99,
    "n_prompt": 0, "n_gen": 8, "n_depth": 0, "avg_ns": 160000000, "avg_ts": 50.0,
}  # fmt: skip
ROWS = (
    "| memory breakdown [MiB] | total   free     self   model   context   compute    unaccounted |",
    "|   - CUDA0 (RTX 3060)   | 12036 = 3000 + (8000 = 5000 +    2000 +    1000) +        1036 |",
    "|   - CUDA1 (RTX 3060)   | 12036 = 3000 + (8000 = 4000 +    2000 +    1000) +        1036 |",
    "|   - Host               |                  700 =  500 +     100 +     100                |",
)
TABLE = "".join(f"llama_memory_breakdown_print: {row}\n" for row in ROWS)
LOADED = (
    "load_tensors:   CPU_Mapped model buffer size =    66.00 MiB\n"
    "load_tensors:        CUDA0 model buffer size =   600.50 MiB\n"
)


def bench(**changes: object) -> str:
    return json.dumps([ROW | changes])


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (bench(), 667521024),
        (bench(n_gpu_layers=-1), 667521024),
        (TABLE, 9000 << 20),  # 5000 MiB and 4000 MiB; what lies on the host is not read by a GPU
        (LOADED, round(600.5 * 2**20)),
        (f"print_info: n_expert = 0\n{LOADED}", round(600.5 * 2**20)),
        (f"{LOADED}{TABLE}", 9000 << 20),  # the table stands at the end and counts
    ],
)
def test_what_was_printed(text, size):
    found = printed_load([text])
    assert found is not None
    assert (found.bytes_per_token, dict(found.by_quant)) == (size, {})
    assert "as the program printed" in (found.source or "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "main: done",
        bench(n_gpu_layers=12),
        bench(n_cpu_moe=4),
        bench(model_type="qwen3moe 30B.A3B Q4_K - Medium"),
        bench(model_type="llama 8x7B Q4_K - Medium"),
        json.dumps([ROW, ROW | {"model_size": 5, "n_gen": 16}]),
        f"print_info: n_expert         = 128\n{TABLE}",
        LOADED + LOADED,  # a draft model beside the target
    ],
)
def test_what_tells_too_little(text):
    assert printed_load([text]) is None
