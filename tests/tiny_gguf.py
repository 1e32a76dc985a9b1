"""Write a tiny GGUF model with random weights that the real llama.cpp tools load and run.

The vocabulary is the 256 bytes, a few control tokens and the space, so that an ASCII prompt has a known number of
tokens: one a character, one for the beginning of text, one for the space that the tokenizer puts in front.

    python tests/tiny_gguf.py tiny.gguf
    python tests/tiny_gguf.py moe.gguf --arch qwen3moe --experts 8 --experts-used 2
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gguf import GGUFWriter

CONTROL_TOKENS = ("<unk>", "<s>", "</s>")
SPACE = "\u2581"  # SentencePiece's mark; as bytes it would be three tokens
VOCAB = len(CONTROL_TOKENS) + 256 + 1


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """Shapes of a tiny model. With ``experts`` the feed-forward part is a mixture of them."""

    arch: str = "llama"
    layers: int = 4
    width: int = 256
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 512
    experts: int = 0
    experts_used: int = 0
    shared_ffn: int = 0
    tied: bool = False
    context: int = 4096
    quant: str = "F16"
    split: int = 0
    seed: int = 0

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def kv_width(self) -> int:
        return self.head_dim * self.kv_heads


def write_tiny_gguf(path: Path | str, *, layers: int = 4, width: int = 256, **shape: object) -> Path:
    """Write a model with random weights and return its path; other options are the fields of ``TinyModel``."""
    from gguf import GGUFWriter

    model = TinyModel(layers=layers, width=width, **shape)  # type: ignore[arg-type]
    writer = GGUFWriter(str(path), model.arch, split_max_tensors=model.split)
    _write_facts(writer, model)
    _write_vocabulary(writer)
    _write_tensors(writer, model)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def _write_facts(writer: GGUFWriter, model: TinyModel) -> None:
    from gguf import LlamaFileType

    writer.add_name("tiny random")
    writer.add_file_type(LlamaFileType[f"MOSTLY_{model.quant}"])  # else llama.cpp guesses, and says so in its tables
    writer.add_context_length(model.context)
    writer.add_embedding_length(model.width)
    writer.add_block_count(model.layers)
    writer.add_feed_forward_length(model.ffn)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_key_length(model.head_dim)
    writer.add_value_length(model.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_vocab_size(VOCAB)
    if model.experts:
        writer.add_expert_count(model.experts)
        writer.add_expert_used_count(model.experts_used)
        writer.add_expert_feed_forward_length(model.ffn)
        if model.shared_ffn:
            writer.add_expert_shared_feed_forward_length(model.shared_ffn)


def _write_vocabulary(writer: GGUFWriter) -> None:
    from gguf import TokenType

    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256 + [TokenType.NORMAL]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*CONTROL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), SPACE])
    writer.add_token_scores([0.0] * VOCAB)
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _write_tensors(writer: GGUFWriter, model: TinyModel) -> None:
    from gguf import GGMLQuantizationType, quants

    rng = np.random.default_rng(model.seed)
    quant = GGMLQuantizationType[model.quant]
    for name, shape in _shapes(model):
        if "norm" in name or "gate_inp" in name:  # llama.cpp keeps these in F32
            values = np.ones(shape) if "norm" in name else rng.standard_normal(shape) * 0.05
            writer.add_tensor(name, values.astype(np.float32))
        elif quant == GGMLQuantizationType.F16:
            writer.add_tensor(name, (rng.standard_normal(shape) * 0.05).astype(np.float16))
        else:
            values = (rng.standard_normal(shape) * 0.05).astype(np.float32)
            writer.add_tensor(name, quants.quantize(values, quant), raw_dtype=quant)


def _shapes(model: TinyModel) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (VOCAB, model.width)
    for layer in range(model.layers):
        for name, shape in (*_attention(model), *_feed_forward(model)):
            yield f"blk.{layer}.{name}.weight", shape
    yield "output_norm.weight", (model.width,)
    if not model.tied:
        yield "output.weight", (VOCAB, model.width)


def _attention(model: TinyModel) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "attn_norm", (model.width,)
    yield "attn_q", (model.width, model.width)
    yield "attn_k", (model.kv_width, model.width)
    yield "attn_v", (model.kv_width, model.width)
    yield "attn_output", (model.width, model.width)
    if model.arch == "qwen3moe":
        yield "attn_q_norm", (model.head_dim,)
        yield "attn_k_norm", (model.head_dim,)


def _feed_forward(model: TinyModel) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "ffn_norm", (model.width,)
    if not model.experts:
        yield "ffn_gate", (model.ffn, model.width)
        yield "ffn_up", (model.ffn, model.width)
        yield "ffn_down", (model.width, model.ffn)
        return
    yield "ffn_gate_inp", (model.experts, model.width)
    yield "ffn_gate_exps", (model.experts, model.ffn, model.width)
    yield "ffn_up_exps", (model.experts, model.ffn, model.width)
    yield "ffn_down_exps", (model.experts, model.width, model.ffn)
    if model.shared_ffn:  # qwen2moe: experts that every token goes through
        yield "ffn_gate_inp_shexp", (model.width,)
        yield "ffn_gate_shexp", (model.shared_ffn, model.width)
        yield "ffn_up_shexp", (model.shared_ffn, model.width)
        yield "ffn_down_shexp", (model.width, model.shared_ffn)


def main() -> None:
    """Write the model that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tied", action="store_true", help="no output.weight: token_embd is read twice")
    defaults = TinyModel()
    for name in ("arch", "quant"):
        parser.add_argument(f"--{name}", default=getattr(defaults, name))
    for name in ("layers", "width", "heads", "kv_heads", "ffn", "experts", "experts_used", "shared_ffn", "context"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name))
    for name in ("split", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    options = vars(parser.parse_args())
    write_tiny_gguf(options.pop("out"), **options)


if __name__ == "__main__":
    main()
