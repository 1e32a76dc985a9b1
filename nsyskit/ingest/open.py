"""``open_trace``: whatever nsys wrote -> Trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nsyskit.errors import TraceFormatError
from nsyskit.ingest.columns import kept_columns
from nsyskit.ingest.counts import RowCounts
from nsyskit.ingest.meta import read_meta
from nsyskit.ingest.parquet import ParquetSource
from nsyskit.ingest.rep import cached_export
from nsyskit.ingest.source import RawSource
from nsyskit.ingest.sqlite import MAGIC, SqliteSource
from nsyskit.ingest.tables import lazy_tables
from nsyskit.runfolder import is_run_folder, load_run
from nsyskit.trace import Trace
from nsyskit.units import file_name

Container = Literal["sqlite", "parquet", "rep"]


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How to open what nsys must export first.

    Attributes:
        nsys: the nsys to export with; None takes ``NSYSKIT_NSYS``, then the PATH.
        progress: called with what is being done and a share of 0 to 1, None while unknown.
        cache: answer from kept columns of a large SQLite export, and keep them for the next time.
        exports: where the export of a rep file goes, for the caller to delete; None for the user's cache.
    """

    nsys: Path | None = None
    progress: Callable[[str, float | None], None] = field(default=lambda _what, _share: None)
    cache: bool = True
    exports: Path | None = None


def open_trace(path: str | Path, *, options: OpenOptions | None = None) -> Trace:
    """Open a trace without changing it: SQLite export, Parquet export, rep file, or a run folder of ``capture``.

    Nothing but the small tables is read before a frame of the trace is collected.

    Raises:
        TraceFormatError: the input is no trace, is damaged, unfinished, or newer than the nsys at hand.
        NsysError: the input must be exported first and no nsys was found.
    """
    path, options = Path(path), options or OpenOptions()
    source, container = _source(path, options)
    kept = kept_columns(source.path) if options.cache and isinstance(source, SqliteSource) else None
    meta = read_meta(source, name=file_name(path.name), container=container, tables=RowCounts(source, kept))
    return Trace(meta=meta, tables=lazy_tables(source, kept=kept))


def open_shares(path: str | Path, *, options: OpenOptions | None = None) -> Trace | None:
    """The node-level trace of a fused run folder, to split kernels by; None for anything else.

    Raises:
        TraceFormatError, NsysError: as ``open_trace``.
    """
    path = Path(path)
    if not (path.is_dir() and is_run_folder(path)):
        return None
    run = load_run(path)
    arm = run.shares
    if arm.path in (run.path, run.spans.path) or not (arm.sqlite.exists() or arm.rep.exists()):
        return None
    return open_trace(arm.path, options=options)


def _source(path: Path, options: OpenOptions) -> tuple[RawSource, Container]:
    try:
        if path.is_dir():
            if is_run_folder(path):
                return _source(load_run(path).trace, options)
            return ParquetSource(path), "parquet"
        return _file_source(path, options)
    except PermissionError as error:
        raise TraceFormatError(
            f"{path.name} cannot be read: permission denied", hint="check its access rights"
        ) from error
    except FileNotFoundError as error:
        raise TraceFormatError(f"{path} does not exist", hint="check the path") from error
    except ValueError as error:  # a NUL in it
        raise TraceFormatError(f"{path.name!r} is no name of a file", hint="check the path") from error
    except OSError as error:
        raise TraceFormatError(
            f"{path.name} cannot be read: {error.strerror or error}", hint="check the file"
        ) from error


def _file_source(path: Path, options: OpenOptions) -> tuple[RawSource, Container]:
    if not path.is_file():
        path.stat()  # FileNotFoundError, PermissionError
        raise TraceFormatError(f"{path.name} is neither file nor directory", hint="give a trace that nsys wrote")
    if path.stat().st_size == 0:
        raise TraceFormatError(f"{path.name} is empty", hint="capture or export it again")
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
    if head == MAGIC:
        return SqliteSource(path), "sqlite"
    if path.suffix == ".qdstrm":
        raise TraceFormatError(
            f"{path.name} is an unfinished capture",
            hint=f"turn it into a report with nsys's QdstrmImporter (`QdstrmImporter --input-file {path.name}`, "
            "in the folder host-linux-x64 of your nsys; `nsyskit doctor` finds it), then analyze the .nsys-rep",
        )
    if path.suffix in {".nsys-rep", ".qdrep"}:
        return _exported(path, options), "rep"
    if path.suffix == ".sqlite":
        return SqliteSource(path), "sqlite"  # says what is wrong with it
    raise TraceFormatError(
        f"{path.name} is no trace that nsyskit knows",
        hint="give a .nsys-rep, .qdrep, an SQLite export, or a directory of `nsys export --type parquetdir`",
    )


def _exported(path: Path, options: OpenOptions) -> RawSource:
    exported = cached_export(path, nsys=options.nsys, progress=options.progress, folder=options.exports)
    return ParquetSource(exported) if exported.is_dir() else SqliteSource(exported)
