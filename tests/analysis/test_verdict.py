"""The verdict, branch by branch, on ledgers made by hand: a window of 100 ns."""

from __future__ import annotations

import polars as pl
import pytest

from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.devices import DeviceLedger, DevicesResult
from nsyskit.analysis.gpus import GpuUse
from nsyskit.analysis.step_costs import StepsResult
from nsyskit.analysis.trust import TrustNote
from nsyskit.analysis.verdict import Verdict, group_idle, verdict
from nsyskit.trace import Window

WINDOW = Window("explicit", 0, 100)
USE = GpuUse(gpu=0, name="Tesla T4", members=((10, 0),))


def ledger(*, kernel: int = 0, graph: int = 0, memcpy: int = 0, **idle: int) -> DeviceLedger:
    busy = kernel + graph + memcpy
    assert busy + sum(idle.values()) == WINDOW.dur_ns
    return DeviceLedger(
        use=USE, window=WINDOW, window_ns=100, busy_ns=busy, kernel_ns=kernel, graph_ns=graph, memcpy_ns=memcpy,
        memset_ns=0, idle_ns=100 - busy, kernel_sum_ns=kernel, overlap_ns=0,
        idle={cause: idle.get(cause, 0) for cause in CAUSES},
    )  # fmt: skip


def judge(*ledgers: DeviceLedger, trust: tuple[TrustNote, ...] = (), steps: StepsResult | None = None) -> Verdict:
    return verdict(DevicesResult(WINDOW, ledgers), sync=None, trust=trust, steps=steps)


def inside_steps(inside: DeviceLedger, *, offload_ns: int = 0) -> StepsResult:
    """The time inside steps; what the steps themselves were does not matter to the verdict."""
    return StepsResult(
        window=WINDOW, steps=pl.DataFrame(), torn=0, ledger=inside, offload_ns=offload_ns, by_phase={},
        slowest=pl.DataFrame(), prompt_cost_ms=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "bottleneck"),
    [
        ({"kernel": 85, "host": 15}, "gpu-bound"),
        ({"kernel": 84, "host": 16}, "host-bound"),
        ({"graph": 90, "host": 10}, "gpu-bound"),
        ({"kernel": 70, "memcpy": 30, "host": 0}, "copy-bound"),
        ({"kernel": 71, "memcpy": 29, "host": 0}, "gpu-bound"),
        ({"kernel": 20, "memcpy": 30, "host": 50}, "host-bound"),
        ({"kernel": 20, "peer": 60, "host": 20}, "pipeline-bound"),
        ({"kernel": 20, "dispatch": 30, "submit": 30, "sync": 20}, "launch-bound"),
        ({"kernel": 20, "sync": 60, "host": 20}, "sync-bound"),
        ({"kernel": 20, "cuda": 60, "host": 20}, "driver-bound"),
        ({"kernel": 20, "host": 20, "os": 20, "blocked": 20, "sync": 20}, "host-bound"),
        ({"kernel": 20, "host": 40, "sync": 36, "cuda": 4}, "mixed"),
        ({"kernel": 20, "host": 42, "sync": 37, "cuda": 1}, "host-bound"),
        ({"kernel": 20, "unknown": 60, "profiler": 20}, "none"),
    ],
)
def test_each_branch(parts, bottleneck):
    assert judge(ledger(**parts)).bottleneck == bottleneck


@pytest.mark.parametrize(("offload", "bottleneck"), [(39, "host-bound"), (40, "cpu-offload-bound")])
def test_host_time_between_segments_of_one_step(offload, bottleneck):
    whole = ledger(kernel=10, sync=90)
    assert judge(whole, steps=inside_steps(ledger(kernel=20, host=80), offload_ns=offload)).bottleneck == bottleneck


def test_inside_steps_where_there_are_any():
    found = judge(ledger(kernel=10, host=90), steps=inside_steps(ledger(kernel=90, sync=10)))
    assert found.bottleneck == "gpu-bound"
    assert {item.path: item.value for item in found.evidence}["steps.ledger.busy_ns"] == 90


def test_the_gpu_that_works_most_is_judged():
    busy, lazy = ledger(kernel=90, host=10), ledger(kernel=10, sync=90)
    assert judge(busy, lazy).bottleneck == "gpu-bound"


def test_a_trust_error_withholds_it():
    note = TrustNote("error", "kernels_missing", "8 launches but not one kernel row")
    found = judge(ledger(kernel=90, host=10), trust=(note,))
    assert found == Verdict("none", "No verdict: 8 launches but not one kernel row.", (), ())


def test_a_warning_does_not():
    assert judge(ledger(kernel=90, host=10), trust=(TrustNote("warning", "x", "y"),)).bottleneck == "gpu-bound"


def test_no_gpu_work():
    assert judge().bottleneck == "idle"
    assert judge(ledger(memcpy=10, host=90)).bottleneck == "idle"


def test_cuda_was_not_collected():
    found = verdict(None, sync=None, trust=())
    assert (found.bottleneck, found.sentence) == (
        "none", "No verdict: CUDA was not collected; capture with --trace=cuda.",
    )  # fmt: skip


def test_the_sentence_carries_the_numbers():
    said = judge(ledger(kernel=20, sync=60, host=20)).sentence
    assert said == (
        "sync-bound: Tesla T4 works 20.0 % of the time and idles 80 ns, "
        "75.0 % of that because it idles while the CPU sits in a synchronizing call."
    )
    assert judge(ledger(kernel=20, host=40, sync=36, cuda=4)).sentence == (
        "mixed: Tesla T4 works 20.0 % of the time and idles 80 ns: 40 ns host-bound, 36 ns sync-bound."
    )


def test_bounds_tell_what_removing_a_part_wins_at_most():
    """100 / (100 − 60) and 100 / (100 − 20)."""
    bounds = judge(ledger(kernel=20, sync=60, host=20)).bounds
    assert [(bound.part, bound.max_speedup) for bound in bounds] == [("sync", 2.5), ("host", 1.25)]


def test_evidence_names_places_of_the_document():
    evidence = {item.path: item.value for item in judge(ledger(kernel=20, sync=60, host=20)).evidence}
    assert evidence["devices[0].busy_ns"] == 20
    assert evidence["devices[0].idle.sync"] == 60


def test_groups_sum_to_idle():
    sample = ledger(
        kernel=20, peer=1, dispatch=2, submit=3, sync=5, cuda=8, host=13, os=21, blocked=20, unknown=4, profiler=3
    )
    groups = group_idle(sample)
    assert groups == {
        "host-bound": 54, "driver-bound": 8, "none": 7, "launch-bound": 5, "sync-bound": 5, "pipeline-bound": 1,
    }  # fmt: skip
    assert sum(groups.values()) == sample.idle_ns
