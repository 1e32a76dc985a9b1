"""The user's cache directory: what nsyskit keeps there, how much it may hold, and what goes first.

Two kinds of entries, both made again when they are gone: ``exports`` (rep files through ``nsys export``) and
``columns`` (large SQLite exports as columns). Together they stay below a limit: before more is written, entries go that
were used longest ago. An export used within the hour stays, since a running analysis may be reading it; columns may go
at any time, since whoever has opened them keeps them, and a missing one is only read from its trace again.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import platformdirs

from nsyskit.errors import OutputError, UsageError

Kind = Literal["exports", "columns"]

KINDS: Final[tuple[Kind, ...]] = ("exports", "columns")
LARGEST_BYTES: Final = 10_000_000_000
"""The default limit, if a tenth of the free disk is not less."""
_IN_USE_S: Final = 3_600


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One trace's export or columns; ``used_ns`` is when it was last read or written, in nanoseconds of UTC."""

    kind: Kind
    path: Path
    size_bytes: int
    used_ns: int


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What lies in the cache, used last first, and how much may."""

    folder: Path
    limit_bytes: int
    entries: tuple[CacheEntry, ...]

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.entries)


def cache_dir() -> Path:
    """Where exports and columns are kept: ``NSYSKIT_CACHE``, or the user's cache directory."""
    override = os.environ.get("NSYSKIT_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("nsyskit"))


def cache_info() -> CacheInfo:
    """What the cache holds; an absent cache holds nothing.

    Raises:
        UsageError: ``NSYSKIT_CACHE_BYTES`` is no number of bytes.
    """
    entries = sorted(_entries(), key=lambda entry: (-entry.used_ns, entry.path))
    return CacheInfo(cache_dir(), limit_bytes(sum(entry.size_bytes for entry in entries)), tuple(entries))


def clear_cache() -> CacheInfo:
    """Remove every entry and whatever a killed run left; returns what was there.

    Raises:
        OutputError: something cannot be removed.
    """
    there = cache_info()
    for kind in KINDS:
        folder = cache_dir() / kind
        if not folder.exists():
            continue
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise OutputError(f"cannot remove {folder}: {error.strerror}", hint="check its access rights") from error
    return there


def limit_bytes(held: int) -> int:
    """How many bytes the cache may hold: ``NSYSKIT_CACHE_BYTES``, or 10 GB, or a tenth of what is free and held.

    Raises:
        UsageError: the environment holds no number.
    """
    said = os.environ.get("NSYSKIT_CACHE_BYTES", "")
    if not said:
        return min(LARGEST_BYTES, (_free_bytes() + held) // 10)
    if not (said.isascii() and said.isdigit()):
        raise UsageError(
            f"NSYSKIT_CACHE_BYTES={said!r} is no number of bytes", hint="set it to one such as 20000000000, or to 0"
        )
    return int(said)


def touch(entry: Path) -> None:
    """Note that an entry was used."""
    with suppress(OSError):
        os.utime(entry)


def make_room(wanted: int, *, keep: Path) -> bool:
    """Remove what was used longest ago until ``wanted`` bytes more fit; whether they do. ``keep`` stays."""
    entries = sorted(_entries(), key=lambda entry: (entry.used_ns, entry.path))
    held = sum(entry.size_bytes for entry in entries)
    limit = limit_bytes(held)
    for entry in entries:
        if held + wanted <= limit:
            break
        if entry.path != keep and _may_go(entry):
            _remove(entry.path)
            held -= entry.size_bytes
    return held + wanted <= limit


def private_folder(folder: Path) -> bool:
    """Make a folder that only the user may enter; False where it cannot be made or is somebody else's to change."""
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        return found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o022
    return False


def _may_go(entry: CacheEntry) -> bool:
    return entry.kind == "columns" or entry.used_ns < time.time_ns() - _IN_USE_S * 1_000_000_000


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _entries() -> Iterator[CacheEntry]:
    for kind in KINDS:
        try:
            found = list((cache_dir() / kind).iterdir())
        except OSError:
            continue
        for path in found:
            with suppress(OSError):  # another process may be removing it
                yield CacheEntry(kind, path, _size(path), path.lstat().st_mtime_ns)


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():  # a link leads to what is not the cache's
        return path.lstat().st_size
    total = 0
    for file in path.rglob("*"):
        with suppress(OSError):
            total += file.lstat().st_size
    return total


def _free_bytes() -> int:
    folder = cache_dir()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
