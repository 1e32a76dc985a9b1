"""A protobuf walker of a few lines, so that what is written is read by other code than what wrote it."""

from __future__ import annotations

from collections.abc import Iterator


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of each field: numbers for varints and fixed widths, bytes for the rest."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
        elif kind == 2:
            size, at = _varint(message, at)
            yield number, message[at : at + size]
            at += size
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            yield number, int.from_bytes(message[at : at + size], "little")
            at += size
        else:
            raise ValueError(f"wire type {kind}")
    if at != len(message):
        raise ValueError("cut off")


def every(message: bytes, number: int) -> list[int | bytes]:
    return [value for found, value in fields(message) if found == number]


def one(message: bytes, number: int, default: int | bytes | None = None) -> int | bytes | None:
    found = every(message, number)
    return found[-1] if found else default


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
