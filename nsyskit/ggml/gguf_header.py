"""The header of a GGUF file: keys, and name, shape, type and place of each tensor. Never the weights.

Own code rather than ``gguf.GGUFReader``: that one keeps every token of the vocabulary as an array of its own (9 s and
600 MB on a model with 150,000 tokens and merges), and believes any count that the file claims. Here strings in arrays
are stepped over, and every count is checked against what the file could hold before anything is read.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import SEEK_CUR
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from nsyskit.errors import TraceFormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

Scalar = str | int | float | bool
Value = Scalar | tuple[int | float | bool, ...]

VERSIONS: Final = (2, 3)
"""What llama.cpp reads too; version 1 counted in 32 bits and is of mid-2023."""

# Far above any real model (the largest: 2,000 tensors, 60 keys, 260,000 tokens), far below what would take long.
_MAX_KEYS: Final = 1 << 16
_MAX_TENSORS: Final = 1 << 17
_MAX_ARRAY: Final = 1 << 21
_MAX_STRINGS: Final = 1 << 22
_MAX_NAME: Final = 1 << 16
_MAX_STRING: Final = 1 << 24
_MAX_DIMS: Final = 4
_MAX_ELEMENTS: Final = 1 << 48
_KEPT_ARRAY: Final = 4096
"""Longer arrays are vocabularies; per-layer arrays are short."""

_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as the header lists it: ``shape`` in ggml's order, rows' length first; ``offset`` into the data."""

    name: str
    shape: tuple[int, ...]
    type_number: int
    offset: int

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says before its weights.

    Attributes:
        name: the file's name without its folders.
        keys: scalars and short numeric arrays.
        array_lengths: length of every array, also of those that ``keys`` leaves out, such as the vocabulary.
        data_offset: where the weights begin.
        file_bytes: the file's size.
    """

    name: str
    version: int
    keys: Mapping[str, Value]
    array_lengths: Mapping[str, int]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    file_bytes: int


def read_header(path: Path) -> Header:
    """Read the header of one GGUF file.

    Raises:
        UsageError: there is no such file, or it may not be read.
        TraceFormatError: it is no GGUF file, a damaged one, or one of a kind that llama.cpp does not run here.
    """
    try:
        with path.open("rb", buffering=1 << 18) as stream:
            return _Reader(stream, path.name, path.stat().st_size).header()
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}", hint="check the path of the model") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="give a GGUF file you may read") from error


class _Reader:
    """Reads one file from front to back."""

    def __init__(self, stream: BinaryIO, name: str, size: int) -> None:
        self._stream = stream
        self._name = name
        self._size = size
        self._array_lengths: dict[str, int] = {}
        self._strings = 0

    def header(self) -> Header:
        version = self._version()
        tensor_count = self._count("Q", _MAX_TENSORS, "tensors", least_bytes=24)
        key_count = self._count("Q", _MAX_KEYS, "keys", least_bytes=13)
        keys: dict[str, Value] = {}
        for _ in range(key_count):
            key = self._string(_MAX_NAME)
            value = self._value(key, self._number("I"))
            if value is not None:
                keys[key] = value
        tensors = tuple(self._tensor() for _ in range(tensor_count))
        alignment = keys.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self._damaged(f"its alignment is {alignment}")
        end = self._stream.tell()
        return Header(
            name=self._name,
            version=version,
            keys=keys,
            array_lengths=self._array_lengths,
            tensors=tensors,
            data_offset=end + -end % alignment,
            file_bytes=self._size,
        )

    def _version(self) -> int:
        start = self._stream.read(24)
        if start[:4] != b"GGUF":
            raise TraceFormatError(f"{self._name} is no GGUF file", hint=_hint_for(start))
        if len(start) < 24:
            raise self._truncated()
        self._stream.seek(4)
        version = self._number("I")
        if version and not version & 0xFFFF:
            raise TraceFormatError(
                f"{self._name} is a big-endian GGUF file",
                hint="convert it with gguf_convert_endian.py of llama.cpp's gguf-py",
            )
        if version not in VERSIONS:
            newer = version > max(VERSIONS)
            hint = "update nsyskit" if newer else "convert the model again with a present llama.cpp"
            raise TraceFormatError(f"{self._name} is of GGUF version {version}, not 2 or 3", hint=hint)
        return version

    def _value(self, key: str, kind: int) -> Value | None:
        if kind == _STRING:
            return self._string(_MAX_STRING)
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _SCALARS:
            raise self._damaged(f"key {key!r} has the unknown type {kind}")
        return self._scalar(_SCALARS[kind])

    def _array(self, key: str) -> Value | None:
        kind = self._number("I")
        if kind == _STRING:
            length = self._count("Q", _MAX_ARRAY, f"elements in {key!r}", least_bytes=8)
            self._strings += length
            if self._strings > _MAX_STRINGS:
                raise self._damaged(f"its arrays claim {self._strings:,} strings")
            for _ in range(length):
                self._skip(self._number("Q"))
        elif kind in _SCALARS:
            code = _SCALARS[kind]
            width = struct.calcsize(code)
            length = self._count("Q", _MAX_ARRAY, f"elements in {key!r}", least_bytes=width)
            if length <= _KEPT_ARRAY:
                self._array_lengths[key] = length
                return struct.unpack(f"<{length}{code}", self._take(length * width))
            self._skip(length * width)
        else:
            raise self._damaged(f"array {key!r} has elements of the unknown type {kind}")
        self._array_lengths[key] = length
        return None

    def _tensor(self) -> TensorInfo:
        name = self._string(_MAX_NAME)
        dims = self._number("I")
        if not 1 <= dims <= _MAX_DIMS:
            raise self._damaged(f"tensor {name!r} has {dims} dimensions")
        shape = struct.unpack(f"<{dims}Q", self._take(8 * dims))
        tensor = TensorInfo(name, shape, self._number("I"), self._number("Q"))
        if tensor.elements > _MAX_ELEMENTS:
            raise self._damaged(f"tensor {name!r} has the shape {shape}")
        return tensor

    def _string(self, most: int) -> str:
        length = self._count("Q", most, "bytes in a string", least_bytes=1)
        return self._take(length).decode("utf-8", errors="replace")

    def _count(self, code: str, most: int, what: str, *, least_bytes: int) -> int:
        """A count, refused when the rest of the file could not hold that many."""
        count = self._number(code)
        if count > most:
            raise self._damaged(f"it claims {count:,} {what}")
        if count * least_bytes > self._size - self._stream.tell():
            raise self._truncated()
        return count

    def _number(self, code: str) -> int:
        (value,) = struct.unpack(f"<{code}", self._take(struct.calcsize(code)))
        return int(value)

    def _scalar(self, code: str) -> Scalar:
        value: Scalar = struct.unpack(f"<{code}", self._take(struct.calcsize(code)))[0]
        return value

    def _take(self, length: int) -> bytes:
        data = self._stream.read(length)
        if len(data) < length:
            raise self._truncated()
        return data

    def _skip(self, length: int) -> None:
        if length > self._size - self._stream.tell():
            raise self._truncated()
        self._stream.seek(length, SEEK_CUR)

    def _truncated(self) -> TraceFormatError:
        return TraceFormatError(
            f"{self._name} ends inside its header, after {self._size:,} bytes", hint="download or copy it again"
        )

    def _damaged(self, why: str) -> TraceFormatError:
        return TraceFormatError(f"{self._name} is damaged: {why}", hint="download or copy it again")


_STARTS: Final[tuple[tuple[Callable[[bytes], bool], str], ...]] = (
    (lambda start: not start, "it is empty: download or copy it again"),
    (lambda start: start.startswith(b"version https://git"), "it is a pointer to the model: run git lfs pull"),
    (
        lambda start: start[:4] in {b"lmgg", b"fmgg", b"tjgg", b"algg"},
        "it is a GGML file from before GGUF: convert the model again with a present llama.cpp",
    ),
    (lambda start: start[:2] == b"PK", "it is a zip archive, perhaps of PyTorch: convert it with llama.cpp's scripts"),
    (lambda start: start.lstrip()[:1] == b"<", "it is a web page: download the file itself"),
)


def _hint_for(start: bytes) -> str:
    return next((hint for fits, hint in _STARTS if fits(start)), "give a model in llama.cpp's format, NAME.gguf")
