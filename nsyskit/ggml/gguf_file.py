"""Facts of a model out of its GGUF file: shapes, bytes by role and type, and what a token makes the GPU read.

Only headers are read, of all parts of a split file.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nsyskit.errors import TraceFormatError, UsageError
from nsyskit.ggml.gguf_header import Header, TensorInfo, Value, read_header
from nsyskit.ggml.quants import bits_per_weight, type_name


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor. ``role`` is llama.cpp's name of what it does; ``shape`` is in ggml's order, row length first."""

    name: str
    role: str
    layer: int | None
    type: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a GGUF file says about its model. Counts that the file does not give are None.

    Attributes:
        file: the file's name without its folders; of a split model the first part's.
        parts: files it consists of.
        file_bytes: size of all of them.
        architecture: llama.cpp's name, such as ``qwen3moe``.
        layers: transformer blocks that a decode step runs; layers for multi-token prediction are not among them.
        heads: query heads, one number a layer.
        kv_heads: KV heads, one number a layer; 0 in a layer without attention.
        head_size_k: elements of a key of one head.
        head_size_v: elements of a value of one head.
        kv_widths: elements of K and of V that the cache holds of one token, one pair a layer. With multi-head latent
            attention there is no V: llama.cpp caches the latent vector once.
        context: context length of the training.
        embedding: width of the hidden state.
        vocab: tokens.
        experts: experts a layer, 0 in a dense model.
        experts_used: of those, read for one token.
        sliding_window: tokens that the layers with a sliding window look back, None without any.
        tied: the output layer is the token embedding; there is no ``output.weight``.
        has_data: False for a file that ends with its header.
    """

    file: str
    parts: int
    file_bytes: int
    architecture: str
    name: str | None
    layers: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    head_size_k: int | None
    head_size_v: int | None
    kv_widths: tuple[tuple[int, int], ...]
    context: int | None
    embedding: int | None
    vocab: int | None
    experts: int
    experts_used: int
    sliding_window: int | None
    tied: bool
    has_data: bool
    tensors: tuple[Tensor, ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors, without the header and the padding between them."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def bytes_by_role(self) -> dict[str, int]:
        """Role -> bytes, largest first."""
        return _sum_by(self.tensors, lambda tensor: tensor.role)

    @property
    def bytes_by_type(self) -> dict[str, int]:
        """Quantisation type -> bytes, largest first."""
        return _sum_by(self.tensors, lambda tensor: tensor.type)


def read_model(path: Path | str) -> ModelFacts:
    """Read the facts of a model from its GGUF file; of a split one any part will do.

    Raises:
        UsageError: there is no such file, or it is no language model.
        TraceFormatError: a file is no GGUF file or a damaged one, or a part of a split model is missing.
    """
    headers = _read_parts(Path(path))
    first = headers[0]
    _check_is_model(first)
    tensors = tuple(tensor for header in headers for tensor in _tensors(header))
    keys = _Keys(first.keys)
    layers = max(0, (keys.count("block_count") or 0) - (keys.count("nextn_predict_layers") or 0))
    heads = keys.per_layer("attention.head_count", layers)
    kv_heads = keys.per_layer("attention.head_count_kv", layers) or heads
    kv_heads = _without_attention(tensors, kv_heads)
    embedding = keys.count("embedding_length")
    some_heads = next((count for count in heads if count), None)
    head_size = embedding // some_heads if embedding and some_heads else None
    head_size_k = keys.count("attention.key_length") or head_size
    head_size_v = keys.count("attention.value_length") or head_size
    experts = keys.count("expert_count") or 0
    name = first.keys.get("general.name")
    return ModelFacts(
        file=first.name,
        parts=len(headers),
        file_bytes=sum(header.file_bytes for header in headers),
        architecture=keys.architecture,
        name=name if isinstance(name, str) else None,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size_k=head_size_k,
        head_size_v=head_size_v,
        kv_widths=_kv_widths(keys, tensors, kv_heads, (head_size_k or 0, head_size_v or 0)),
        context=keys.count("context_length"),
        embedding=embedding,
        vocab=keys.count("vocab_size") or first.array_lengths.get("tokenizer.ggml.tokens"),
        experts=experts,
        experts_used=min(keys.count("expert_used_count") or 0, experts),
        sliding_window=keys.count("attention.sliding_window") or None,
        tied=bool(tensors) and not any(tensor.name == "output.weight" for tensor in tensors),
        has_data=any(header.file_bytes > header.data_offset for header in headers),
        tensors=tensors,
    )


def bytes_per_token(facts: ModelFacts) -> int:
    """Bytes of weights that decoding one token reads: of experts the active ones, no embedding table unless tied.

    What one sequence reads; a batch reads no more, but its tokens may need other experts. The KV cache is apart, see
    ``kv_bytes_per_token``.
    """
    return sum(active_bytes(facts, tensor) for tensor in facts.tensors)


def weights_per_token(facts: ModelFacts) -> int:
    """Weights that one token is multiplied with: two FLOPs each, attention apart."""
    return sum(active_elements(facts, tensor) for tensor in facts.tensors if len(tensor.shape) > 1)


def active_bytes(facts: ModelFacts, tensor: Tensor) -> int:
    """Bytes of a tensor that decoding one token reads."""
    return _active(facts, tensor, tensor.bytes)


def active_elements(facts: ModelFacts, tensor: Tensor) -> int:
    """Elements of a tensor that decoding one token takes."""
    return _active(facts, tensor, tensor.elements)


def kv_bytes_per_token(facts: ModelFacts, *, type_k: str = "f16", type_v: str = "f16") -> int:
    """Bytes that the KV cache holds of one token, in all layers; a decode step reads them for each token in context.

    Raises:
        UsageError: an unknown cache type.
    """
    bits_k, bits_v = _cache_bits(type_k), _cache_bits(type_v)
    return int(sum(width_k * bits_k + width_v * bits_v for width_k, width_v in facts.kv_widths) / 8)


def kv_bytes(facts: ModelFacts, n_ctx: int, *, type_k: str = "f16", type_v: str = "f16") -> int:
    """Bytes of the KV cache for a context, every layer in full.

    An upper bound for models with sliding windows: llama.cpp keeps only the window in those layers unless it runs with
    ``--swa-full``.
    """
    return kv_bytes_per_token(facts, type_k=type_k, type_v=type_v) * n_ctx


CACHE_TYPES: Final = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""What llama.cpp takes for ``-ctk`` and ``-ctv``."""


def _cache_bits(name: str) -> float:
    bits = bits_per_weight(name.upper()) if name.lower() in CACHE_TYPES else None
    if bits is None:
        raise UsageError(f"{name!r} is no type of a KV cache", hint=f"give one of {', '.join(CACHE_TYPES)}")
    return bits


# Looked up a row a token, not read as a whole; inputs of other kinds; and what decoding never touches.
_LOOKED_UP: Final = frozenset({"position_embd", "token_types", "per_layer_token_embd"})


def _active(facts: ModelFacts, tensor: Tensor, amount: int) -> int:
    """The part of an amount (bytes, elements) of a tensor that one decoded token takes."""
    if tensor.role == "token_embd":
        return amount if facts.tied else 0
    if tensor.role in _LOOKED_UP or tensor.name.startswith("enc."):
        return 0
    if tensor.layer is not None and tensor.layer >= facts.layers > 0:  # multi-token prediction, a draft of its own
        return 0
    if tensor.role.endswith("_exps") and facts.experts:
        return amount * facts.experts_used // facts.experts
    return amount


# --- split files

_PART: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def _read_parts(path: Path) -> tuple[Header, ...]:
    header = read_header(path)
    count = header.keys.get("split.count", 0)
    if not isinstance(count, int) or count < 2:
        return (header,)
    named = _PART.fullmatch(path.name)
    if named is None or int(named["count"]) != count:
        raise TraceFormatError(
            f"{path.name} is one of {count} parts, but its name does not say which",
            hint=f"name the parts MODEL-00001-of-{count:05}.gguf and so on, as they were",
        )
    paths = [path.with_name(f"{named['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    missing = [part.name for part in paths if not part.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise TraceFormatError(
            f"{missing[0]}{more} of the {count} parts of this model is missing",
            hint="put all parts into one folder",
        )
    headers = tuple(header if part == path else read_header(part) for part in paths)
    total = headers[0].keys.get("split.tensors.count")
    found = sum(len(part.tensors) for part in headers)
    if isinstance(total, int) and total != found:
        raise TraceFormatError(
            f"the parts of {paths[0].name} hold {found} tensors instead of {total}",
            hint="take all parts from one download",
        )
    return headers


def _check_is_model(header: Header) -> None:
    architecture, kind = header.keys.get("general.architecture"), header.keys.get("general.type", "model")
    if kind != "model" or architecture == "clip":
        what = kind if kind != "model" else "mmproj"
        raise UsageError(
            f"{header.name} is no language model but of type {what}", hint="give the model's own GGUF file"
        )
    if not isinstance(architecture, str):
        raise TraceFormatError(f"{header.name} names no architecture", hint="download or convert the model again")


# --- keys


class _Keys:
    """The keys of an architecture, read without trust."""

    def __init__(self, keys: Mapping[str, Value]) -> None:
        self._keys = keys
        self.architecture = str(keys["general.architecture"])

    def value(self, name: str) -> Value | None:
        return self._keys.get(f"{self.architecture}.{name}")

    def count(self, name: str) -> int | None:
        """A count; of a per-layer array the largest."""
        value = self.value(name)
        if isinstance(value, tuple):
            return max((int(item) for item in value if item >= 0), default=None)
        return value if isinstance(value, int) and 0 <= value < 1 << 32 else None

    def per_layer(self, name: str, layers: int) -> tuple[int, ...]:
        """One number a layer, whether the file gives one for all or an array."""
        value = self.value(name)
        if isinstance(value, tuple):
            return tuple(max(0, int(item)) for item in value[:layers])
        count = self.count(name)
        # A damaged count of layers must not become a tuple of that length.
        return () if count is None or layers > 1 << 16 else (count,) * layers


def _without_attention(tensors: tuple[Tensor, ...], kv_heads: tuple[int, ...]) -> tuple[int, ...]:
    """KV heads with 0 in recurrent layers: hybrids give one number for all layers, though only some have a KV cache."""
    recurrent = {tensor.layer for tensor in tensors if tensor.role.startswith(("ssm_", "time_mix", "shortconv"))}
    attends = {tensor.layer for tensor in tensors if tensor.role in {"attn_k", "attn_kv_a_mqa"}}
    return tuple(0 if layer in recurrent - attends else count for layer, count in enumerate(kv_heads))


def _kv_widths(
    keys: _Keys, tensors: tuple[Tensor, ...], kv_heads: tuple[int, ...], head_sizes: tuple[int, int]
) -> tuple[tuple[int, int], ...]:
    """Widths of K and V a layer: of the projections where the file lists them, else heads times head size."""
    latent = keys.count("attention.key_length_mla") is not None
    own = len(kv_heads) - (keys.count("attention.shared_kv_layers") or 0)  # later layers use an earlier one's cache
    projections: dict[tuple[int, str], int] = {
        (tensor.layer, tensor.role): tensor.shape[1]
        for tensor in tensors
        if tensor.layer is not None and tensor.role in {"attn_k", "attn_v"} and len(tensor.shape) == 2
    }
    widths = []
    for layer, count in enumerate(kv_heads):
        if not count or layer >= own:
            widths.append((0, 0))
        elif latent:
            widths.append((count * head_sizes[0], 0))
        else:
            width_k = projections.get((layer, "attn_k"), count * head_sizes[0])
            # Layers with K and no V projection use K for both, and cache both.
            same = (layer, "attn_k") in projections and head_sizes[0] == head_sizes[1]
            width_v = projections.get((layer, "attn_v"), width_k if same else count * head_sizes[1])
            widths.append((width_k, width_v))
    return tuple(widths)


# --- tensors

_ROLE: Final = re.compile(
    r"(?:(?:enc|dec)\.)?(?:blk\.(?P<layer>\d{1,6})\.)?(?P<base>[\w.]+?)(?:\.(?:weight|bias|scale))?"
)
_ONE_EXPERT: Final = re.compile(r"(ffn_(?:gate|up|down))\.\d+")  # Mixtral files of early 2024: a tensor an expert
_ROLE_PREFIXES: Final = ("attn_", "ffn_", "ssm_", "time_mix", "channel_mix", "shortconv", "nextn")


def _role(name: str) -> tuple[str, int | None]:
    """The role of a tensor and its layer.

    >>> _role("blk.3.ffn_down_exps.weight"), _role("blk.0.attn_norm.weight"), _role("output.weight")
    (('ffn_down_exps', 3), ('norms', 0), ('output', None))
    """
    match = _ROLE.fullmatch(name)
    if match is None:
        return "other", None
    layer = int(match["layer"]) if match["layer"] else None
    base = _ONE_EXPERT.sub(r"\1_exps", match["base"])
    if "norm" in base:
        return "norms", layer
    if base in {"token_embd", "output"} or base in _LOOKED_UP or base.startswith(_ROLE_PREFIXES):
        return base, layer
    return "other", layer


def _tensors(header: Header) -> Iterator[Tensor]:
    ends = _ends(header)
    data_bytes = header.file_bytes - header.data_offset
    needed = 0
    for info in header.tensors:
        size = _tensor_bytes(info, ends)
        needed = max(needed, info.offset + size)
        role, layer = _role(info.name)
        yield Tensor(info.name, role, layer, type_name(info.type_number), info.shape, size)
    if 0 < data_bytes < needed:
        raise TraceFormatError(
            f"{header.name} is cut off: it holds {header.file_bytes:,} of {header.data_offset + needed:,} bytes",
            hint="download or copy it again",
        )


def _tensor_bytes(info: TensorInfo, ends: Mapping[int, int]) -> int:
    bits = bits_per_weight(type_name(info.type_number))
    if bits is None:  # a type newer than this table, or a fork's: the place of the next tensor tells
        return max(0, ends[info.offset] - info.offset)
    return int(info.elements * bits) // 8


def _ends(header: Header) -> dict[int, int]:
    """Offset of each tensor -> offset of the next one, or of the end of the file."""
    offsets = sorted({info.offset for info in header.tensors})
    last = max(header.file_bytes - header.data_offset, 0)
    return dict(zip(offsets, [*offsets[1:], last], strict=True)) if offsets else {}


def _sum_by(tensors: tuple[Tensor, ...], key: Callable[[Tensor], str]) -> dict[str, int]:
    sums: defaultdict[str, int] = defaultdict(int)
    for tensor in tensors:
        sums[key(tensor)] += tensor.bytes
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))
