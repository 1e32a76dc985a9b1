"""A run folder: what ``nsyskit capture`` leaves, and how ``analyze`` finds its parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nsyskit.errors import TraceFormatError

RUN_JSON = "run.json"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The parts of a run. A part that the capture did not win is absent from the disk, not from here."""

    path: Path

    @property
    def run_json(self) -> Path:
        return self.path / RUN_JSON

    @property
    def sqlite(self) -> Path:
        return self.path / "trace.sqlite"

    @property
    def rep(self) -> Path:
        return self.path / "trace.nsys-rep"

    @property
    def requests(self) -> Path:
        return self.path / "requests.sqlite"

    @property
    def nvml(self) -> Path:
        return self.path / "nvml.sqlite"

    @property
    def trace(self) -> Path:
        """What to analyze: the SQLite export, the rep file where there is none.

        Raises:
            TraceFormatError: the capture ended before it had either.
        """
        for candidate in (self.sqlite, self.rep):
            if candidate.exists():
                return candidate
        raise TraceFormatError(
            f"{self.path.name} holds no trace: its capture did not get that far",
            hint=f"read {RUN_JSON} and the logs beside it, then capture again",
        )


def is_run_folder(path: Path) -> bool:
    return (path / RUN_JSON).is_file()


def load_run(path: Path) -> RunFolder:
    return RunFolder(path)
