"""ggml's number formats: the numbers that template arguments carry, their names and their size."""

from __future__ import annotations

from typing import Final

TYPES: Final[dict[int, tuple[str, float]]] = {
    0: ("F32", 32), 1: ("F16", 16), 2: ("Q4_0", 4.5), 3: ("Q4_1", 5), 6: ("Q5_0", 5.5), 7: ("Q5_1", 6),
    8: ("Q8_0", 8.5), 9: ("Q8_1", 9), 10: ("Q2_K", 2.625), 11: ("Q3_K", 3.4375), 12: ("Q4_K", 4.5),
    13: ("Q5_K", 5.5), 14: ("Q6_K", 6.5625), 15: ("Q8_K", 9.125), 16: ("IQ2_XXS", 2.0625), 17: ("IQ2_XS", 2.3125),
    18: ("IQ3_XXS", 3.0625), 19: ("IQ1_S", 1.5625), 20: ("IQ4_NL", 4.5), 21: ("IQ3_S", 3.4375), 22: ("IQ2_S", 2.5625),
    23: ("IQ4_XS", 4.25), 24: ("I8", 8), 25: ("I16", 16), 26: ("I32", 32), 27: ("I64", 64), 28: ("F64", 64),
    29: ("IQ1_M", 1.75), 30: ("BF16", 16), 34: ("TQ1_0", 1.6875), 35: ("TQ2_0", 2.0625), 39: ("MXFP4", 4.25),
    40: ("NVFP4", 4.5),
}  # fmt: skip
"""``ggml_type`` -> (name, bits per weight). Numbers that llama.cpp retired (4, 5, 31–33, 36–38) are left out."""

BITS: Final[dict[str, float]] = dict(TYPES.values())
"""Name -> bits per weight, block scales included."""

NAMES: Final[dict[str, str]] = {name.lower(): name for name in BITS}
"""Lower-case spelling, as in kernel and function names, -> name."""

PLAIN: Final = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})
"""Formats without blocks."""


def type_name(number: int) -> str:
    """The name of a ``ggml_type``; ``ggml_type_42`` for one that is not known here, such as a fork's."""
    return TYPES[number][0] if number in TYPES else f"ggml_type_{number}"


def bits_per_weight(name: str) -> float | None:
    """Bits that one weight takes, block scales included; None for an unknown format."""
    return BITS.get(name)
