"""Advice with evidence: experiments worth running, each with a number of this trace and the most it can give.

A rule speaks only when its part of the time per token is large enough; the most an experiment can give is what removing
that part altogether would give, ``T / (T - part)``. No rule knows whether the experiment will win: it names what would
refute it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nsyskit.analysis.hotspots import HotspotResult
from nsyskit.analysis.step_costs import PhaseCost, StepsResult
from nsyskit.analysis.trust import TrustNote
from nsyskit.analysis.verdict import Evidence
from nsyskit.units import human_ns, human_share

WORTH: Final = 0.05
"""Parts below this share of the time per token are not worth an experiment."""
_CHURN: Final = 0.02
_MANY_LAUNCHES: Final = 50


@dataclass(frozen=True, slots=True)
class Item:
    """One experiment.

    Attributes:
        name: stable, for scripts.
        phase: whose time per token it may shorten.
        change: the flag or environment switch, as typed.
        axes: what ``sweep`` varies for it: flag or ``env NAME`` -> values, the first as it is now.
        why: what the trace shows, with the number.
        evidence: where the numbers stand in the JSON document, and what they are (ns per token).
        max_speedup: of the phase, if the whole part vanished; None when nothing would be left.
        max_gain_ns: the part over all steps of the phase: what items are ranked by.
        refuted_by: the outcome that would show the advice wrong.
    """

    name: str
    phase: str
    change: str
    axes: Mapping[str, tuple[str, ...]]
    why: str
    evidence: tuple[Evidence, ...]
    max_speedup: float | None
    max_gain_ns: float
    refuted_by: str


@dataclass(frozen=True, slots=True)
class AdviceResult:
    """Experiments, the one that can give most first; ``withheld`` says why there are none where there are none."""

    items: tuple[Item, ...]
    withheld: str | None = None


@dataclass(frozen=True, slots=True)
class _Facts:
    steps: StepsResult
    families: Mapping[str, float]

    def cost(self, phase: str) -> PhaseCost | None:
        found = self.steps.by_phase.get(phase)
        return found if found is not None and found.periods else None


def advice(
    steps: StepsResult | None, *, families: HotspotResult | None = None, trust: Sequence[TrustNote] = (),
    further: Sequence[Item] = (),
) -> AdviceResult:  # fmt: skip
    """Experiments for what the steps show. Pure.

    Args:
        steps: steps with their costs, None where there are none: then there is no advice.
        families: kernel time by implementation, to tell which attention runs.
        trust: any error withholds all advice.
        further: items from elsewhere, to be ranked among these; see ``limit_advice.limit_items``.
    """
    errors = [note.message for note in trust if note.level == "error"]
    if errors:
        return AdviceResult((), f"no advice: {errors[0]}")
    if steps is None:
        return AdviceResult((), "no advice: no llama.cpp steps were found in this trace")
    shares = {} if families is None else {str(row["family"]): float(row["share"]) for row in families.rows.to_dicts()}
    facts = _Facts(steps, shares)
    items = [*(item for rule in _RULES for item in rule(facts)), *further]
    items.sort(key=lambda item: (-item.max_gain_ns, item.name))
    return AdviceResult(tuple(items), None if items else "no part of the time per token is large enough to work on")


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a phase's time per token."""

    phase: str
    evidence: tuple[Evidence, ...]
    cost: PhaseCost

    @property
    def ns(self) -> float:
        return sum(one.value or 0.0 for one in self.evidence)

    @property
    def total(self) -> float:
        return sum(self.cost.ledger.values())

    @property
    def share(self) -> float:
        return self.ns / self.total if self.total else 0.0

    @property
    def worth(self) -> bool:
        return self.share >= WORTH

    def __str__(self) -> str:
        return f"{human_ns(self.ns)} of {human_ns(self.total)} per token ({human_share(self.share)})"

    def item(self, name: str, *, change: str, axes: Mapping[str, tuple[str, ...]], why: str, refuted_by: str) -> Item:
        left = self.total - self.ns
        return Item(
            name=name,
            phase=self.phase,
            change=change,
            axes=axes,
            why=why,
            evidence=self.evidence,
            max_speedup=self.total / left if left > 0 else None,
            max_gain_ns=self.ns * self.cost.tokens,
            refuted_by=refuted_by,
        )


def _ledger(facts: _Facts, phase: str, *parts: str) -> _Part | None:
    """Parts of the ledger together."""
    cost = facts.cost(phase)
    if cost is None:
        return None
    path = f"steps.by_phase.{phase}.per_token.ledger"
    return _Part(phase, tuple(Evidence(f"{path}.{part}", cost.ledger[part]) for part in parts), cost)


def _category(facts: _Facts, phase: str, name: str) -> _Part | None:
    cost = facts.cost(phase)
    if cost is None or name not in cost.categories:
        return None
    path = f"steps.by_phase.{phase}.per_token.categories.{name}"
    return _Part(phase, (Evidence(path, cost.categories[name]),), cost)


def _graphs_on(facts: _Facts) -> Iterator[Item]:
    part = _ledger(facts, "decode", "dispatch", "submit")
    if part is None or not part.worth:
        return
    steps = part.cost.periods or 1
    per_step = part.cost.counts["launches"] * part.cost.tokens / steps
    if part.cost.counts["graph_launches"] > 0 or per_step < _MANY_LAUNCHES:
        return
    yield part.item(
        "graphs_on",
        change="CUDA graphs on: unset GGML_CUDA_DISABLE_GRAPHS, or build with -DGGML_CUDA_GRAPHS=ON",
        axes={"env GGML_CUDA_DISABLE_GRAPHS": ("1", "")},
        why=f"no CUDA graph is replayed in decode, every step makes {per_step:.0f} launches, and the GPU waits for "
        f"launches during {part}",
        refuted_by="graph_launches_per_token stays 0, or decode.ms_per_token does not fall",
    )


def _graph_churn(facts: _Facts) -> Iterator[Item]:
    part = _ledger(facts, "decode", "cuda", "submit")
    if part is None or not part.worth:
        return
    captures = part.cost.counts["captures"]
    if captures < _CHURN:
        return
    yield part.item(
        "graph_churn",
        change="CUDA graphs off for a test: GGML_CUDA_DISABLE_GRAPHS=1; then look for what changes from step to step",
        axes={"env GGML_CUDA_DISABLE_GRAPHS": ("", "1")},
        why=f"graphs are captured {captures:.2f} times per token, and the GPU waits for driver calls during {part}",
        refuted_by="captures_per_token falls to 0 and decode.ms_per_token does not fall",
    )


def _sampling(facts: _Facts) -> Iterator[Item]:
    part = _ledger(facts, "decode", "host")
    if part is None or not part.worth or _offloads(facts):
        return
    copied = facts.steps.steps.filter(facts.steps.steps["phase"] == "decode")["bytes_logits"].sum()
    if not copied:
        return
    yield part.item(
        "backend_sampling",
        change="--backend-sampling, or a shorter sampler chain (--samplers)",
        axes={"--backend-sampling": ("0", "1")},
        why=f"the GPU waits for the program's own code during {part}, and logits are copied to the CPU to be sampled",
        refuted_by="bytes_logits_per_token falls and decode.ledger.host does not",
    )


def _offloads(facts: _Facts) -> bool:
    return facts.steps.offload_ns >= WORTH * int(facts.steps.steps["period_ns"].sum())


def _offload(facts: _Facts) -> Iterator[Item]:
    part = _ledger(facts, "decode", "host", "os", "blocked")
    if part is None or not part.worth or not _offloads(facts):
        return
    why = f"layers or experts are computed on the CPU between segments of a step; the GPU waits for it during {part}"
    around = _ledger(facts, "decode", "host", "os", "blocked", "sync", "submit", "dispatch", "cuda", "memcpy")
    yield (around or part).item(
        "more_on_gpu",
        change="more layers on the GPU: larger -ngl, smaller --n-cpu-moe",
        axes={"-ngl": ("99",), "--n-cpu-moe": ("999", "0")},
        why=why,
        refuted_by="decode.ledger.host falls and decode.ms_per_token does not",
    )
    yield part.item(
        "threads",
        change="another number of CPU threads: -t",
        axes={"-t": ("2", "4", "8", "16")},
        why=why,
        refuted_by="decode.ledger.host is the same at every -t",
    )


def _streamed(facts: _Facts) -> Iterator[Item]:
    part = _ledger(facts, "prefill", "memcpy")
    if part is None or not part.worth:
        return
    rows = facts.steps.steps.filter(facts.steps.steps["phase"] == "prefill")
    streamed, copied = int(rows["bytes_weights_streamed"].sum()), int(rows["bytes"].sum())
    if 2 * streamed < copied:
        return
    yield part.item(
        "larger_ubatch",
        change="larger ubatches for prompts: -ub (and -b): weights are streamed once a ubatch",
        axes={"-ub": ("512", "1024", "2048")},
        why=f"weights of layers on the CPU are copied to the GPU in every prompt step, during {part}",
        refuted_by="prefill.bytes_weights_streamed_per_token falls and prefill.ms_per_token does not",
    )


def _dequantize(facts: _Facts) -> Iterator[Item]:
    for phase in ("prefill", "decode"):
        part = _category(facts, phase, "dequantize")
        if part is not None and part.worth:
            yield part.item(
                f"dequantize_{phase}",
                change="another quantisation, or a build with -DGGML_CUDA_FORCE_MMQ=ON",
                axes={},
                why=f"weights are converted before they are multiplied, during {part} of {phase}",
                refuted_by=f"{phase}.categories.dequantize falls and {phase}.ms_per_token does not",
            )


def _attention(facts: _Facts) -> Iterator[Item]:
    part = _category(facts, "decode", "attention")
    if part is None or part.share < 2 * WORTH:
        return
    if any("flash_attn" in family for family in facts.families):
        yield part.item(
            "kv_quant",
            change="a quantised KV cache: -ctk q8_0 -ctv q8_0",
            axes={"-ctk": ("f16", "q8_0"), "-ctv": ("f16", "q8_0")},
            why=f"attention, which reads the KV cache, takes {part}",
            refuted_by="decode.categories.attention does not fall",
        )
    elif facts.families:
        yield part.item(
            "flash_attention",
            change="flash attention: -fa 1",
            axes={"-fa": ("0", "1")},
            why=f"attention runs without flash-attention kernels and takes {part}",
            refuted_by="decode.categories.attention does not fall",
        )


def _peer(facts: _Facts) -> Iterator[Item]:
    for phase in ("decode", "prefill"):
        part = _ledger(facts, phase, "peer")
        if part is not None and part.worth:
            yield part.item(
                f"split_{phase}",
                change="more sequences at once (-np) so that both GPUs have work, or -sm row, which splits each layer",
                axes={"-sm": ("layer", "row")},
                why=f"one GPU waits for another during {part} of {phase}",
                refuted_by=f"{phase}.ledger.peer falls and {phase}.ms_per_token does not",
            )


_RULES: Final[tuple[Callable[[_Facts], Iterator[Item]], ...]] = (
    _graphs_on, _graph_churn, _sampling, _offload, _streamed, _dequantize, _attention, _peer,
)  # fmt: skip
