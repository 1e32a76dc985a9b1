"""What the user names -> the traces of a fleet: files, folders, patterns, manifests, here or behind a URL."""

from __future__ import annotations

import csv
import glob
import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

from nsyskit.errors import UsageError
from nsyskit.fleet.remote import asking, filesystem, is_url, without_secrets
from nsyskit.ingest.parquet import is_export
from nsyskit.jsontext import json_object
from nsyskit.runfolder import RUN_JSON
from nsyskit.units import file_name, printable

MARKER: Final = "parts/FORMAT"
"""A folder that holds this file is the output of a fleet, not an input."""

_TRACE_FILES: Final = frozenset({".sqlite", ".nsys-rep", ".qdrep", ".qdstrm"})
_REPORTS: Final = (".nsys-rep", ".qdrep", ".qdstrm")
_MANIFESTS: Final = frozenset({".txt", ".lst", ".list", ".csv", ".tsv", ".jsonl"})
_OWN_TRACES: Final = ("trace.sqlite", "trace.nsys-rep")
_LABEL: Final = re.compile(r"[A-Za-z][\w.-]{0,39}")
_LABEL_CHARACTERS: Final = 120


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One trace of a fleet.

    Attributes:
        name: for people; relative to what the user named, and nobody else's.
        location: an absolute path or a URL.
        labels: what a manifest says of it: ``host``, ``rank``, ``build``, ``model``, ``gpu`` or words of the user's.
    """

    name: str
    location: str
    labels: Mapping[str, str] = field(default_factory=dict)


def find_items(named: Sequence[str]) -> list[Item]:
    """The traces behind everything named, each location once, ordered by name.

    Raises:
        UsageError: a pattern matches nothing, a folder holds no trace, a manifest cannot be read.
    """
    found: dict[str, Item] = {}
    for one in named:
        try:
            items = _items(one, several=len(named) > 1)
        except OSError as error:
            raise UsageError(f"{one} cannot be looked at: {error.strerror}", hint="check the path") from error
        for item in items:
            found.setdefault(item.location, item)
    return sorted(_with_own_names(found.values()), key=lambda item: item.name)


def _with_own_names(items: Iterable[Item]) -> list[Item]:
    taken: dict[str, int] = {}
    unique = []
    for item in items:
        name = printable(file_name(item.name))
        taken[name] = number = taken.get(name, 0) + 1
        unique.append(replace(item, name=name if number == 1 else f"{name} ({number})"))
    return unique


def _items(named: str, *, several: bool) -> list[Item]:
    if is_url(named):
        return _behind_url(named)
    path = _path(named)
    if path.is_dir():
        chosen = choose(_files_below(path))
        if not chosen:
            raise UsageError(f"{named} holds no trace", hint="name a folder with .sqlite, .nsys-rep or run folders")
        prefix = path.resolve().name if several else ""
        return [
            Item(str(PurePosixPath(prefix, at)) if at != "." else path.resolve().name, str(path.absolute() / at))
            for at in chosen
        ]
    if not path.exists() and glob.has_magic(named):
        return _matching(named)
    if path.suffix in _MANIFESTS:
        return _from_manifest(path)
    return [Item(path.name, str(path.absolute()))]


def _path(text: str) -> Path:
    """A path as a person writes it; ``~`` and users whom nobody knows stay as they are."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib's raises


def _files_below(root: Path) -> list[str]:
    found: list[str] = []

    def refused(error: OSError) -> None:
        found.append(_relative(root, str(error.filename)))  # whoever opens it says why

    for folder, below, files in os.walk(root, onerror=refused):
        below.sort()
        inside = "" if folder == str(root) else f"{_relative(root, folder)}/"
        found += [inside + name for name in files]
    return found


def _relative(root: Path, path: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def choose(files: Sequence[str]) -> list[str]:
    """Which of a tree's files and folders are traces, given the files' relative paths.

    A run folder and a Parquet export count as one each; a report whose SQLite export lies beside it is left to that;
    outputs of a fleet are passed over.
    """
    by_folder: dict[str, set[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        by_folder.setdefault(folder or ".", set()).add(name)
    skipped = {at[: -len("/parts")] if at != "parts" else "." for at, names in by_folder.items()
               if "FORMAT" in names and at.rpartition("/")[2] == "parts"}  # fmt: skip
    chosen: list[str] = []
    closed: set[str] = set()
    for folder in sorted(by_folder, key=lambda at: (at != ".", at.count("/"), at)):
        above = _above(folder)
        if skipped & above or closed & above:
            continue
        names = by_folder[folder]
        if RUN_JSON in names:
            repeated = [at for at in by_folder if _is_repetition(folder, at) and RUN_JSON in by_folder[at]]
            if names.intersection(_OWN_TRACES) or not repeated:
                chosen.append(folder)
                closed.add(folder)
        elif is_export(names):
            chosen.append(folder)
            closed.add(folder)
        else:
            chosen += [name if folder == "." else f"{folder}/{name}" for name in names if _is_trace(name, names)]
    return sorted(chosen)


def _above(folder: str) -> set[str]:
    """The folder and all that hold it."""
    parts = folder.split("/")
    return {".", *("/".join(parts[:at]) for at in range(1, len(parts) + 1))}


def _is_repetition(folder: str, at: str) -> bool:
    inside = at if folder == "." else at.removeprefix(f"{folder}/") if at.startswith(f"{folder}/") else ""
    return inside.startswith("run-") and "/" not in inside


def _is_trace(name: str, beside: set[str]) -> bool:
    stem, dot, ending = name.rpartition(".")
    suffix = dot + ending
    if name.startswith(".") or suffix not in _TRACE_FILES:
        return False
    better = (".sqlite", *_REPORTS[: _REPORTS.index(suffix)]) if suffix in _REPORTS else ()
    return not any(stem + other in beside for other in better)


def _matching(pattern: str) -> list[Item]:
    found = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))  # noqa: PTH207, PTH111 - `**` as in shells
    if not found:
        raise UsageError(f"nothing matches {pattern}", hint="check the pattern, and quote it against your shell")
    listed: list[str] = []
    seen: set[str] = set()
    real = cache(os.path.realpath)
    for path in (Path(match).absolute() for match in found):
        place = real(str(path)) if path.is_dir() else f"{real(str(path.parent))}/{path.name}"
        if place in seen:  # `**` follows links, one that leads back forty times over
            continue
        seen.add(place)
        listed += [str(path / at) for at in choose(_files_below(path))] if path.is_dir() else [str(path)]
    return _named_within(listed, [{}] * len(listed))


def _named_within(locations: Sequence[str], labels: Sequence[Mapping[str, str]]) -> list[Item]:
    """Items named relative to the folder that they have in common: folders above it are nobody's business."""
    shown = [without_secrets(location) if is_url(location) else os.path.normpath(location) for location in locations]
    local = [text for text in shown if not is_url(text)]
    common = os.path.commonpath([os.path.dirname(text) for text in local]) if local else ""  # noqa: PTH120 - of texts
    names = [text if is_url(text) else _relative(Path(common), text) for text in shown]
    return [Item(name, location, label) for name, location, label in zip(names, locations, labels, strict=True)]


def _from_manifest(path: Path) -> list[Item]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(f"the manifest {path} cannot be read: {error}", hint="give a text file in UTF-8") from error
    rows = list(_manifest_rows(path, text))
    if not rows:
        raise UsageError(f"the manifest {path} names no trace", hint="write one path a line")
    base = path.absolute().parent
    places = [str(row["path"]) for row in rows]
    locations = [place if is_url(place) else str(base / _path(place)) for place in places]
    return _named_within(locations, [_labels(path, row) for row in rows])


def _manifest_rows(path: Path, text: str) -> Iterable[Mapping[str, Any]]:
    lines = text.splitlines()
    if path.suffix in {".csv", ".tsv"}:
        try:
            rows: list[Any] = list(csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ","))
        except csv.Error as error:
            raise UsageError(f"the manifest {path} is damaged: {error}", hint="write one trace a line") from error
    elif path.suffix == ".jsonl":
        try:
            rows = [json_object(line) for line in lines if line.strip()]
        except ValueError as error:
            raise UsageError(f"the manifest {path} is damaged: {error}", hint="write one JSON object a line") from error
    else:
        rows = [{"path": line.strip()} for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for number, row in enumerate(rows, 1):
        place = row.get("path")
        if not isinstance(place, str) or not place.strip() or "\0" in place:
            raise UsageError(f"entry {number} of the manifest {path} has no path", hint="give each a column `path`")
    return rows


def _labels(path: Path, row: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, value in row.items():
        if name == "path" or value in (None, ""):
            continue
        if name is None or not _LABEL.fullmatch(name) or isinstance(value, (list, dict)):
            raise UsageError(f"the manifest {path} has a column {name!r} that is no label", hint="use plain words")
        found[name] = printable(str(value))[:_LABEL_CHARACTERS]
    return found


def _behind_url(url: str) -> list[Item]:
    url = url.rstrip("/")
    files, root = filesystem(url)
    with asking(url):
        if glob.has_magic(root):
            matches = sorted(str(match) for match in files.glob(root))
            base = posixpath.commonpath([posixpath.dirname(match) for match in matches]) if matches else ""
        elif files.isdir(root):
            base = root
            below = choose([posixpath.relpath(str(file), root) for file in files.find(root)])
            matches = [root if at == "." else f"{root}/{at}" for at in below]
        else:
            return [Item(without_secrets(url).rpartition("/")[2], url)]
    if not matches:
        raise UsageError(f"{without_secrets(url)} holds no trace", hint="name a folder or pattern with traces in it")
    before = url[: len(url) - len(root)] if url.endswith(root) else f"{url.partition('://')[0]}://"
    return [Item(posixpath.relpath(match, base), before + match) for match in matches]
