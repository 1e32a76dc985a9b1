"""Runs the cells that are not done yet, and says how far it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from nsyskit.history.history import Cell as KeptCell
from nsyskit.history.history import History
from nsyskit.sweep.bench import Outcome
from nsyskit.sweep.grid import Cell

_RECENT: Final = 10


@dataclass(frozen=True, slots=True)
class Progress:
    """Told before and after every cell. ``left_s`` is None until a cell has been timed."""

    at: int
    of: int
    cell: Cell
    outcome: Outcome | None
    took_s: float | None
    left_s: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a sweep came to, this time and before."""

    ran: int
    failed: int
    skipped: int


def run_sweep(
    name: str,
    found: Sequence[Cell],
    *,
    history: History,
    run: Callable[[Cell], Outcome],
    now: Callable[[], str],
    tell: Callable[[Progress], None] = lambda _progress: None,
    retry_failed: bool = False,
    whole: Callable[[KeptCell], bool] = lambda _cell: True,
) -> Summary:
    """Run every cell that the history does not hold; each is kept as soon as it is known.

    Killed between or within cells, the same call goes on with the first that is missing. ``whole``: whether a cell
    that is done holds all that is asked for now; else it is run again.
    """
    kept = {cell.key: cell for cell in history.cells(name)}
    settled = {key for key, cell in kept.items() if (whole(cell) if cell.state == "done" else not retry_failed)}
    todo = [cell for cell in found if cell.key() not in settled]
    took: list[float] = []
    failed = 0
    for at, cell in enumerate(todo):
        tell(Progress(at, len(todo), cell, None, None, _left(took, len(todo) - at)))
        begun = monotonic()
        outcome = run(cell)
        took.append(monotonic() - begun)
        failed += outcome.error is not None
        state = "done" if outcome.error is None else "failed"
        known = kept.get(cell.key())
        trace = None if known is None else known.trace
        history.put_cell(
            KeptCell(name, cell.key(), cell.settings(), state, now(), outcome.error, trace, tuple(outcome.results))
        )
        tell(Progress(at + 1, len(todo), cell, outcome, took[-1], _left(took, len(todo) - at - 1)))
    return Summary(len(todo) - failed, failed, len(found) - len(todo))


def _left(took: Sequence[float], cells: int) -> float | None:
    recent = took[-_RECENT:]
    return sum(recent) / len(recent) * cells if recent else None
