"""The map task: one trace, wherever it lies -> its part, or why there is none. Never raises for what a trace is."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from nsyskit import __version__
from nsyskit.errors import NsyskitError
from nsyskit.fleet import remote
from nsyskit.fleet.content import content_hash
from nsyskit.fleet.hosts import digests
from nsyskit.fleet.part import SCHEMA, make_part
from nsyskit.ingest import OpenOptions, open_trace
from nsyskit.runfolder import RUN_JSON, is_run_folder, load_run
from nsyskit.units import printable

_ERROR_CHARACTERS: Final = 400


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is told.

    Attributes:
        name: for messages; location: an absolute path or a URL; members: its files, for those that must be fetched.
        known: keys of parts that are there already and could be this trace's.
        host_key: what host names are hashed with, in hex; names: keep them as they are instead.
        nsys: the nsys to export rep files with.
        memory: bytes that reading this trace may take; timeout_s: seconds; 0 for no limit.
    """

    name: str
    location: str
    members: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    host_key: str = ""
    names: bool = False
    nsys: str | None = None
    memory: int = 0
    timeout_s: float = 0.0
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a task.

    Attributes:
        content: the hash of the trace's bytes; key: that of its part. Both empty where it could not be read at all.
        facts, rows: the part, ``rows`` as Parquet; None where it is known already or failed.
        error: why there is no part, in a line; fault: it is nsyskit's own.
    """

    content: str = ""
    key: str = ""
    facts: Mapping[str, Any] | None = None
    rows: bytes | None = None
    error: str | None = None
    fault: bool = False

    def plain(self) -> dict[str, Any]:
        packed = None if self.rows is None else base64.b64encode(self.rows).decode()
        return asdict(self) | {"rows": packed}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Outcome:
        packed = values["rows"]
        return cls(**{**values, "rows": None if packed is None else base64.b64decode(packed)})


def run_task(task: Task, scratch: Path) -> Outcome:
    """Fetch, hash, open, analyze. ``scratch`` is an empty folder for what must lie on this machine meanwhile."""
    try:
        return _run(task, scratch)
    except NsyskitError as error:
        return failed(task, str(error))
    except OSError as error:
        return failed(task, f"{task.name} cannot be read: {error.strerror or error}; check the file and its place")
    except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - one trace never stops the others
        said = f"{task.name} made nsyskit itself fail: {type(error).__name__}: {error}"
        return failed(task, f"{said}; `nsyskit analyze` on it shows where, please report that", fault=True)
    finally:
        for left in scratch.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def failed(task: Task, said: str, *, fault: bool = False) -> Outcome:
    """An outcome that names the trace as the user does, in one line; folders above it are left out."""
    line = " ".join(said.replace(task.location, task.name).split())
    folder = task.location.rpartition("/")[0]
    line = printable(line.replace(f"{folder}/", "") if folder else line)
    own = task.location.rstrip("/").rpartition("/")[2]
    if line.startswith(own) and not line.startswith(task.name):
        line = task.name + line.removeprefix(own)
    elif task.name not in line:
        line = f"{task.name}: {line}"
    if len(line) > _ERROR_CHARACTERS:
        line = f"{line[: _ERROR_CHARACTERS * 2 // 3]} … {line[-_ERROR_CHARACTERS // 3 :]}"
    return Outcome(error=line, fault=fault)


def _run(task: Task, scratch: Path) -> Outcome:
    if remote.is_url(task.location):
        path = remote.fetch(task.location, task.members or ("",), scratch)
    else:
        path = Path(task.location)
        path.stat()
    if not path.is_dir() and not (path.is_file() and path.stat().st_size):
        open_trace(path)  # says what is wrong with it
    run_text = (path / RUN_JSON).read_bytes() if is_run_folder(path) else b""
    content = content_hash(path)
    key = part_key(content, run_text, task)
    if key in task.known:
        return Outcome(content, key)
    options = OpenOptions(nsys=Path(task.nsys) if task.nsys else None, cache=False, exports=scratch / "exports")
    trace = open_trace(path, options=options)
    part = make_part(trace, run=load_run(path).facts if run_text else None)
    host = trace.meta.capture.host
    words = ((host,) if host else ()) if task.names else digests(bytes.fromhex(task.host_key), host)
    rows = part.parquet()
    facts = dict(part.facts) | {
        "content": content, "hosts": list(words), "run": bool(run_text),
        "rows_sha256": hashlib.sha256(rows).hexdigest(),
    }  # fmt: skip
    return Outcome(content, key, facts, rows)


def part_key(content: str, run: bytes, task: Task) -> str:
    """The name of a part: what the trace holds, what its run folder says, and how it was read."""
    read = f"{SCHEMA} {__version__} {'names' if task.names else hashlib.sha256(task.host_key.encode()).hexdigest()}"
    return hashlib.sha256(b"\0".join([content.encode(), run, read.encode()])).hexdigest()[:32]
