"""The header of a GGUF file for a model of the generator: its tensors with their true shapes and formats, no data."""

from __future__ import annotations

import struct
from pathlib import Path

from traces.synth.models import TYPE_NUMBER, Model


def write_header(path: Path, model: Model, *, types: dict[str, str] | None = None, drop: tuple[str, ...] = ()) -> Path:
    """Write the header. ``types`` gives some roles another format, ``drop`` leaves tensors out."""
    arch = "qwen3moe" if model.n_expert else "gemma3" if model.style == "gemma3" else "llama"
    keys = {
        "block_count": model.n_layer, "embedding_length": model.n_embd, "vocab_size": model.n_vocab,
        "attention.head_count": model.n_head, "attention.head_count_kv": model.n_head_kv,
        "attention.key_length": model.head_dim, "attention.value_length": model.head_dim,
        "expert_count": model.n_expert, "expert_used_count": model.n_expert_used,
    }  # fmt: skip
    tensors = [(name, *rest) for name, *rest in _tensors(model) if name not in drop]
    body = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys) + 1)
    body += _text("general.architecture") + struct.pack("<I", 8) + _text(arch)
    for key, value in keys.items():
        body += _text(f"{arch}.{key}") + struct.pack("<II", 4, value)
    for name, kind, rows, columns in tensors:
        role = name.split(".")[-2]
        number = TYPE_NUMBER[(types or {}).get(role, kind)]
        shape = [columns, rows] if rows else [columns]
        body += _text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        body += struct.pack("<IQ", number, 0)
    path.write_bytes(body)
    return path


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _tensors(model: Model) -> list[tuple[str, str, int, int]]:
    """(name, format, rows, columns); rows 0: a vector."""
    rows: list[tuple[str, str, int, int]] = [("token_embd.weight", model.weight_output, model.n_vocab, model.n_embd)]
    if not model.tied:
        rows.append(("output.weight", model.weight_output, model.n_vocab, model.n_embd))
    shared = "_shexp" if model.n_expert else ""
    feed = (f"ffn_gate{shared}", f"ffn_up{shared}", f"ffn_down{shared}")
    roles = ("attn_q", "attn_k", "attn_v", "attn_output", *feed)
    for layer in range(model.n_layer):
        rows.append((f"blk.{layer}.attn_norm.weight", "F32", 0, model.n_embd))
        rows += [(f"blk.{layer}.{role}.weight", *matrix) for role, matrix in zip(roles, model.matrices(), strict=True)]
        if model.n_expert:
            rows.append((f"blk.{layer}.ffn_gate_inp.weight", "F32", model.n_expert, model.n_embd))
    return rows
