"""All analyses of one trace, put together: the value that every renderer starts from."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from nsyskit.analysis import sums
from nsyskit.analysis.advice import advice
from nsyskit.analysis.copies import copies
from nsyskit.analysis.depth import depth
from nsyskit.analysis.devices import DevicesResult, devices, whole_pieces
from nsyskit.analysis.gaps import gaps
from nsyskit.analysis.host_functions import host_functions
from nsyskit.analysis.hotspots import category_sum, family_sum, kernel_hotspots, quant_sum
from nsyskit.analysis.launch import launch
from nsyskit.analysis.layers import layers
from nsyskit.analysis.limit_advice import limit_items
from nsyskit.analysis.limits import ModelLoad, limits
from nsyskit.analysis.os_threads import osrt_by_thread
from nsyskit.analysis.program import program, program_notes
from nsyskit.analysis.roles import roles
from nsyskit.analysis.several_gpus import several_gpus
from nsyskit.analysis.startup import startup
from nsyskit.analysis.step_costs import StepsResult, steps
from nsyskit.analysis.step_detail import step_detail
from nsyskit.analysis.steps import find_steps
from nsyskit.analysis.sync import SyncResult, sync
from nsyskit.analysis.threads import threads
from nsyskit.analysis.trust import TrustNote, errors_first, trust
from nsyskit.analysis.verdict import Verdict, verdict
from nsyskit.analysis.windows import default_window
from nsyskit.errors import MissingTableError
from nsyskit.ggml.catalogue import KernelRules
from nsyskit.trace import Trace, TraceMeta, Window

Analysis = Callable[..., Any]

SECTIONS: Final[dict[str, Analysis]] = {
    "api_sum": sums.api_sum,
    "osrt_sum": sums.osrt_sum,
    "osrt_by_thread": osrt_by_thread,
    "kernel_sum": kernel_hotspots,
    "category_sum": category_sum,
    "family_sum": family_sum,
    "quant_sum": quant_sum,
    "kern_exec_sum": sums.kern_exec_sum,
    "mem_time_sum": sums.mem_time_sum,
    "mem_size_sum": sums.mem_size_sum,
    "nvtx_sum": sums.nvtx_sum,
    "sync": sync,
    "launch": launch,
    "copies": copies,
    "devices": devices,
    "threads": threads,
    "gaps": gaps,
    "host_functions": host_functions,
    "steps": steps,
    "program": program,
    "limits": limits,
    "startup": startup,
    "layers": layers,
    "several_gpus": several_gpus,
    "depth": depth,
    "roles": roles,
}
"""Section -> analysis, in the order of computing."""

_LONG: Final = frozenset({"steps", "threads"})
"""Begun first: one takes longest, and others wait for what the other derives."""
_BY_OUTPUT: Final = frozenset({"program", "startup", "depth", "steps"})
_BY_CATALOGUE: Final = frozenset({"kernel_sum", "category_sum", "family_sum", "quant_sum"})

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "sums": tuple(name for name in SECTIONS if name.endswith("_sum")),
    "osrt": ("osrt_sum", "osrt_by_thread"),
    "hotspots": ("category_sum", "family_sum", "quant_sum", "kernel_sum"),
    "sync": ("sync",),
    "launch": ("launch",),
    "copies": ("copies", "mem_time_sum", "mem_size_sum"),
    "devices": ("devices",),
    "threads": ("threads",),
    "gaps": ("gaps", "host_functions", "devices"),
    "steps": ("steps",),
    "phases": ("steps",),
    "program": ("program",),
    "limits": ("limits",),
    "startup": ("startup",),
    "layers": ("layers",),
    "several_gpus": ("several_gpus",),
    "depth": ("depth",),
    "roles": ("roles",),
    "verdict": ("verdict", "devices", "sync", "steps"),
    "advice": ("advice", "steps", "family_sum"),
    **{name: (name,) for name in SECTIONS if name.endswith("_sum")},
}
"""What ``--analysis`` offers -> the sections it shows."""

_PLAIN: Final = frozenset({*(name for name in SECTIONS if name.endswith("_sum")), "osrt_by_thread"})
"""Sections that look at neither steps nor ledgers."""

OVERVIEW: Final = tuple(
    name
    for name in (*SECTIONS, "verdict", "advice")
    if name not in {"kern_exec_sum", "osrt_sum", "mem_size_sum", "limits", "layers", "depth", "roles"}
)
"""Sections of the report that a person reads first: without those that a sharper section says better.

``limits`` joins them when the model is known.
"""


_FUSED: Final = TrustNote(
    "note", "fused", "kernels are split by the node-level trace of this capture, times are those of the graph-level one"
)


@dataclass(frozen=True, slots=True)
class Report:
    """Results by section; None where the source was not collected. Sections that were not asked for are absent.

    ``named`` are the analyses that were asked for by name.
    """

    meta: TraceMeta
    window: Window | None
    trust: tuple[TrustNote, ...]
    verdict: Verdict | None
    sections: Mapping[str, Any]
    named: frozenset[str] = frozenset()


def analyze(
    trace: Trace,
    *,
    only: Collection[str] = (),
    window: Window | None = None,
    rules: KernelRules | None = None,
    logs: Sequence[str] = (),
    load: ModelLoad | None = None,
    step: int | None = None,
    shares: Trace | None = None,
) -> Report:
    """Run the analyses named in ``only`` (keys of ``CHOICES`` or sections; all when empty).

    ``window`` None lets sums cover the whole file and ledgers the default window. ``rules`` None is the built-in
    kernel catalogue. ``logs`` are texts of the program's output, in place of what the trace kept of it. ``load`` is
    what the model demands; without it there is no section ``limits``, and without its tensors no ``roles``, unless
    asked for by name.
    ``step`` adds a section ``step`` with the inside of that one. ``shares`` is the node-level trace of the same load in
    a fused capture: kernels are split by it, since the graph-level one hides them.
    """
    wanted = {section for choice in only for section in CHOICES.get(choice, (choice,))} or {
        *SECTIONS,
        "verdict",
        "advice",
    }
    options: dict[str, dict[str, Any]] = {name: {"rules": rules} for name in _BY_CATALOGUE}
    options |= {name: {"texts": tuple(logs)} for name in _BY_OUTPUT} | {"limits": {"load": load, "texts": tuple(logs)}}
    options["roles"] = {"load": load}
    options["layers"] = {"expected": load.layers if load else None}
    wanted |= {"limits"} if load is not None and "advice" in wanted else set()  # numbers that advice stands on
    wanted -= {"limits"} if load is None and "limits" not in only else set()
    wanted -= {"roles"} if (load is None or load.model is None) and "roles" not in only else set()
    runs = {name: partial(run, **options.get(name, {})) for name, run in SECTIONS.items() if name in wanted}
    with ThreadPoolExecutor(max_workers=1 + (os.cpu_count() or 1)) as pool:
        # They share what they derive from the trace, and hardly any of their time holds the interpreter's lock. What
        # most of them start from goes first, side by side, or the first to need it would keep the others waiting; one
        # more of them than there are cores, for some do wait.
        for derive in (find_steps, whole_pieces) if wanted - _PLAIN else ():
            pool.submit(derive, trace)
        begun = {
            name: pool.submit(_or_none, runs[name], *_source(name, trace, window, shares))
            for name in sorted(runs, key=lambda name: name not in _LONG)
        }
        trusted = pool.submit(trust, trace, window=window)
        sections = {name: begun[name].result() for name in runs}
    told = [*trusted.result(), *program_notes(sections.get("program"))]
    notes = errors_first([*told, _FUSED] if shares is not None else told)
    judged = None
    if "verdict" in wanted:
        ledgers: DevicesResult | None = sections.get("devices")
        synced: SyncResult | None = sections.get("sync")
        stepped: StepsResult | None = sections.get("steps")
        judged = verdict(ledgers, sync=synced, trust=notes, steps=stepped)
    if "advice" in wanted:
        stepped, told_by = sections.get("steps"), limit_items(sections.get("limits"), sections.get("steps"))
        sections["advice"] = advice(stepped, families=sections.get("family_sum"), trust=notes, further=told_by)
    if step is not None:
        sections["step"] = step_detail(trace, step)
    return Report(trace.meta, window or _default(trace), notes, judged, sections, frozenset(only))


def _source(name: str, trace: Trace, window: Window | None, shares: Trace | None) -> tuple[Trace, Window | None]:
    """Which trace a section looks at; a window of one trace's clock means nothing in the other's."""
    return (shares, None) if shares is not None and name in _BY_CATALOGUE else (trace, window)


def _or_none(run: Analysis, trace: Trace, window: Window | None) -> Any:
    try:
        return run(trace, window=window)
    except MissingTableError:
        return None


def _default(trace: Trace) -> Window | None:
    try:
        return default_window(trace)
    except MissingTableError:
        return None
