"""Whether two sides can be compared at all: setup first, then what was traced and what was run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from nsyskit.compare.result import MIN_RUNS, Comparable, Reason, SetupDifference
from nsyskit.compare.sample import RunSample
from nsyskit.compare.setup import base_model

_ORDER: Final = ("build", "model", "model_type", "model_size", "gpu", "driver", "nsys", "graph_trace", "program")
_MARKED: Final = {
    "gpu": ("other_gpu", "the GPUs differ: a faster or slower part may be the GPU's doing"),
    "graph_trace": ("other_graph_trace", "CUDA graphs were traced differently: node by node distorts short tokens"),
    "nsys": ("other_nsys", "the nsys versions differ: their own cost may differ too"),
    "model_type": ("other_quant", "the model is quantised otherwise"),
    "program": ("other_program", "the programs differ: what lies between steps differs with them"),
}  # fmt: skip
_DISTORTS: Final = frozenset({"graph_coverage", "dropped_events", "profiler_share"})


def setup_of(side: Sequence[RunSample]) -> dict[str, str]:
    """The facts of a side; where its runs disagree, all of their values."""
    names = sorted({name for run in side for name in run.setup})
    values = {name: sorted({run.setup[name] for run in side if name in run.setup}) for name in names}
    return {name: " | ".join(found) for name, found in values.items()}


def differences(base: Sequence[RunSample], candidate: Sequence[RunSample]) -> tuple[SetupDifference, ...]:
    """What differs in the setup, what matters most first."""
    one, other = setup_of(base), setup_of(candidate)
    found = [
        SetupDifference(name, one.get(name), other.get(name))
        for name in {*one, *other}
        if one.get(name) != other.get(name)
    ]
    return tuple(sorted(found, key=lambda item: (_rank(item.name), item.name)))


def shared(base: Sequence[RunSample], candidate: Sequence[RunSample]) -> tuple[tuple[str, str], ...]:
    """What both sides have in common."""
    one, other = setup_of(base), setup_of(candidate)
    return tuple((name, one[name]) for name in sorted(one, key=lambda n: (_rank(n), n)) if one[name] == other.get(name))


def reasons(
    base: Sequence[RunSample], candidate: Sequence[RunSample], found: Sequence[SetupDifference]
) -> tuple[Reason, ...]:
    """Everything that forbids or limits the comparison, worst first."""
    checks: tuple[Callable[[], list[Reason]], ...] = (
        lambda: _steps(base, candidate),
        lambda: _trust(base, candidate),
        lambda: _model(found),
        lambda: _phases(base, candidate),
        lambda: _windows(base, candidate),
        lambda: _marks(found),
        lambda: _mixed_sides(base, candidate),
        lambda: _runs(base, candidate),
    )
    listed = [reason for check in checks for reason in check()]
    if any(reason.level == "refused" for reason in listed):
        listed = [reason for reason in listed if reason.code != "few_runs"]
    order = {"refused": 0, "marked": 1, "note": 2}
    return tuple(sorted(listed, key=lambda reason: order[reason.level]))


def judged(listed: Sequence[Reason]) -> Comparable:
    levels = {reason.level for reason in listed}
    return "no" if "refused" in levels else "marked" if "marked" in levels else "yes"


def _rank(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER) + name.startswith("env ")


def _steps(base: Sequence[RunSample], candidate: Sequence[RunSample]) -> list[Reason]:
    return [
        Reason("refused", "no_steps", f"{run.name}: {run.without_steps}, so nothing can be told per token")
        for run in (*base, *candidate)
        if run.without_steps is not None
    ]


def _trust(base: Sequence[RunSample], candidate: Sequence[RunSample]) -> list[Reason]:
    found = [Reason("refused", "trust", f"{run.name}: {run.errors[0]}") for run in (*base, *candidate) if run.errors]
    found += [
        Reason("marked", code, f"{run.name}: trust warning {code}, its numbers are incomplete")
        for run in (*base, *candidate)
        for code in run.warnings
        if code in _DISTORTS
    ]
    return found


def _model(found: Sequence[SetupDifference]) -> list[Reason]:
    by_name = {item.name: item for item in found}
    vocabulary, kind = by_name.get("n_vocab"), by_name.get("model_type")
    if vocabulary and vocabulary.base and vocabulary.candidate:
        text = f"another model: vocabularies of {vocabulary.base} and {vocabulary.candidate}"
        return [Reason("refused", "other_model", text)]
    if kind and kind.base and kind.candidate and base_model(kind.base) != base_model(kind.candidate):
        return [Reason("refused", "other_model", f"another model: {kind.base} and {kind.candidate}")]
    model = by_name.get("model")
    if model and model.base and model.candidate and not kind:
        return [Reason("marked", "other_model_file", f"other model files: {model.base} and {model.candidate}")]
    return []


def _phases(base: Sequence[RunSample], candidate: Sequence[RunSample]) -> list[Reason]:
    if any(run.without_steps for run in (*base, *candidate)):
        return []
    sides = [{phase for run in side for phase in run.phases} for side in (base, candidate)]
    both = sides[0] & sides[1]
    if not both:
        told = " and ".join("+".join(sorted(side)) or "no steps" for side in sides)
        return [Reason("refused", "other_phases", f"no phase is in both: {told}")]
    if sides[0] != sides[1]:
        only = sorted(sides[0] ^ sides[1])
        return [Reason("marked", "other_phases", f"only one side holds {', '.join(only)}")]
    return []


def _windows(base: Sequence[RunSample], candidate: Sequence[RunSample]) -> list[Reason]:
    kinds = {run.window for run in (*base, *candidate) if run.phases}
    if len(kinds) > 1:
        return [Reason("marked", "other_window", f"different windows: {', '.join(sorted(kinds))}")]
    return []


def _marks(found: Sequence[SetupDifference]) -> list[Reason]:
    return [
        Reason("marked", *_MARKED[item.name])
        for item in found
        if item.name in _MARKED and item.base is not None and item.candidate is not None
    ]


def _mixed_sides(base: Sequence[RunSample], candidate: Sequence[RunSample]) -> list[Reason]:
    found = []
    for word, side in (("baseline", base), ("candidate", candidate)):
        names = [name for name, value in setup_of(side).items() if " | " in value and name != "model_size"]
        if names:
            found.append(
                Reason("marked", "mixed_runs", f"runs of the {word} differ among themselves: {', '.join(names)}")
            )
    return found


def _runs(base: Sequence[RunSample], candidate: Sequence[RunSample]) -> list[Reason]:
    if min(len(base), len(candidate)) >= MIN_RUNS:
        return []
    text = (
        f"fewer than {MIN_RUNS} runs a side ({len(base)} and {len(candidate)}): how much runs differ among themselves "
        "is assumed, not seen, and a small shift of all kernels alike cannot be told from the GPU's clock; "
        "repeat the runs (`nsyskit capture --repeat 3`) to be sure of small differences"
    )
    return [Reason("note", "few_runs", text)]
