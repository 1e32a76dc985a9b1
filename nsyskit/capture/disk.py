"""Full disks while nsys runs: nsys 2022.4 then neither ends nor says why."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from nsyskit.errors import OutputError

_FULL_BYTES = 64 << 10
_PATIENCE_S = 3.0
_LOOK_EVERY_S = 0.5


def full_folder(*folders: Path) -> Path | None:
    """The first of these folders whose disk has no room left; nsys also writes to the temporary folder."""
    for folder in (*folders, Path(tempfile.gettempdir())):
        try:
            if shutil.disk_usage(folder).free < _FULL_BYTES:
                return folder
        except OSError:
            continue
    return None


def full_error(folder: Path) -> OutputError:
    """What to do about a full disk."""
    temporary = folder == Path(tempfile.gettempdir())
    where = f"the temporary folder {folder}, where nsys gathers the trace," if temporary else str(folder)
    hint = "free space or set TMPDIR to another disk" if temporary else "free space or choose another folder with -o"
    return OutputError(f"the disk is full: {where} has no room", hint=hint)


@dataclass(slots=True)
class DiskWatch:
    """To be called while waiting for nsys; raises when a disk stays full.

    Attributes:
        folder: the run folder.
        found_full: whether it has raised: what nsys does from then on need not be waited for.
    """

    folder: Path
    found_full: bool = False
    _since: float | None = field(default=None, init=False)
    _looked: float = field(default=0.0, init=False)

    def __call__(self) -> None:
        """Look, twice a second at most.

        Raises:
            OutputError: a disk has been full for some seconds.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        full = full_folder(self.folder)
        if full is None:
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since > _PATIENCE_S:
            self.found_full = True
            raise full_error(full)
