"""What a trace's files are: which count, what tells that they changed, and the hash of what they hold."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat as stat_module
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nsyskit.errors import NsyskitError, TraceFormatError
from nsyskit.fleet import remote
from nsyskit.runfolder import RUN_JSON, is_run_folder, load_run
from nsyskit.units import file_name

_PIECE: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Stamp:
    """What is known of a location without reading it.

    Attributes:
        key: changes when the place, a size or a time changes; empty where the location cannot be asked.
        size: bytes in all.
        members: its files, relative to it; ``("",)`` for a single file.
    """

    key: str
    size: int
    members: tuple[str, ...]


UNKNOWN: Final = Stamp("", -1, ())


def stamp(location: str) -> Stamp:
    """The stamp of a path or URL; ``UNKNOWN`` where it cannot be had: whoever opens it will say why."""
    try:
        rows = _remote(location) if remote.is_url(location) else list(_local(Path(location)))
    except (OSError, NsyskitError):
        return UNKNOWN
    members = tuple(inner for inner, _, _ in rows)
    text = json.dumps([file_name(location), rows])  # the same in every locale
    return Stamp(hashlib.sha256(text.encode()).hexdigest()[:32], sum(size for _, size, _ in rows), members)


def _remote(url: str) -> list[tuple[str, int, str]]:
    rows = remote.listing(url)
    names = {inner for inner, _, _ in rows}
    if RUN_JSON in names:
        own = next((name for name in ("trace.sqlite", "trace.nsys-rep") if name in names), RUN_JSON)
        return [row for row in rows if row[0] in {RUN_JSON, own}]
    return rows if names == {""} else [row for row in rows if row[0].endswith(".parquet")]


def _local(path: Path) -> Iterator[tuple[str, int, str]]:
    for file in local_members(path):
        facts = _plain_stat(file)
        changed = f"{facts.st_ino} {facts.st_mtime_ns} {facts.st_ctime_ns}"
        yield (os.path.relpath(file, path) if file != path else "", facts.st_size, changed)


def _plain_stat(file: Path) -> os.stat_result:
    """What the system says of a plain file; a pipe or a device would be read for ever."""
    facts = file.stat()
    if not stat_module.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "no plain file")
    return facts


def local_members(path: Path) -> list[Path]:
    """The files that make up a trace: itself, the tables of a Parquet export, or a run's facts and trace."""
    if not path.is_dir():
        return [path]
    if not is_run_folder(path):
        return sorted(path.glob("*.parquet"))
    try:
        return [path / RUN_JSON, load_run(path).trace]
    except TraceFormatError:
        return [path / RUN_JSON]


def fingerprint(location: str, known: Stamp) -> str:
    """A few pieces of the largest beginning: equal contents have equal ones, and most others do not.

    Only where this agrees must two traces wait for each other, lest one content be analyzed twice at once.
    """
    inner = known.members[0] if known.members else ""
    digest = hashlib.sha256(f"{known.size} {len(known.members)}".encode())
    try:
        for start in sorted({0, max(0, known.size // 2), max(0, known.size - _PIECE)}):
            digest.update(_piece(location, inner, start))
    except Exception:  # noqa: BLE001 - a place that cannot be read will say so to whoever opens it
        return location
    return digest.hexdigest()


def _piece(location: str, inner: str, start: int) -> bytes:
    if remote.is_url(location):
        return remote.piece(location, inner, start, start + _PIECE)
    path = Path(location) / inner if inner else Path(location)
    _plain_stat(path)
    with path.open("rb") as file:
        file.seek(start)
        return file.read(_PIECE)


def content_hash(path: Path) -> str:
    """The hash of a trace's bytes, wherever they lie and whatever the file is called.

    Raises:
        OSError: it cannot be read.
    """
    members = [file for file in local_members(path) if file.name != RUN_JSON or file == path]
    if len(members) == 1 and members[0].suffix != ".parquet":
        return _file_hash(members[0]).hex()[:32]
    digest = hashlib.sha256()
    for file in members:
        digest.update(file.name.encode() + b"\0" + _file_hash(file))
    return digest.hexdigest()[:32]


def _file_hash(path: Path) -> bytes:
    _plain_stat(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
