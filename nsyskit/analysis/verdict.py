"""The verdict: what bounds the GPU that works most, in one sentence with the numbers that prove it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nsyskit.analysis.devices import DeviceLedger, DevicesResult
from nsyskit.analysis.step_costs import StepsResult
from nsyskit.analysis.sync import SyncResult
from nsyskit.analysis.trust import TrustNote
from nsyskit.units import human_ns, human_share

GPU_BOUND_SHARE: Final = 0.85
COPY_BOUND_SHARE: Final = 0.30
MIXED_RATIO: Final = 0.90
_COPIES_TELL: Final = 0.05
"""Blocking copies are named once they are this much of API time: the waits of the sentence hold theirs."""

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "pipeline-bound": ("peer",),
    "launch-bound": ("dispatch", "submit"),
    "sync-bound": ("sync",),
    "driver-bound": ("cuda",),
    "host-bound": ("host", "os", "blocked"),
    "none": ("unknown", "profiler"),
}
"""Bottleneck -> causes of idle time that speak for it."""

_MEANING: Final = {
    "pipeline-bound": "it waits for another GPU",
    "launch-bound": "launching the kernels takes longer than running them",
    "sync-bound": "it idles while the CPU sits in a synchronizing call",
    "driver-bound": "the driver is busy with other calls (allocation, graph building, module loading)",
    "host-bound": "the CPU is busy with something else between submissions",
    "cpu-offload-bound": "layers or experts run on the CPU between its own segments",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """A number the verdict rests on; ``path`` is where it stands in the JSON document."""

    path: str
    value: float | int | None


@dataclass(frozen=True, slots=True)
class Bound:
    """Removing ``part`` of idle time makes the window at most ``max_speedup`` times faster."""

    part: str
    max_speedup: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    bottleneck: str
    sentence: str
    evidence: tuple[Evidence, ...]
    bounds: tuple[Bound, ...]


def verdict(
    devices: DevicesResult | None,
    *,
    sync: SyncResult | None,
    trust: Sequence[TrustNote],
    steps: StepsResult | None = None,
) -> Verdict:
    """Judge the GPU with most busy time: inside its steps where there are any.

    Args:
        devices: the ledgers, None when CUDA was not collected.
        sync: for the sentence that says what the sync share was.
        trust: any error withholds the verdict.
        steps: the time inside steps, None where no steps were found.
    """
    errors = [note.message for note in trust if note.level == "error"]
    if errors:
        return Verdict("none", f"No verdict: {errors[0]}.", (), ())
    if devices is None:
        return Verdict("none", "No verdict: CUDA was not collected; capture with --trace=cuda.", (), ())
    ledger = steps.ledger if steps else next(iter(devices.devices), None)
    if ledger is None or ledger.kernel_ns + ledger.graph_ns == 0:
        return Verdict("idle", "idle: no GPU ran a kernel in this window.", (), ())
    groups = group_idle(ledger)
    bottleneck = _bottleneck(ledger, groups, steps.offload_ns if steps else 0)
    path = "steps.ledger" if steps else "devices[0]"
    sentence = f"{bottleneck}: {_reason(bottleneck, ledger, groups)}{_about_sync(sync)}"
    return Verdict(bottleneck, sentence, _evidence(path, ledger, groups, sync), _bounds(ledger))


def group_idle(ledger: DeviceLedger) -> dict[str, int]:
    """Idle ns by bottleneck, largest first."""
    sums = {name: sum(ledger.idle[cause] for cause in causes) for name, causes in GROUPS.items()}
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def _bottleneck(ledger: DeviceLedger, groups: dict[str, int], offload_ns: int) -> str:
    if ledger.busy_share >= GPU_BOUND_SHARE:
        return "copy-bound" if ledger.memcpy_ns >= COPY_BOUND_SHARE * ledger.busy_ns else "gpu-bound"
    (first, most), (_, second), *_ = groups.items()
    if second >= MIXED_RATIO * most:
        return "mixed"
    if first == "host-bound" and 2 * offload_ns >= most:
        return "cpu-offload-bound"
    return first


def _reason(bottleneck: str, ledger: DeviceLedger, groups: dict[str, int]) -> str:
    name = ledger.use.name or f"GPU {ledger.use.device}"
    busy = f"{name} works {human_share(ledger.busy_share)} of the time"
    if bottleneck == "gpu-bound":
        return f"{busy}; faster kernels or fewer of them help most."
    if bottleneck == "copy-bound":
        return f"{busy}, {human_share(ledger.memcpy_ns / ledger.busy_ns)} of that only copying."
    (first, most), (second, next_most), *_ = groups.items()
    idle = f"{busy} and idles {human_ns(ledger.idle_ns)}"
    if bottleneck == "mixed":
        return f"{idle}: {human_ns(most)} {first}, {human_ns(next_most)} {second}."
    if bottleneck == "none":
        return f"{idle}, most of it ({human_ns(most)}) for reasons the trace does not hold."
    return f"{idle}, {human_share(most / ledger.idle_ns)} of that because {_MEANING[bottleneck]}."


def _about_sync(sync: SyncResult | None) -> str:
    if sync is None or sync.share_of_api is None or sync.wait_share is None:
        return ""
    what, share = "Synchronizing calls", sync.share_of_api
    if sync.sync_copy_share is not None and sync.sync_copy_share > sync.share_of_api + _COPIES_TELL:
        what, share = "Synchronizing calls and copies that block", sync.sync_copy_share
    return (
        f" {what} are {human_share(share)} of API time; {human_share(sync.wait_share)} of sync time the GPU was busy."
    )


def _evidence(path: str, ledger: DeviceLedger, groups: dict[str, int], sync: SyncResult | None) -> tuple[Evidence, ...]:
    causes = GROUPS[next(iter(groups))]
    figures = [
        Evidence(f"{path}.window_ns", ledger.window_ns),
        Evidence(f"{path}.busy_ns", ledger.busy_ns),
        Evidence(f"{path}.idle_ns", ledger.idle_ns),
        Evidence(f"{path}.memcpy_ns", ledger.memcpy_ns),
        *(Evidence(f"{path}.idle.{cause}", ledger.idle[cause]) for cause in causes),
    ]
    if sync is not None:
        figures += [Evidence("sync.share_of_api", sync.share_of_api), Evidence("sync.wait_share", sync.wait_share)]
    return tuple(figures)


def _bounds(ledger: DeviceLedger) -> tuple[Bound, ...]:
    total = ledger.window_ns
    parts = {cause: ns for cause, ns in ledger.idle.items() if ns}
    ordered = sorted(parts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Bound(cause, total / (total - ns) if total > ns else None) for cause, ns in ordered)
