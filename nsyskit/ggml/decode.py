"""What a demangled kernel name says: its base name, its template arguments, and what ggml means by them.

nsys prints arguments with their type, ``mul_mat_q<(ggml_type)12, (int)128, (bool)0>``; other tools print them bare,
``mul_mat_q<12, 128, 0>`` or ``&(op_mul(float, float))`` for ``&op_mul``. Both are read. Which argument means what
differs between versions of llama.cpp, so a kernel has several *layouts*, tried in order: one field an argument, and a
layout applies only when the number of arguments and the kind of each fit it. Where none fits, nothing is decoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nsyskit.ggml import quants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Layout = tuple[str, ...]
Value = str | int | bool

_INTEGER = re.compile(r"(?:\((?:unsigned )?(?:int|long long|long|short|char|size_t)\))?(-?\d+)[uUlL]*")
_BOOLEAN = re.compile(r"(?:\(bool\))?([01])|(true|false)")
_GGML_TYPE = re.compile(r"\(ggml_type\)(\d+)|(\d+)|(?:ggml_type::)?GGML_TYPE_(\w+)")
_CPP_TYPE = re.compile(r"(?!true$|false$)[A-Za-z_][\w:]*(?: [A-Za-z_][\w:]*)*[ *&]*")
_FUNCTION = re.compile(r"&\(?(?:\w+::)*(\w+)(?:[(<].*)?|(?!true$|false$)(?:\w+::)*([A-Za-z_]\w*)")
_FORMAT = re.compile("|".join(rf"(?<![a-z0-9]){name}(?![a-z0-9])" for name in quants.NAMES))
_CPP_FORMATS: Final = {
    "half": "F16", "__half": "F16", "half2": "F16", "__half2": "F16",
    "nv_bfloat16": "BF16", "__nv_bfloat16": "BF16", "nv_bfloat162": "BF16", "__nv_bfloat162": "BF16",
    "float": "F32", "float2": "F32", "double": "F64", "int": "I32", "long": "I64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class KernelName:
    """A demangled name taken apart: base name without namespaces, template arguments as printed."""

    short: str
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What template arguments say; None where they do not. `nsyskit.ggml.catalogue.KernelInfo` explains each."""

    quant: str | None = None
    batch: int | None = None
    tile_cols: int | None = None
    tile_heads: int | None = None
    head_k: int | None = None
    head_v: int | None = None
    type_k: str | None = None
    type_v: str | None = None
    op: str | None = None
    fused: tuple[str, ...] = ()


def parse_name(name: str) -> KernelName:
    """Take a demangled name apart: ``void ns::f<(int)3, float>(T1 *)`` is ``f`` with ``(int)3`` and ``float``.

    Of a name that was cut off inside its template arguments the complete ones are kept.
    """
    text = name.replace("(anonymous namespace)", "_").replace("<unnamed>", "_")
    depth, opened, end = 0, len(text), len(text)
    for at, char in enumerate(text):
        if char == "<":
            opened = at if depth == 0 else opened
            depth += 1
        elif char == ">":
            depth -= 1
        elif char == "(" and depth == 0:
            end = at
            break
    head = text[:end].rstrip()
    if depth > 0:
        args = tuple(_split(head[opened + 1 :]))[:-1]
    elif head.endswith(">"):
        args = tuple(_split(head[opened + 1 : -1]))
    else:
        args, opened = (), end
    return KernelName(_last_word(head[:opened]), args)


def decode(args: Sequence[str], layouts: Iterable[Layout]) -> Facts:
    """The facts of the first layout that fits the arguments; no facts when none does."""
    for layout in layouts:
        values = _fit(args, layout)
        if values is not None:
            return _facts(values)
    return Facts()


def unknown_fields(layout: Layout) -> list[str]:
    """Words of a layout that mean nothing."""
    *fields, last = layout or ("",)
    known = [*fields, last] if last not in _TAILS else fields
    return [field for field in known if field not in _READERS and not field.startswith("fused:")]


def format_of(text: str) -> str | None:
    """The number format that a template argument names: a ggml_type, a C++ type, a block type or a function.

    ``(ggml_type)12``, ``12``, ``GGML_TYPE_Q4_K``, ``block_q4_K`` and ``&dequantize_q4_K`` are ``Q4_K``.
    """
    if match := _GGML_TYPE.fullmatch(text):
        tagged, bare, spelled = match.groups()
        if spelled:
            return spelled
        # A bare number may be anything: it counts as a format only when it is a known one.
        return quants.type_name(int(tagged or bare)) if tagged or int(bare) in quants.TYPES else None
    plain = text.replace("const ", "").rstrip(" *&")
    return _CPP_FORMATS.get(plain) or next(iter(_formats_in(text)), None)


def _split(text: str) -> list[str]:
    """Split at the commas that no bracket encloses."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        if char in "<([{":
            depth += 1
        elif char in ">)]}":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]


def _last_word(head: str) -> str:
    """The name at the end of ``void ns::name``: without return type and namespaces."""
    words = head.rsplit("::", 1)[-1].split()
    return words[-1] if words else ""


def _formats_in(text: str) -> list[str]:
    """Formats named inside an identifier, such as ``cpy_blck_f32_q8_0``."""
    return [quants.NAMES[found] for found in _FORMAT.findall(text.lower())]


def _integer(text: str) -> int | None:
    match = _INTEGER.fullmatch(text)
    return int(match[1]) if match else None


def _boolean(text: str) -> bool | None:
    match = _BOOLEAN.fullmatch(text)
    return match[0].endswith(("1", "true")) if match else None


def _constant(*, wanted: bool) -> Callable[[str], Value | None]:
    return lambda text: wanted if _boolean(text) is wanted else None


def _cpp_type(text: str) -> str | None:
    return text if _CPP_TYPE.fullmatch(text) else None


def _function(text: str) -> str | None:
    """The op behind a function pointer: ``&op_mul``, ``&(op_mul(float, float))`` -> ``mul``."""
    match = _FUNCTION.fullmatch(text)
    return re.sub(r"^(ggml_cuda_)?op_|_single$", "", match[1] or match[2]) if match else None


def _conversion(text: str) -> str | None:
    """From and to of a copy function: ``&cpy_1_scalar<float, __half>``, ``&cpy_1_f32_f16`` -> ``f32_f16``."""
    inner = parse_name(text.lstrip("&("))
    if not inner.short.startswith("cpy_"):
        return None
    types = [_CPP_FORMATS.get(arg) for arg in inner.args]
    if all(types) and len(types) == 2:
        found = [str(each) for each in types]
    elif inner.args:
        # The generic reader of a quantised block: cpy_blck_q_f32<&dequantize_q4_0, 32>.
        found = [*_formats_in(inner.args[0]), *_formats_in(inner.short)]
    else:
        found = _formats_in(inner.short)
    return "_".join(found).lower() if len(found) == 2 else None


_READERS: Final[Mapping[str, Callable[[str], Value | None]]] = {
    "quant": format_of, "type_k": format_of, "type_v": format_of, "src": format_of, "dst": format_of,
    "batch": _integer, "tile_cols": _integer, "tile_heads": _integer, "cols": _integer,
    "head": _integer, "head_k": _integer, "head_v": _integer, "int": _integer,
    "bool": _boolean, "true": _constant(wanted=True), "false": _constant(wanted=False),
    "type": _cpp_type, "op": _function, "convert": _conversion, "-": str,
}  # fmt: skip
"""What a word of a layout accepts. ``fused:x`` is a boolean that says whether ``x`` is fused in."""

_TAILS: Final = ("...", "operands")
"""Last words that stand for any number of arguments; the ones behind ``operands`` are counted."""


def _fit(args: Sequence[str], layout: Layout) -> list[tuple[str, Value]] | None:
    """(field, value) for each argument, None when the layout does not fit."""
    tail = layout[-1] if layout and layout[-1] in _TAILS else None
    fields = layout[:-1] if tail else layout
    if len(args) < len(fields) or (len(args) > len(fields) and not tail):
        return None
    values: list[tuple[str, Value]] = []
    for field, arg in zip(fields, args, strict=False):
        value = _boolean(arg) if field.startswith("fused:") else _READERS[field](arg)
        if value is None:
            return None
        values.append((field, value))
    return [*values, ("operands", len(args) - len(fields))] if tail == "operands" else values


def _facts(values: list[tuple[str, Value]]) -> Facts:
    found = dict(values)
    names = Facts.__dataclass_fields__
    facts = {field: value for field, value in found.items() if field in names}
    if "head" in found:
        facts |= {"head_k": found["head"], "head_v": found["head"]}
    if "cols" in found:
        facts |= {"batch": found["cols"], "tile_cols": found["cols"]}
    if "src" in found and "dst" in found:
        found["convert"] = f"{found['src']}_{found['dst']}".lower()
    if "convert" in found:
        facts["op"] = found["convert"]
        blocked = [each for each in _formats_in(str(found["convert"])) if each not in quants.PLAIN]
        facts |= {"quant": blocked[0]} if blocked else {}
    fused = [field.removeprefix("fused:") for field, on in values if field.startswith("fused:") and on]
    # k_bin_bcast folds a chain of the same op into one kernel: one operand more for each op folded in.
    fused += [str(found.get("op"))] * (int(found.get("operands", 0)) - 1)
    return Facts(**facts, fused=tuple(fused))  # type: ignore[arg-type]
