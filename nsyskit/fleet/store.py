"""The output folder of a fleet: its parts, kept by content, and an index that spares unchanged files the reading."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nsyskit.errors import OutputError
from nsyskit.fleet.content import Stamp
from nsyskit.fleet.part import Part, facts_text, stored_part
from nsyskit.fleet.task import Outcome
from nsyskit.jsontext import json_object

FORMAT: Final = "nsyskit.fleet.parts/1"
INDEX: Final = "index.jsonl"
_KEY: Final = re.compile(r"[0-9a-f]{32} [0-9a-f]{32} [0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a location whose stamp is ``stamp``."""

    stamp: str
    size: int
    content: str
    key: str


class Store:
    """``OUT/parts``: ``ab/<key>.json`` and ``.parquet`` for each part, ``index.jsonl``, ``FORMAT``.

    Every file appears whole; a part counts once its JSON is there and its Parquet has the hash that the JSON names.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / "parts"
        try:
            marker = self.folder / "FORMAT"
            if not marker.is_file():
                if out.exists() and (not out.is_dir() or any(out.iterdir())):
                    raise OutputError(
                        f"{out} holds other things", hint="name a new folder, or that of an earlier fleet"
                    )
                self.folder.mkdir(parents=True)
                whole(marker, f"{FORMAT}\n".encode())
            elif marker.read_text(encoding="ascii", errors="replace").strip() != FORMAT:
                raise OutputError(f"{out} is the output of another version of nsyskit", hint="name a new folder")
            self._index = {entry.stamp: entry for entry in self._entries()}
            self._log = open(self.folder / INDEX, "a", encoding="ascii", opener=_no_link)  # noqa: SIM115
        except OSError as error:
            raise OutputError(
                f"cannot write to {out}: {error.strerror or error}", hint="check the place and its free space"
            ) from error

    def _entries(self) -> list[Entry]:
        """The index; a line that was cut off is no loss: its trace is only read again."""
        entries = []
        path = self.folder / INDEX
        for line in path.read_text(encoding="ascii", errors="replace").splitlines() if path.is_file() else ():
            try:
                entry = Entry(**json_object(line))
            except (ValueError, TypeError):
                continue
            if _KEY.fullmatch(f"{entry.stamp} {entry.content} {entry.key}") and isinstance(entry.size, int):
                entries.append(entry)
        return entries

    def known(self, stamp: Stamp) -> Entry | None:
        """What an earlier run found at an unchanged location, where its part is still good."""
        entry = self._index.get(stamp.key) if stamp.key else None
        return entry if entry is not None and self.load(entry.key) is not None else None

    def keys_of_size(self) -> dict[int, set[str]]:
        """Size -> keys of parts made of traces of that size."""
        found: dict[int, set[str]] = {}
        for entry in self._index.values():
            if self._files(entry.key)[0].exists():
                found.setdefault(entry.size, set()).add(entry.key)
        return found

    def put(self, outcome: Outcome, stamp: Stamp) -> None:
        """Keep a part and where it came from."""
        try:
            if outcome.facts is not None and outcome.rows is not None:
                facts, rows = self._files(outcome.key)
                facts.parent.mkdir(exist_ok=True)
                whole(rows, outcome.rows)
                whole(facts, facts_text(outcome.facts).encode())
            if stamp.key:
                entry = Entry(stamp.key, stamp.size, outcome.content, outcome.key)
                self._index[stamp.key] = entry
                self._log.write(_line(entry))
                self._log.flush()
        except OSError as error:
            raise OutputError(
                f"cannot write to {self.folder.parent}: {error.strerror or error}",
                hint="free some space and run the same again: what is done is kept",
            ) from error

    def load(self, key: str) -> Part | None:
        """A part; None where it is missing or damaged."""
        facts_file, rows_file = self._files(key)
        if not (facts_file.is_file() and rows_file.is_file()):
            return None
        try:
            facts = json_object(facts_file.read_bytes())
            rows = rows_file.read_bytes()
        except (OSError, ValueError):
            return None
        return stored_part(facts, rows) if facts.get("rows_sha256") == hashlib.sha256(rows).hexdigest() else None

    def close(self) -> None:
        """Leave the index sorted, so that the same traces leave the same folder, whoever was first."""
        self._log.close()
        lines = sorted(_line(entry) for entry in self._index.values())
        whole(self.folder / INDEX, "".join(lines).encode())

    def _files(self, key: str) -> tuple[Path, Path]:
        folder = self.folder / key[:2]
        return folder / f"{key}.json", folder / f"{key}.parquet"


def _no_link(path: str, flags: int) -> int:
    """Open what is written to in its place, not where a link leads, and wait for nobody at a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _line(entry: Entry) -> str:
    values = {"stamp": entry.stamp, "size": entry.size, "content": entry.content, "key": entry.key}
    return json.dumps(values) + "\n"


def whole(path: Path, content: bytes) -> None:
    """A file that appears under its name only once it is complete."""
    with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent, delete=False) as file:
        scratch = Path(file.name)
        try:
            file.write(content)
            file.close()
            scratch.chmod(0o644)
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
