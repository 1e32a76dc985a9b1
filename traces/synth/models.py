"""Shapes of models: enough to know which kernels run, which bytes they read and what is copied."""

from __future__ import annotations

from dataclasses import dataclass

BITS = {"F16": 16.0, "F32": 32.0, "Q4_0": 4.5, "Q8_0": 8.5, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.5625}
"""Bits per weight."""
TYPE_NUMBER = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14}
"""ggml_type, as template arguments carry it."""

_NORM_BYTES = 4


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder-only model.

    Attributes:
        style: ``fused`` (2025 and later), ``plain`` (a kernel per op, as in early 2025) or ``gemma3`` (plain, with
            the extra norms of that family).
        tied: the output layer reads the embedding table.
        n_expert, n_expert_used, n_ff_expert: 0 for dense models.
        kv_indices: uploads carry KV indices (mid 2025 and later).
        window: cells that local attention layers look at, 0 when all layers look at everything.
        position_bytes: of a token's position; 16 with M-RoPE.
    """

    name: str
    type_name: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_vocab: int
    n_head: int
    n_head_kv: int
    head_dim: int
    weight: str
    weight_down: str
    weight_output: str
    style: str = "fused"
    tied: bool = False
    n_expert: int = 0
    n_expert_used: int = 0
    n_ff_expert: int = 0
    weight_expert: str = "Q4_K"
    kv_indices: bool = True
    neox: bool = True
    window: int = 0
    position_bytes: int = 4

    def matrices(self) -> list[tuple[str, int, int]]:
        """(type, rows, columns) of one layer's matrices that every token reads, experts aside."""
        q, kv = self.n_head * self.head_dim, self.n_head_kv * self.head_dim
        attention = [(self.weight, q, self.n_embd), (self.weight, kv, self.n_embd),
                     (self.weight_down, kv, self.n_embd), (self.weight, self.n_embd, q)]  # fmt: skip
        dense = [(self.weight, self.n_ff, self.n_embd), (self.weight, self.n_ff, self.n_embd),
                 (self.weight_down, self.n_embd, self.n_ff)]  # fmt: skip
        return attention + (dense if self.n_ff else [])

    def expert_bytes(self) -> int:
        """Bytes of one expert of one layer."""
        return round(3 * self.n_embd * self.n_ff_expert * BITS[self.weight_expert] / 8)

    def kv_bytes(self) -> int:
        """Bytes that the cache holds per token over all layers, half precision."""
        return self.n_layer * 2 * self.n_head_kv * self.head_dim * 2

    def tensors(self) -> list[int]:
        """Bytes of every tensor that is uploaded, experts on the CPU left out, in the order of the file."""
        sizes = [_bytes(self.weight_output, self.n_vocab, self.n_embd), self.n_embd * _NORM_BYTES]
        norms = {"gemma3": 6, "plain": 2}.get(self.style, 2)
        for _ in range(self.n_layer):
            sizes += [_bytes(*matrix) for matrix in self.matrices()]
            sizes += [self.n_embd * _NORM_BYTES] * norms
        return sizes

    def read_bytes(self) -> int:
        """Bytes of weights on the GPU that one token reads."""
        return sum(self.tensors())


def _bytes(kind: str, rows: int, columns: int) -> int:
    return round(rows * columns * BITS[kind] / 8)


GEMMA3_4B_F16 = Model(
    "gemma-3-4b-it-f16", "gemma3 4B F16", 34, 2560, 10240, 262_144, 8, 4, 256, "F16", "F16", "F16",
    style="gemma3", tied=True, kv_indices=False, window=1024,
)  # fmt: skip
TINYLLAMA_Q4_K_M = Model(
    "tinyllama-1.1b-chat-v1.0.Q4_K_M", "llama 1B Q4_K - Medium", 22, 2048, 5632, 32_000, 32, 4, 64,
    "Q4_K", "Q6_K", "Q6_K", neox=False,
)  # fmt: skip
LLAMA3_8B_Q4_K_M = Model(
    "Meta-Llama-3.1-8B-Instruct-Q4_K_M", "llama 8B Q4_K - Medium", 32, 4096, 14_336, 128_256, 32, 8, 128,
    "Q4_K", "Q6_K", "Q6_K", neox=False,
)  # fmt: skip
LLAMA3_1B_Q8_0 = Model(
    "Llama-3.2-1B-Instruct-Q8_0", "llama 1B Q8_0", 16, 2048, 8192, 128_256, 32, 8, 64, "Q8_0", "Q8_0", "Q8_0",
    tied=True, neox=False,
)  # fmt: skip
QWEN_05B_Q4_K_M = Model(
    "qwen2.5-0.5b-instruct-q4_k_m", "qwen2 1B Q4_K - Medium", 24, 896, 4864, 151_936, 14, 2, 64,
    "Q5_K", "Q8_0", "Q8_0", tied=True,
)  # fmt: skip
QWEN_VL_3B_Q4_K_M = Model(
    "Qwen2.5-VL-3B-Instruct-Q4_K_M", "qwen2vl 3B Q4_K - Medium", 36, 2048, 11_008, 151_936, 16, 2, 128,
    "Q4_K", "Q6_K", "Q6_K", tied=True, position_bytes=16,
)  # fmt: skip
STORIES_15M_Q8_0 = Model(
    "stories15M-q8_0", "llama ?B Q8_0", 6, 288, 768, 32_000, 6, 6, 48, "Q8_0", "Q8_0", "Q8_0", neox=False
)
GLM_AIR_EXPERTS_ON_CPU = Model(
    "GLM-4.5-Air-Q4_K_M", "glm4moe 106B.A12B Q4_K - Medium", 47, 4096, 1408, 151_552, 96, 8, 128,
    "Q8_0", "Q8_0", "Q6_K", n_expert=128, n_expert_used=8, n_ff_expert=1408,
)  # fmt: skip
MOE_SMALL_EXPERTS_ON_CPU = Model(
    "moe-small-Q4_K_M", "moe 4B.A1B Q4_K - Medium", 10, 2048, 768, 32_000, 16, 4, 128, "Q8_0", "Q8_0", "Q6_K",
    n_expert=64, n_expert_used=6, n_ff_expert=768,
)  # fmt: skip
