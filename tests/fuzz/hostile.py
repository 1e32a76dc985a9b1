"""What a hostile file holds: values, names and damage, drawn by a seeded generator."""

from __future__ import annotations

from random import Random
from typing import Any, Final

EDGES: Final = (
    0, 1, -1, 2, 63, 127, 255, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 2**48, 2**53, 2**61 - 1, 2**61, 2**62,
    -(2**61), -(2**62), 2**63 - 1, 2**63 - 2, -(2**63), -(2**63) + 1, 10**18, 4294967295, 16777215,
)  # fmt: skip
SCRIPT: Final = "<script>alert(1)</script>"
IMAGE: Final = "<img src=x onerror=alert(1)>"
FORMULAS: Final = (
    '=HYPERLINK("http://x","y")',
    "+cmd|' /C calc'!A0",
    "@SUM(1)",
    "-2+3",
    "\t=1+1",
    "\r=1+1",
    " =1",
    "=1\n=2",
)
TEXTS: Final = (
    "", " ", "\0", "a\0b", SCRIPT, IMAGE, "</script><script>alert(1)//", "\"'><svg/onload=alert(1)>", "<!--", "]]>",
    "\u202eevil\u202c", "\u2066x\u2069", "\x1b[31mred\x1b]0;t\x07", "\x07\x08\x7f", "\r\n", "a\nb\nc", "\u0000\ufffe",
    "\U0010ffff", "e\u0301" * 50, "%s%n%d{}{0}", "../../../etc/passwd", "C:\\x", "${jndi:x}", "[bold]x[/bold]", "[/]",
    "[link=http://x]y[/link]", "|a|b|", "`x`", "&lt;b&gt;", "javascript:alert(1)", "nan", "inf", "1e999", "NULL",
    "void k<(ggml_type)999999999999999999999, (int)-5>(", "mul_mat_q<" * 40, "(" * 300, "<" * 300, "a::" * 200, ">" * 300,
    *FORMULAS,
)  # fmt: skip


def number(rng: Random) -> int:
    if rng.random() < 0.6:
        return rng.choice(EDGES)
    return rng.getrandbits(rng.choice((1, 4, 8, 16, 32, 48, 62, 63))) * rng.choice((1, 1, 1, -1))


def text(rng: Random, *, longest: int = 1_000_000) -> str:
    kind = rng.random()
    if kind < 0.8:
        return rng.choice(TEXTS)
    if kind < 0.83:
        return rng.choice(("x", "ß", "<", "a<", "::")) * min(longest, rng.choice((1_000, 30_000, 1_000_000)))
    return "".join(chr(rng.choice((rng.randrange(32), rng.randrange(0x20, 0x7F), rng.randrange(0xA0, 0xD7FF),
                                   rng.randrange(0xE000, 0x10FFFF)))) for _ in range(rng.randrange(60)))  # fmt: skip


def value(rng: Random) -> Any:
    """Anything that SQLite stores in a cell."""
    kind = rng.random()
    if kind < 0.5:
        return number(rng)
    if kind < 0.6:
        return None
    if kind < 0.8:
        return text(rng, longest=30_000)
    if kind < 0.9:
        return rng.choice((0.5, -0.0, 1e308, -1e308, float("inf"), 1e18, 9.3e18, 5e-324, 3.0))
    return rng.choice((b"", b"\xff\xfe", b"\x00", rng.randbytes(rng.randrange(40)), b"\xed\xa0\x80"))


def damaged(rng: Random, content: bytes, *, block: int = 512) -> bytes:
    """Bytes flipped, zeroed, swapped, repeated, cut off or put in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8, 40))):
        if not data:
            break
        at, kind = rng.randrange(len(data)), rng.randrange(9)
        page, pages = block * (at // block), max(1, len(data) // block)
        if kind <= 2:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256), data[at] ^ 1 << rng.randrange(8)))
        elif kind == 3:
            size = rng.choice((2, 4, 8))
            data[at : at + size] = (rng.choice(EDGES) % (1 << 8 * size)).to_bytes(size, rng.choice(("big", "little")))
        elif kind == 4:
            data[page : page + block] = rng.choice((bytes(block), b"\xff" * block, rng.randbytes(block)))
        elif kind == 5:
            other = block * rng.randrange(pages)
            data[page : page + block] = data[other : other + block]
        elif kind == 6:
            del data[rng.choice((at, page, page + block)) :]
        elif kind == 7:
            data[at:at] = rng.randbytes(rng.randrange(1, 20))
        else:
            del data[at : at + rng.randrange(1, 40)]
    return bytes(data)
