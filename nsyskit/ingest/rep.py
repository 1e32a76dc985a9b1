"""Rep files, through ``nsys export``. Exports are kept in the user's cache, keyed by what the report holds.

The key is a hash of the report's bytes and the version of the exporting nsys: a report that changed is never answered
with an older export, wherever it lies and whatever its times say.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from nsyskit.errors import OutputError, TraceFormatError
from nsyskit.ingest.cache import cache_dir, make_room, private_folder, touch
from nsyskit.nsys import Nsys, export, export_types, find_nsys

Progress = Callable[[str, float | None], None]


def _silent(_what: str, _share: float | None) -> None:
    """Progress for nobody."""


def cached_export(report: Path, *, nsys: Path | None, progress: Progress, folder: Path | None = None) -> Path:
    """The export of a report: a Parquet directory where this nsys makes one, an SQLite file otherwise.

    It is kept in the user's cache, or made in ``folder``, where nothing else is looked at or deleted.

    Raises:
        NsysError: no nsys, or it failed.
        TraceFormatError: the report is damaged or newer than this nsys.
        OutputError: the cache cannot be written.
    """
    tool = find_nsys(nsys)
    kind = "parquetdir" if "parquetdir" in export_types(tool) else "sqlite"
    progress(f"reading {report.name}", None)
    if folder is not None:
        export_to(report, folder / f"export.{kind}", tool=tool, kind=kind, progress=progress)
        return folder / f"export.{kind}"
    target = cache_dir() / "exports" / f"{_content_key(report, tool)}.{kind}"
    if not target.exists():
        private_folder(target.parent)  # an export holds the environment of the traced program
        export_to(report, target, tool=tool, kind=kind, progress=progress)
        make_room(0, keep=target)
    touch(target)
    return target


def export_sqlite(report: Path, target: Path, *, nsys: Path | None = None, progress: Progress = _silent) -> None:
    """Write a report's SQLite export where the user wants it; an existing file is replaced as a whole.

    Raises:
        NsysError, TraceFormatError, OutputError: as ``cached_export``.
    """
    check_report(report)
    export_to(report, target, tool=find_nsys(nsys), kind="sqlite", progress=progress)


def check_report(report: Path) -> None:
    """Refuse what is not even a file with something in it.

    Raises:
        TraceFormatError: no such file, a directory, or empty.
    """
    if not report.is_file():
        raise TraceFormatError(f"{report} is no file", hint="give the .nsys-rep or .qdrep that nsys wrote")
    if report.stat().st_size == 0:
        raise TraceFormatError(f"{report.name} is empty", hint="capture it again")


def export_to(report: Path, target: Path, *, tool: Nsys, kind: str, progress: Progress) -> None:
    """Export into a temporary neighbour of ``target``, then rename: nobody ever sees half an export."""
    what = f"exporting {report.name} with nsys {tool.version_text}"
    progress(what, None)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".nsyskit-", dir=target.parent))
    except OSError as error:
        raise OutputError(
            f"cannot write to {target.parent}: {error.strerror}", hint="free the place or set NSYSKIT_CACHE"
        ) from error
    try:
        exported = scratch / target.name
        export(tool, report, exported, kind="parquetdir" if kind == "parquetdir" else "sqlite",
               progress=lambda share: progress(what, share))  # fmt: skip
        _publish(exported, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(exported: Path, target: Path) -> None:
    try:
        exported.replace(target)
    except OSError:
        if not target.exists():  # another process may have published the same export first
            raise


def _content_key(report: Path, tool: Nsys) -> str:
    with report.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(tool.version_text.encode())
    return digest.hexdigest()[:32]
