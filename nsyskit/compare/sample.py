"""A run reduced to what comparing needs: facts about its setup, and one row a step with everything per step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from nsyskit.analysis.copies import PURPOSES
from nsyskit.analysis.hotspots import kernel_facts
from nsyskit.analysis.launch import GRAPH_CALLS
from nsyskit.analysis.launches import calls_named
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.names import strings_of
from nsyskit.analysis.step_costs import COUNTS, LEDGER_PARTS, PHASES, kernels_by_step, steps
from nsyskit.analysis.steps import step_at
from nsyskit.analysis.trust import trust
from nsyskit.compare.setup import trace_setup
from nsyskit.errors import MissingTableError
from nsyskit.trace import Trace, Window
from nsyskit.units import printable

STEP_TIME: Final = "ms_per_token"
GRAPH_COUNTS: Final = ("instantiations", "updates", "destroys")
_NAME_CHARACTERS: Final = 120


@dataclass(frozen=True, slots=True, eq=False)
class PhaseSample:
    """The timed steps of one phase of one run, in time order.

    ``steps``: ``n_tokens``, ``bytes_input`` (grows with the context: the mask), ``ms_per_token`` (the period in ns,
    to be divided by tokens), ``ledger.<part>`` (ns, they sum to the period), ``category.<name>``, ``quant.<name>`` and
    ``kernel.<name>`` (kernel ns), ``calls.<name>`` (kernels of that name), ``<count>`` of ``COUNTS``, graphs
    instantiated, updated and destroyed (``GRAPH_COUNTS``), and ``bytes_<purpose>``.
    """

    phase: str
    steps: pl.DataFrame

    @property
    def tokens(self) -> int:
        return int(self.steps["n_tokens"].sum())


@dataclass(frozen=True, slots=True, eq=False)
class RunSample:
    """One run.

    Attributes:
        name: the trace's name, without folders.
        setup: facts by name, as text; see ``setup.trace_setup``.
        errors: messages of trust errors: what withholds a verdict.
        without_steps: why no step was found, None where there are some.
        warnings: codes of trust warnings.
        window: which kind of window the steps were taken from, and how long it was.
        phases: phase -> its steps; phases without a timed step are absent.
    """

    name: str
    setup: Mapping[str, str]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    window: str
    window_ns: int
    phases: Mapping[str, PhaseSample]
    without_steps: str | None = None


def sample_run(
    trace: Trace, *, window: Window | None = None, run: Mapping[str, Any] | None = None, name: str | None = None
) -> RunSample:
    """Reduce a trace; ``window`` None takes the steady part, ``run`` is the content of ``run.json``.

    Raises:
        MissingTableError: the trace holds no llama.cpp steps.
    """
    found = steps(trace, window=window)
    notes = trust(trace, window=window)
    rows = found.steps.filter(pl.col("period_ns").is_not_null())
    columns = pl.concat([_plain(rows), _graph_health(trace, rows), _kernel_columns(trace, rows)], how="horizontal")
    phases = {}
    for phase in PHASES:
        own = columns.filter(rows["phase"] == phase)
        if own.height:
            used = [name for name in own.columns if not name.startswith(_SPARSE) or own[name].max()]
            phases[phase] = PhaseSample(phase, own.select(used))
    return RunSample(
        name=name or trace.meta.name,
        setup=trace_setup(trace, run),
        errors=tuple(note.message for note in notes if note.level == "error"),
        warnings=tuple(sorted({note.code for note in notes if note.level == "warning"})),
        window=found.window.kind,
        window_ns=found.window.dur_ns,
        phases=phases,
    )


def stepless_run(
    trace: Trace, why: MissingTableError, *, run: Mapping[str, Any] | None = None, name: str | None = None
) -> RunSample:
    """A trace without steps as a side of a comparison, which is then refused with the reason."""
    return RunSample(
        name=name or trace.meta.name, setup=trace_setup(trace, run), errors=(), warnings=(), window="none",
        window_ns=0, phases={}, without_steps=why.message,
    )  # fmt: skip


_SPARSE: Final = ("category.", "quant.", "kernel.", "calls.")


def _plain(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(
        "n_tokens",
        pl.col("period_ns").alias(STEP_TIME),
        *(pl.col(f"{part}_ns").alias(f"ledger.{part}") for part in LEDGER_PARTS),
        *COUNTS,
        *(f"bytes_{purpose}" for purpose in PURPOSES),
    )


def _graph_health(trace: Trace, rows: pl.DataFrame) -> pl.DataFrame:
    """Graphs instantiated, updated and destroyed in each step."""
    columns = []
    for name in GRAPH_COUNTS:
        found = pl.DataFrame({"index": step_at(trace, calls_named(trace, GRAPH_CALLS[name]))}).drop_nulls()
        counts = found.group_by("index").agg(pl.len().cast(pl.Int64).alias(name))
        columns.append(rows.select("index").join(counts, on="index", how="left", maintain_order="left")[name])
    return pl.DataFrame([column.fill_null(0) for column in columns])


def _kernel_columns(trace: Trace, rows: pl.DataFrame) -> pl.DataFrame:
    """Kernel time and calls per step by category, quant and kernel, one column each."""
    found = _step_kernels(trace).filter(pl.col("index").is_in(rows["index"].implode()))
    frames = [
        _wide(found.filter(pl.col(by).is_not_null()), rows, pl.concat_str(pl.lit(f"{prefix}."), pl.col(by)), value)
        for by, prefix, value in (
            ("category", "category", "dur"), ("quant", "quant", "dur"), ("name", "kernel", "dur"),
            ("name", "calls", "count"),
        )
    ]  # fmt: skip
    return pl.concat(frames, how="horizontal")


def _wide(found: pl.DataFrame, rows: pl.DataFrame, column: pl.Expr, value: str) -> pl.DataFrame:
    long = found.with_columns(column=column).group_by("index", "column").agg(pl.col(value).sum())
    if long.is_empty():
        return pl.DataFrame()
    wide = long.pivot("column", index="index", values=value)
    joined = rows.select("index").join(wide, on="index", how="left", maintain_order="left").drop("index")
    return joined.select(sorted(joined.columns)).fill_null(0)


@once_per_trace
def _step_kernels(trace: Trace) -> pl.DataFrame:
    """Kernels by step and name: ``index name category quant dur count``."""
    facts = kernel_facts(trace).select("name_id", "category", "quant")
    names = strings_of(trace, facts["name_id"]).select(
        name_id="string_id", name=pl.col("value").map_elements(kernel_title, return_dtype=pl.String)
    )
    return kernels_by_step(trace).join(facts, on="name_id", how="left").join(names, on="name_id", how="left")


def kernel_title(name: str) -> str:
    """A kernel's name with its template arguments and without its parameters: what tells two kernels apart.

    >>> kernel_title("void mul_mat_q<(ggml_type)12, (int)128, (bool)0>(const char *, int)")
    'mul_mat_q<(ggml_type)12, (int)128, (bool)0>'
    """
    title = name.removeprefix("void ").strip()
    if title.endswith(")"):
        depth = 0
        for at in range(len(title) - 1, -1, -1):
            depth += {")": 1, "(": -1}.get(title[at], 0)
            if depth == 0:
                title = title[:at] or title
                break
    return printable(title.strip())[:_NAME_CHARACTERS]
