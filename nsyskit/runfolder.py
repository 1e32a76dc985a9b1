"""A run folder: what ``nsyskit capture`` leaves, and how ``analyze`` finds its parts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final

from nsyskit.errors import TraceFormatError
from nsyskit.jsontext import json_object

RUN_JSON = "run.json"
SCHEMA = "nsyskit.run/1"
_SHAPES: Final[Mapping[str, type]] = {
    "arms": list, "command": list, "environment": dict, "llama": dict, "load": dict, "model": dict, "driver": dict,
    "outcome": dict,
}  # fmt: skip
"""What is read of ``run.json``; each may also be absent or null. Values inside are shown, or looked at with care."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The parts of a run. A part that the capture did not win is absent from the disk, not from here.

    Attributes:
        path: the folder.
        facts: the content of ``run.json``; empty when it was not read.
    """

    path: Path
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)

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
    def results(self) -> Path:
        """What llama-bench and llama-batched-bench measured, one JSON object a line."""
        return self.path / "results.jsonl"

    @property
    def program_out(self) -> Path:
        return self.path / "program.out"

    @property
    def program_err(self) -> Path:
        return self.path / "program.err"

    @property
    def nsys_log(self) -> Path:
        """What the nsys commands printed."""
        return self.path / "nsys.log"

    @property
    def logs(self) -> tuple[Path, ...]:
        return (self.program_out, self.program_err, self.nsys_log)

    @property
    def arms(self) -> tuple[RunFolder, ...]:
        """The run folders inside this one: the arms of ``--fused``, the runs of ``--repeat``, what ran beside."""
        return tuple(
            load_run(self.path / name) for name in self.facts.get("arms") or () if is_run_folder(self.path / name)
        )

    @property
    def spans(self) -> RunFolder:
        """The run to take spans from: of a fused capture its graph-level arm, else this one."""
        return self._arm("graph")

    @property
    def shares(self) -> RunFolder:
        """The run to take shares of kernels from: of a fused capture its node-level arm, else this one."""
        return self._arm("node")

    @property
    def trace(self) -> Path:
        """What to analyze: the SQLite export, the rep file where there is none.

        Of a fused capture the graph-level trace, of a repeated one the last.

        Raises:
            TraceFormatError: the capture ended before it had either.
        """
        for folder in (self, self.spans, *reversed(self.arms)):
            for candidate in (folder.sqlite, folder.rep):
                if candidate.exists():
                    return candidate
        raise TraceFormatError(
            f"{self.path.name} holds no trace: its capture did not get that far",
            hint=f"read {RUN_JSON} and the logs beside it, then capture again",
        )

    @property
    def state(self) -> str | None:
        """``complete``, ``interrupted``, ``failed``, or ``running`` when the capture was killed on the way."""
        state = (self.facts.get("outcome") or {}).get("state")
        return state if isinstance(state, str) else None

    def _arm(self, name: str) -> RunFolder:
        return next((arm for arm in self.arms if arm.path.name == name), self)


def is_run_folder(path: Path) -> bool:
    return os.path.isfile(path / RUN_JSON)  # noqa: PTH113 - pathlib's raises for a name that is too long


def load_run(path: Path) -> RunFolder:
    """The run in a folder, with the facts of its ``run.json``.

    Raises:
        TraceFormatError: ``run.json`` is missing, damaged or of another kind.
    """
    try:
        facts = json_object((path / RUN_JSON).read_bytes())
    except FileNotFoundError as error:
        raise TraceFormatError(
            f"{path} is no run folder: it has no {RUN_JSON}", hint="name one of a capture"
        ) from error
    except (ValueError, OSError) as error:
        raise TraceFormatError(
            f"{path / RUN_JSON} cannot be read", hint="analyze the trace file in the folder instead"
        ) from error
    if facts.get("schema") != SCHEMA or not _is_sound(facts):
        raise TraceFormatError(
            f"{path / RUN_JSON} is not of schema {SCHEMA}", hint="analyze the trace file in the folder instead"
        )
    return RunFolder(path, facts)


def _is_sound(facts: Mapping[str, Any]) -> bool:
    """Whether what is read has the shape that ``capture`` gives it; arms are folders inside this one."""
    return (
        all(facts.get(name) is None or isinstance(facts[name], kind) for name, kind in _SHAPES.items())
        and all(isinstance(word, str) for word in facts.get("command") or ())
        and all(isinstance(arm, str) and _is_plain_name(arm) for arm in facts.get("arms") or ())
    )


def _is_plain_name(name: str) -> bool:
    return name.isprintable() and name not in {"", "..", "."} and PurePath(name).name == name and len(name) < 100
