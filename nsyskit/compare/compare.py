"""``compare``: baseline runs against candidate runs, per token and per phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from nsyskit.analysis.step_costs import PHASES
from nsyskit.compare import comparable
from nsyskit.compare.noise import NoiseModel, holm
from nsyskit.compare.phase import WORK, compare_phase, total_verdict
from nsyskit.compare.result import MIN_RUNS, Comparison, Line, PhaseComparison, Reason, SetupDifference
from nsyskit.compare.sample import RunSample
from nsyskit.units import human_ns, rounded

PART_WORDS: Final[Mapping[str, str]] = {
    "batch": "another batch: tokens decoded together", "context": "another context length",
    "clock": "all kernels alike, as by another clock", WORK: "kernels", "memcpy": "copies", "memset": "memsets",
    "unknown": "time the trace does not explain", "peer": "waiting for another GPU",
    "dispatch": "work handed over but not begun", "submit": "launch calls", "sync": "synchronizing calls",
    "cuda": "other CUDA calls", "profiler": "the profiler itself", "blocked": "waits in the OS", "os": "OS calls",
    "host": "the program's own code on the CPU",
}  # fmt: skip
_LOAD: Final = frozenset({"batch", "context"})


def compare(
    base: Sequence[RunSample], candidate: Sequence[RunSample], *, noise: NoiseModel | None = None, anyway: bool = False
) -> Comparison:
    """Compare one or more runs a side. Pure: equal input gives an equal result.

    Args:
        base: the baseline's runs, at least one.
        candidate: the candidate's runs, at least one.
        noise: what is assumed and what counts; None takes the defaults.
        anyway: compare what would be refused, and mark it.
    """
    noise = noise or NoiseModel()
    differing = comparable.differences(base, candidate)
    reasons = comparable.reasons(base, candidate, differing)
    if anyway:
        reasons = tuple(replace(one, level="marked") if one.level == "refused" else one for one in reasons)
    judged = comparable.judged(reasons)
    phases = () if judged == "no" else _phases(base, candidate, noise, differing_gpu=_names(differing, "gpu"))
    few = min(len(base), len(candidate)) < MIN_RUNS
    reasons = (*reasons, *_load_reasons(phases), *(_uniform_reasons(phases, noise) if few else ()))
    if judged == "yes":
        judged = comparable.judged(reasons)
    verdict, sentence = _overall(phases, reasons)
    return Comparison(
        base=tuple(run.name for run in base),
        candidate=tuple(run.name for run in candidate),
        comparable=judged,
        reasons=reasons,
        setup=differing,
        shared_setup=comparable.shared(base, candidate),
        phases=phases,
        verdict=verdict,
        sentence=sentence,
        noise=noise,
    )


def _names(differing: Sequence[SetupDifference], name: str) -> bool:
    return any(item.name == name for item in differing)


def _phases(
    base: Sequence[RunSample], candidate: Sequence[RunSample], noise: NoiseModel, *, differing_gpu: bool
) -> tuple[PhaseComparison, ...]:
    found, tails = [], []
    for phase in PHASES:
        sides = [[run.phases[phase] for run in side if phase in run.phases] for side in (base, candidate)]
        if all(sides):
            one, tail = compare_phase(phase, sides[0], sides[1], noise=noise, same_gpu=not differing_gpu)
            found.append(one)
            tails.append(tail)
    tested = [at for at, one in enumerate(found) if one.total.verdict is None]  # the others have too few steps
    holds = dict(zip(tested, holm([tails[at] for at in tested], noise.level), strict=True))
    return tuple(_told(one, held=holds.get(at, False), noise=noise) for at, one in enumerate(found))


def _told(found: PhaseComparison, *, held: bool, noise: NoiseModel) -> PhaseComparison:
    verdict = total_verdict(found, held=held, noise=noise)
    found = replace(found, total=replace(found.total, verdict=verdict))
    cause = None if verdict == "too few steps" else _cause(found, noise)
    return replace(found, cause=cause, sentence=_sentence(found, cause))


def _cause(found: PhaseComparison, noise: NoiseModel) -> str | None:
    """What moved most, of what is called a change; None when nothing is."""
    changed = {line.name for line in found.lines if line.changed}
    if not found.total.changed and not any(name.startswith("ledger.") for name in changed):
        kernels = [line for line in found.lines if line.changed and line.name.startswith("kernels.")]
        return WORK if kernels else None
    if found.strata == "none" and found.base_steps and _other_batch(found):
        return "batch"
    graphs = _line(found, "graph_launches_per_token")
    if (
        graphs is not None
        and graphs.changed
        and min(graphs.base, graphs.candidate) < max(graphs.base, graphs.candidate) / 2
    ):
        return "graphs"
    aside = _LOAD | {"clock"} if _within_clock(found, noise) else _LOAD
    parts = {part.name: part.diff for part in found.parts if part.name not in aside}
    if not found.total.changed:
        parts = {name: diff for name, diff in parts.items() if f"ledger.{name}" in changed}
    sign = _direction(found) if found.total.changed else 0
    moved = {name: abs(diff) for name, diff in parts.items() if not sign or diff * sign > 0}
    return max(moved, key=lambda name: (moved[name], name)) if moved else None


def _within_clock(found: PhaseComparison, noise: NoiseModel) -> bool:
    """Whether the clock moved no more than clocks do, while something else changed for sure."""
    return found.total.beyond_clock is not None and any(_beside_clock(line, noise) for line in found.lines)


def _beside_clock(line: Line, noise: NoiseModel) -> bool:
    """Whether a time changed by more than what all kernels share."""
    if not line.changed or line.kind != "time":
        return False
    if line.beyond_clock is None or line.beyond_low is None or line.beyond_high is None:
        return True
    return abs(line.beyond_clock) >= noise.floor * line.base and not line.beyond_low <= 0 <= line.beyond_high


def _direction(found: PhaseComparison) -> int:
    return 1 if found.total.verdict == "slower" else -1


def _other_batch(found: PhaseComparison) -> bool:
    one, other = (tokens / steps for tokens, steps in
                  ((found.base_tokens, found.base_steps), (found.candidate_tokens, found.candidate_steps)))  # fmt: skip
    return abs(other / one - 1) > 0.1


def _line(found: PhaseComparison, name: str) -> Line | None:
    return next((line for line in found.lines if line.name == name), None)


def _sentence(found: PhaseComparison, cause: str | None) -> str:
    total = found.total
    share = "" if total.share is None else f" ({signed_share(total.share)})"
    told = f"{found.phase}: {total.verdict}, {human_ns(total.base)} to {human_ns(total.candidate)} per token{share}"
    if total.verdict == "too few steps":
        return f"{found.phase}: too few steps to tell ({found.base_steps} and {found.candidate_steps})."
    load = float(sum(part.diff for part in found.parts if part.name in _LOAD))
    if abs(load) >= 0.02 * float(found.raw_base) and found.strata != "none":
        told += f" like for like; the load itself makes {signed_ns(load)}"
    return f"{told}{_why(found, cause)}."


def _why(found: PhaseComparison, cause: str | None) -> str:
    if cause is None:
        return ""
    if cause == "graphs":
        graphs = _line(found, "graph_launches_per_token")
        assert graphs is not None  # noqa: S101 - what made the cause
        return f"; CUDA graphs replayed per token: {graphs.base:.3g} to {graphs.candidate:.3g}"
    if cause == "batch":
        one, other = found.base_tokens / found.base_steps, found.candidate_tokens / found.candidate_steps
        return f"; another batch: {one:.3g} to {other:.3g} tokens a step"
    diff = next(float(part.diff) for part in found.parts if part.name == cause)
    told = f"{PART_WORDS[cause]}: {signed_ns(diff)}{_which_kernel(found) if cause == WORK else ''}"
    if found.total.changed:
        clock = next(float(part.diff) for part in found.parts if part.name == "clock")
        beside = (
            f", beside {PART_WORDS['clock']}: {signed_ns(clock)}" if cause != "clock" and abs(clock) > abs(diff) else ""
        )
        return f"; {'first of all' if beside else 'most of it'} {told}{beside}"
    return f" in total, but {'slower' if diff > 0 else 'faster'} in {told}"


def _which_kernel(found: PhaseComparison) -> str:
    kernels = [line for line in found.lines if line.name.startswith("kernels.") and line.changed]
    if not kernels:
        return ""
    most = max(kernels, key=lambda line: abs(line.diff if line.beyond_clock is None else line.beyond_clock))
    diff = most.diff if most.beyond_clock is None else most.beyond_clock
    share = f" ({signed_share(diff / most.base)})" if most.base else ""
    return f", first of all {most.name.removeprefix('kernels.')}{share}"


def _load_reasons(phases: Sequence[PhaseComparison]) -> list[Reason]:
    found = []
    for one in phases:
        if one.total.verdict == "too few steps":
            continue
        if one.strata == "none":
            text = f"{one.phase}: the batches differ so much that no steps are alike; everything is compared as it is"
            found.append(Reason("marked", "other_batch", text))
        elif any(line.note == "another context" for line in one.lines):
            text = f"{one.phase}: the contexts differ (input bytes per token), so attention is not judged"
            found.append(Reason("marked", "other_context", text))
        elif one.strata == "batch size":
            text = f"{one.phase}: steps hold different numbers of tokens; compared by size to a power of two"
            found.append(Reason("note", "coarse_batch", text))
    return found


def _uniform_reasons(phases: Sequence[PhaseComparison], noise: NoiseModel) -> list[Reason]:
    """A shift of all GPU work that is large enough to count, and that too few runs cannot tell from the clock."""
    found = []
    for one in phases:
        work = _line(one, f"ledger.{WORK}")
        if one.total.verdict != "no change" or work is None or work.share is None:
            continue
        share = work.share if one.clock is None else one.clock - 1
        if abs(share) >= noise.floor and abs(share * work.base) >= noise.floor * one.total.base / 2:
            what = "GPU work differs" if one.clock is None else "all kernels alike differ"
            text = (
                f"{one.phase}: {what} by {signed_share(share)}, which so few runs cannot tell from the GPU's clock; "
                f"repeat both sides at least {MIN_RUNS} times, in turns (`nsyskit capture --repeat {MIN_RUNS}`)"
            )
            found.append(Reason("note", "uniform_shift", text))
    return found


def _overall(phases: Sequence[PhaseComparison], reasons: Sequence[Reason]) -> tuple[str, str]:
    if not phases:
        refused = next((reason.message for reason in reasons if reason.level == "refused"), "no steps in common")
        return "not comparable", f"Not comparable: {refused}."
    verdicts = [one.total.verdict for one in phases]
    for verdict in ("slower", "faster"):
        if verdict in verdicts:
            return verdict, " ".join(one.sentence for one in phases if one.total.changed)
    parts = [one for one in phases if any(line.changed for line in one.lines)]
    if parts:
        return "no change", " ".join(one.sentence for one in parts)
    return "no change", " ".join(one.sentence for one in phases)


def signed_ns(value: float) -> str:
    """A difference in time with its sign: ``+12.30 µs``."""
    return f"{'+' if value >= 0 else '−'}{human_ns(abs(value))}"


def signed_share(share: float) -> str:
    """A difference as a percentage with its sign: ``+3.1 %``."""
    return f"{'+' if share >= 0 else '−'}{rounded(abs(share) * 100, 1)} %"
