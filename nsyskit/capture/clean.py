"""``--redact``: of a trace only its cleaned export stays.

A rep file holds the environments of the program and its parents, and no tool but nsys can write its format: it cannot
be cleaned, so it goes once the cleaned export is there. Where it has to stay, that is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsyskit.errors import NsyskitError, OutputError
from nsyskit.redact import redact

if TYPE_CHECKING:
    from nsyskit.runfolder import RunFolder

_ENDINGS = (".nsys-rep", ".qdrep", ".qdstrm")
_AS_THEY_ARE = "the logs, prompts and settings beside the trace are as they were written: share trace.sqlite alone"


def clean_trace(folder: RunFolder) -> tuple[str, ...]:
    """Put the cleaned export in the place of the export and remove the rep files; what was done, as notes.

    Raises:
        OutputError: it could not be cleaned; then everything is still there, and the message says so.
    """
    holding = _rep_files(folder)
    if not folder.sqlite.exists():
        return tuple(f"{name} was not exported and so not cleaned: it still holds everything" for name in holding)
    try:
        done = redact(folder.sqlite, folder.sqlite)
        for name in holding:
            (folder.path / name).unlink()
    except (NsyskitError, OSError) as error:
        left = ", ".join([folder.sqlite.name, *_rep_files(folder)])
        raise OutputError(
            f"the trace could not be cleaned ({error})",
            hint=f"in {folder.path.name}, {left} may hold secrets: delete them",
        ) from error
    finds = sum(done.removed.values())
    removed = f"trace.sqlite was cleaned of {finds:,} finds in {len(done.removed)} classes"
    gone = f"; {', '.join(holding)} cannot be cleaned and was deleted" if holding else ""
    return (removed + gone, _AS_THEY_ARE)


def _rep_files(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir() if path.name.endswith(_ENDINGS))
