"""Targets that are no traces: GGUF files, what llama.cpp's tools print, files of kernel rules."""

from __future__ import annotations

import json
import struct
import sys
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import polars as pl
from tiny_gguf import write_tiny_gguf

from nsyskit.ggml.catalogue import KernelRules
from nsyskit.ggml.gguf_file import bytes_per_token, kv_bytes, kv_bytes_per_token, read_model, weights_per_token
from nsyskit.ggml.outputs import parse_output
from tests.fuzz.hostile import EDGES, damaged, number, text


@cache
def _models() -> tuple[bytes, ...]:
    with TemporaryDirectory() as folder:
        dense = write_tiny_gguf(Path(folder) / "a.gguf", layers=1, width=64, heads=2, kv_heads=1, ffn=64)
        moe = write_tiny_gguf(
            Path(folder) / "b.gguf",
            layers=2,
            width=64,
            heads=2,
            kv_heads=1,
            ffn=64,
            arch="qwen3moe",
            experts=4,
            experts_used=2,
        )
        return tuple(file.read_bytes() for file in (dense, moe))


def _gguf_string(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode(errors="replace"))) + value.encode(errors="replace")


def _gguf_value(rng: Random, kind: int, depth: int = 0) -> bytes:
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    if kind == 8:
        return (
            _gguf_string(text(rng, longest=1_000))
            if rng.random() < 0.9
            else struct.pack("<Q", rng.choice(EDGES) % 2**64)
        )
    if kind == 9:
        inner = rng.choice((0, 4, 5, 8, 9, 12, 13))
        count = rng.choice((0, 1, 3, rng.choice(EDGES) % 2**64))
        items = b"".join(_gguf_value(rng, inner, depth + 1) for _ in range(min(count, 4) if depth < 40 else 0))
        return struct.pack("<IQ", inner, count) + items
    return (
        rng.randbytes(sizes.get(kind, 0))
        if rng.random() < 0.5
        else (rng.choice(EDGES) % 2**64).to_bytes(8, "little")[: sizes.get(kind, 0)]
    )


_KEYS = (
    "general.architecture", "llama.block_count", "llama.attention.head_count", "llama.attention.head_count_kv",
    "llama.embedding_length", "llama.context_length", "llama.attention.key_length", "llama.expert_count",
    "llama.expert_used_count", "llama.attention.sliding_window", "split.count", "split.no", "general.alignment",
    "tokenizer.ggml.tokens", "llama.vocab_size", "general.name",
)  # fmt: skip


def _made_gguf(rng: Random) -> bytes:
    pairs = [("general.architecture", 8, _gguf_string("llama"))] if rng.random() < 0.9 else []
    for _ in range(rng.randrange(8)):
        kind = rng.choice((4, 4, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 99))
        pairs.append((rng.choice(_KEYS), kind, _gguf_value(rng, kind)))
    tensors = []
    names = (
        "token_embd.weight",
        "output.weight",
        "blk.0.attn_q.weight",
        "blk.0.ffn_up_exps.weight",
        "blk.-1.x",
        "blk.9999999999999999999.attn_k.weight",
    )
    for _ in range(rng.randrange(5)):
        dims = [rng.choice((1, 32, 64, 256, rng.choice(EDGES) % 2**64)) for _ in range(rng.choice((1, 2, 2, 3, 4, 5)))]
        name = rng.choice(names) if rng.random() < 0.8 else text(rng, longest=500)
        tensors.append(
            _gguf_string(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
            + struct.pack("<IQ", rng.choice((0, 1, 8, 12, 99, 2**32 - 1)), rng.choice((0, 32, rng.choice(EDGES) % 2**64)))
        )  # fmt: skip
    counts = (
        (len(tensors), len(pairs)) if rng.random() < 0.8 else (rng.choice(EDGES) % 2**64, rng.choice(EDGES) % 2**64)
    )
    head = b"GGUF" + struct.pack("<IQQ", rng.choice((2, 3, 3, 3, 1, 99)), *counts)
    body = b"".join(_gguf_string(key) + struct.pack("<I", kind) + content for key, kind, content in pairs)
    return head + body + b"".join(tensors) + bytes(rng.choice((0, 32, 4096)))


def gguf(rng: Random, folder: Path) -> None:
    path = folder / rng.choice(("m.gguf", "m-00001-of-00003.gguf", "m-00001-of-99999.gguf"))
    kind = rng.random()
    if kind < 0.4:
        content = damaged(rng, rng.choice(_models())[: rng.choice((20_000, 1_000_000))], block=64)
    elif kind < 0.8:
        content = _made_gguf(rng)
    else:
        content = damaged(rng, _made_gguf(rng), block=16)
    path.write_bytes(content)
    facts = read_model(path)
    numbers = [bytes_per_token(facts), kv_bytes_per_token(facts), weights_per_token(facts), kv_bytes(facts, 4096)]
    assert all(value >= 0 for value in numbers), numbers
    from nsyskit.cli.model import _document, _text

    document = _document(facts, n_ctx=facts.context, type_k="f16", type_v="f16")
    json.dumps(document)
    printed = _text(facts, document)
    assert all(char.isprintable() or char == "\n" for char in printed)


_LOGS = (
    '{"build_commit": "x", "model_filename": "m.gguf", "n_prompt": 512, "n_gen": 0, "avg_ts": 5.0, "avg_ns": 5, "samples_ns": [5, 6], "samples_ts": [1.0]}\n',
    "| model | size | params | backend | ngl | test | t/s |\n| --- | ---: | ---: | --- | --: | ---: | ---: |\n"
    "| llama 7B Q4_0 | 3.56 GiB | 6.74 B | CUDA | 99 | pp512 | 5000.00 ± 10.00 |\nbuild: 0123abc (1)\n",
    'build_commit,n_prompt,n_gen,avg_ns,stddev_ns,avg_ts,stddev_ts\n"x","512","0","5","1","5.0","0.1"\n',
    "INSERT INTO test (build_commit, n_prompt, n_gen, avg_ns, avg_ts) VALUES ('x', '512', '0', '5', '5.0');\n",
    "slot launch_slot_: id  0 | task 5 | processing task\nprompt eval time =     100.00 ms /    50 tokens (    2.00 ms per token,   500.00 tokens per second)\n"
    "       eval time =     200.00 ms /    20 tokens (   10.00 ms per token,   100.00 tokens per second)\n      total time =     300.00 ms /    70 tokens\n",
    "llama_perf_context_print: prompt eval time =     100.00 ms /    50 tokens (    2.00 ms per token,   500.00 tokens per second)\n"
    "llama_perf_context_print:        eval time =     200.00 ms /    20 runs   (   10.00 ms per token,   100.00 tokens per second)\n",
    "|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |\n"
    "|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|\n"
    "|   128 |    128 |    1 |    256 |    0.100 |  1280.00 |    1.000 |   128.00 |    1.100 |   232.00 |\n",
    'data: {"timings":{"prompt_n":5,"prompt_ms":1.5,"predicted_n":7,"predicted_ms":3.5,"prompt_per_second":3.3}}\n',
    "Final estimate: PPL = 5.4007 +/- 0.67339\n[1]4.1,[2]5.2,\n", "[ Prompt: 500.0 t/s | Generation: 100.0 t/s ]\n",
    "llama_memory_breakdown_print: | memory breakdown [MiB] | total   free     self   model   context   compute    unaccounted |\n",
)  # fmt: skip
_NUMBERS = (
    "0",
    "-1",
    "1e999",
    "nan",
    "inf",
    "9" * 400,
    "1e-400",
    "0x10",
    "1_000",
    "",
    "٣",
    "1.2.3",
    "-0.0",
    "9223372036854775808",
)


def logs(rng: Random, folder: Path) -> None:
    del folder
    parts = [rng.choice(_LOGS) for _ in range(rng.choice((1, 1, 2, 5, 30)))]
    content = "".join(parts)
    kind = rng.random()
    if kind < 0.4:
        words = content.split(" ")
        for _ in range(rng.randrange(1, 6)):
            words[rng.randrange(len(words))] = rng.choice((*_NUMBERS, text(rng, longest=30_000)))
        content = " ".join(words)
    elif kind < 0.7:
        content = damaged(rng, content.encode(), block=32).decode(errors="replace")
    elif kind < 0.8:
        at = rng.randrange(len(content))
        content = (
            content[:at]
            + rng.choice(("{", "[", '"', "|", ",", "'", "(", "\\", "= ")) * rng.choice((3, 3000, 100_000))
            + content[at:]
        )
    elif kind < 0.9:
        content = json.dumps(_tree(rng, 0))
    else:
        content = content * rng.choice((1, 50)) + text(rng)
    for numbers in parse_output(content):
        assert isinstance(numbers.label, str)


def _tree(rng: Random, depth: int) -> Any:
    kind = rng.randrange(9)
    if kind <= 2 and depth < 6:
        keys = ("timings", "prompt_n", "prompt_ms", "avg_ts", "n_gen", "build_commit", "samples_ns", "n_prompt", "x")
        return {rng.choice(keys): _tree(rng, depth + 1) for _ in range(rng.randrange(5))}
    if kind == 3 and depth < 6:
        return [_tree(rng, depth + 1) for _ in range(rng.randrange(5))]
    return rng.choice((number(rng), text(rng, longest=500), None, True, 1.5, float("nan"), float("inf"), 10**400))


_RULE = {
    "regex": "mul_mat_q", "category": "matmul_quant", "family": "x", "what": "y", "quants": [["2", "F16"]],
    "args": ["tile_cols ..."], "fused": ["add"],
}  # fmt: skip


def rules(rng: Random, folder: Path) -> None:
    document: Any = {"rules": [dict(_RULE) for _ in range(rng.randrange(1, 4))]}
    for _ in range(rng.randrange(1, 4)):
        rule = rng.choice(document["rules"])
        kind = rng.randrange(7)
        key = rng.choice(("regex", "category", "family", "sub", "what", "quants", "args", "fused", "contains", "zz"))
        if kind == 0:
            rule.pop(key, None)
        elif kind == 1:
            rule["regex"] = rng.choice(("(", "[", "(?P<quant>.*)", "(?P<x>", "\\", "(a|b)*c", ".*", "", "(?:x){0,9}", "x{99999999999}",
                                        "(?<=a+)", "(" * 2000, "(?P<quant>)(?P<batch>x*)", "\\9", "(?P<batch>[^0-9]*)", "^(?P<args>.*)$", "[\\ud800]"))  # fmt: skip
        else:
            rule[key] = rng.choice(
                (_tree(rng, 3), text(rng, longest=500), [["(", "F16"]], [["x"]], [[1, 2]], ["a", 5], {"a": 1})
            )
    content = json.dumps(document) if rng.random() < 0.9 else json.dumps(_tree(rng, 0))
    raw = content.encode() if rng.random() < 0.8 else damaged(rng, content.encode(), block=16)
    if rng.random() < 0.02:
        raw = b"[" * 100_000
    path = folder / "rules.json"
    path.write_bytes(raw)
    chosen = KernelRules.load(path)
    names = ["mul_mat_q<(ggml_type)2>", text(rng, longest=5_000), ""]
    for name in names:
        chosen.classify(None, name)
    chosen.classify_frame(pl.DataFrame({"name_id": [1, 2], "short_name": [None, "k"], "name": names[:2]}))
