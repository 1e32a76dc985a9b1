"""Hosts without their names: keyed digests while parts are made, ``host-1 …`` in what is shown.

The key lies in the user's data directory, never in a fleet's output: parts may be handed on.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from platformdirs import user_data_dir

_BYTES: Final = 32
_DIGITS: Final = 16
_WORD: Final = re.compile(r"[^/._\s-]+")
_NO_NAMES: Final = frozenset({"localhost", "local", "unknown"})


def user_key() -> bytes:
    """This user's key, made when it is first needed; one of the moment where it cannot be kept."""
    path = Path(os.environ.get("NSYSKIT_FLEET_KEY") or Path(user_data_dir("nsyskit")) / "fleet-key")
    for _ in range(2):
        try:
            key = path.read_bytes()
            if len(key) == _BYTES:
                return key
        except FileNotFoundError:
            pass
        except OSError:
            break
        if not _make(path):
            break
    return secrets.token_bytes(_BYTES)


def _make(path: Path) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
        try:
            os.link(scratch, path)  # the first of two that do this at once wins
        except FileExistsError:
            scratch.replace(path) if path.stat().st_size != _BYTES else None
        finally:
            scratch.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def digest(key: bytes, name: str) -> str:
    """What stands for a host's name where it may be seen by others."""
    return hmac.digest(key, name.lower().encode(), "sha256").hex()[:_DIGITS]


def digests(key: bytes, name: str | None) -> tuple[str, ...]:
    """The digest of the whole name, then of its first label: both may stand in paths. Empty for no name."""
    if not name or name.lower() in _NO_NAMES:
        return ()
    return tuple(dict.fromkeys(digest(key, part) for part in (name, name.partition(".")[0])))


def labels(hosts: Iterable[str | None]) -> dict[str, str]:
    """Digest -> ``host-1``, ``host-2``, … in order of first appearance."""
    return {host: f"host-{at}" for at, host in enumerate(dict.fromkeys(h for h in hosts if h), 1)}


def without_hosts(key: bytes, text: str, known: Mapping[str, str]) -> str:
    """A name of a trace with the hosts that occur in it replaced; ``known`` is digest -> label.

    Hosts are found as whole words and as runs of words: ``gpubox17/run.sqlite``, ``node-3.corp_rank0.sqlite``.
    """
    if not known:
        return text
    words = [(match.start(), match.end()) for match in _WORD.finditer(text)]
    shown, copied, at = [], 0, 0
    while at < len(words):
        start = words[at][0]
        for last in reversed(range(at, len(words))):
            end = words[last][1]
            if "/" in text[start:end]:
                continue
            label = known.get(digest(key, text[start:end]))
            if label is not None:
                shown += [text[copied:start], label]
                copied, at = end, last
                break
        at += 1
    return "".join([*shown, text[copied:]])
