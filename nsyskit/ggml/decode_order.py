"""The order in which llama.cpp multiplies with the matrices of a model, token by token.

One layer after another: the projections, attention, the output projection, then the feed-forward part. What differs
between versions of llama.cpp and how it was started is a ``_Way``: the order of V and K and of gate and up, whether
the last two are one kernel, whether flash attention runs or two more products around a softmax, whether experts are on
the GPU, and whether their router ends in a softmax of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from nsyskit.ggml.gguf_file import ModelFacts, Tensor, active_bytes

ATTENTION: Final = "attention"
"""Stands in an order for the kernels of attention itself, or for the softmax without flash attention."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix product, or ``ATTENTION``.

    Attributes:
        role: llama.cpp's name; two tensors in one kernel are joined by `` + ``. ``kq`` and ``kqv`` are the products
            with the cache.
        layer: None for the output layer.
        type: of the weights, None for the cache.
        rows: of the result, None for the cache.
        bytes: that one token reads.
    """

    role: str
    layer: int | None = None
    type: str | None = None
    rows: int | None = None
    bytes: int = 0


Order = tuple[Matrix, ...]

_BEFORE: Final = (("attn_qkv",), ("attn_q", "attn_k", "attn_v"), ("attn_q", "attn_v", "attn_k"))
_AFTER: Final = ("attn_output",)
_ROUTED: Final = (("ffn_gate_inp",), ("ffn_gate_exps", "ffn_up_exps"), ("ffn_down_exps",))
_SHARED: Final = (("ffn_gate_inp_shexp",), ("ffn_gate_shexp", "ffn_up_shexp"), ("ffn_down_shexp",))
_DENSE: Final = (("ffn_gate", "ffn_up"), ("ffn_down",))
_KNOWN: Final = frozenset(
    role
    for group in (*_BEFORE, _AFTER, *_ROUTED, *_SHARED, *_DENSE)
    for role in group
)  # fmt: skip


def unknown_roles(tensors: Sequence[Tensor]) -> list[str]:
    """Matrices of layers whose place in the order is not known here."""
    return sorted(
        {one.role for one in tensors if len(one.shape) > 1 and one.layer is not None and one.role not in _KNOWN}
    )


def orders(facts: ModelFacts, tensors: Sequence[Tensor]) -> list[Order]:
    """Every order in which llama.cpp may multiply with these tensors for one token, each once."""
    found = [tuple(_order(facts, tensors, _Way(*way))) for way in product((False, True), repeat=6)]
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class _Way:
    v_first: bool
    up_first: bool
    fused: bool
    flash: bool
    experts: bool
    router_softmax: bool


def _order(facts: ModelFacts, tensors: Sequence[Tensor], way: _Way) -> Iterator[Matrix]:
    layers: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
    for tensor in tensors:
        if tensor.layer is not None and tensor.layer < facts.layers and tensor.name.endswith("weight"):
            layers[tensor.layer][tensor.role] = tensor
    for layer in sorted(layers):
        yield from _attention(facts, layers[layer], layer, way)
        yield from _feed_forward(facts, layers[layer], way)
    names = {tensor.name: tensor for tensor in tensors}
    head = names.get("output.weight") or (names.get("token_embd.weight") if facts.tied else None)
    if head is not None:
        yield Matrix("output", None, head.type, head.shape[1], head.bytes)


def _attention(facts: ModelFacts, own: dict[str, Tensor], layer: int, way: _Way) -> Iterator[Matrix]:
    if not {"attn_qkv", "attn_q"} & set(own):
        return
    for role in _BEFORE[0] if "attn_qkv" in own else _BEFORE[2 if way.v_first else 1]:
        if role in own:
            yield _matrix(facts, own[role])
    if not way.flash:
        yield Matrix("kq", layer)
    yield Matrix(ATTENTION, layer)
    if not way.flash:
        yield Matrix("kqv", layer)
    yield from (_matrix(facts, own[role]) for role in _AFTER if role in own)


def _feed_forward(facts: ModelFacts, own: dict[str, Tensor], way: _Way) -> Iterator[Matrix]:
    routed = _ROUTED if way.experts else _ROUTED[:1]
    for group in (*routed, *_SHARED, *_DENSE):
        there = [own[role] for role in group if role in own]
        if len(there) == 2 and way.fused and there[0].type == there[1].type:
            gate, up = there
            size = active_bytes(facts, gate) + active_bytes(facts, up)
            yield Matrix(f"{gate.role} + {up.role}", gate.layer, gate.type, _rows(gate), size)
        else:
            yield from (_matrix(facts, one) for one in (there[::-1] if way.up_first else there))
        if way.router_softmax and group == _ROUTED[0] and there:
            yield Matrix(ATTENTION, there[0].layer)


def _matrix(facts: ModelFacts, tensor: Tensor) -> Matrix:
    return Matrix(tensor.role, tensor.layer, tensor.type, _rows(tensor), active_bytes(facts, tensor))


def _rows(tensor: Tensor) -> int:
    return tensor.shape[1] if len(tensor.shape) > 1 else 1
