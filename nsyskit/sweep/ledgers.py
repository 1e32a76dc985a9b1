"""The traces of a sweep's cells: each cell's ledger per token, and which part grew against the first traced cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsyskit.analysis.step_costs import LEDGER_PARTS
from nsyskit.compare.compare import PART_WORDS, compare, signed_ns
from nsyskit.compare.result import Comparison, PhaseComparison
from nsyskit.compare.sample import RunSample, sample_run
from nsyskit.errors import NsyskitError
from nsyskit.ingest import open_trace
from nsyskit.runfolder import is_run_folder, load_run
from nsyskit.sweep.table import SweepTable


@dataclass(frozen=True, slots=True)
class CellLedger:
    """One traced cell.

    Attributes:
        at: its row in the table.
        settings: what tells it apart, as text.
        trace: where its trace lies.
        phases: phase -> part of the ledger -> ns per token.
        against: the settings of the first traced cell, None for that one itself and where there is no ledger.
        grew: phase -> the part that grew most, in words with its difference; phases where nothing grew are absent.
        sentence: what the comparison says; or why there is no ledger.
    """

    at: int
    settings: str
    trace: str
    phases: Mapping[str, Mapping[str, float]]
    against: str | None
    grew: Mapping[str, str]
    sentence: str


def cell_ledgers(table: SweepTable) -> tuple[CellLedger, ...]:
    """The ledgers of all traced cells, in the order of the table. Reads each trace once."""
    found: list[CellLedger] = []
    first: tuple[str, RunSample] | None = None
    for at, row in enumerate(table.rows):
        if row["trace"] is None:
            continue
        settings = table.named(row)
        try:
            sample = _sample(Path(row["trace"]), settings)
        except NsyskitError as error:
            why = error.message.replace(row["trace"], short_place(row["trace"]))
            found.append(CellLedger(at, settings, row["trace"], {}, None, {}, f"no ledger: {why}"))
            continue
        compared = compare([first[1]], [sample], anyway=True) if first is not None else None
        found.append(
            CellLedger(
                at, settings, row["trace"], _phases(sample), None if first is None else first[0],
                {} if compared is None else _grew(compared),
                "what the others are compared with" if compared is None else compared.sentence,
            )
        )  # fmt: skip
        first = first or (settings, sample)
    return tuple(found)


def short_place(trace: str) -> str:
    """Where a trace lies, without the folders above that are the user's own business."""
    return "/".join(Path(trace).parts[-2:])


def _sample(path: Path, settings: str) -> RunSample:
    facts: Mapping[str, Any] | None = load_run(path).facts if is_run_folder(path) else None
    return sample_run(open_trace(path), run=facts, name=settings)


def _phases(sample: RunSample) -> dict[str, dict[str, float]]:
    return {
        name: {part: int(phase.steps[f"ledger.{part}"].sum()) / phase.tokens for part in LEDGER_PARTS}
        for name, phase in sample.phases.items()
    }


def _grew(found: Comparison) -> dict[str, str]:
    return {phase.phase: told for phase in found.phases if (told := _most(phase)) is not None}


def _most(phase: PhaseComparison) -> str | None:
    """The part that grew most, beyond a thousandth of the time per token."""
    part = max(phase.parts, key=lambda one: (one.diff, one.name))
    if part.diff * 1000 < phase.raw_base:
        return None
    return f"{PART_WORDS[part.name]} {signed_ns(float(part.diff))} per token"
