"""One trace reduced to what a fleet needs of it: facts and numbers as JSON, sums as a few hundred rows of Parquet.

Everything in a part follows from the trace's content: not its name, not the worker, not the day.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import polars as pl

from nsyskit import __version__
from nsyskit.analysis.devices import DevicesResult, devices
from nsyskit.analysis.hotspots import kernel_hotspots
from nsyskit.analysis.launch import launch
from nsyskit.analysis.step_costs import LEDGER_PARTS, PHASES, steps
from nsyskit.analysis.sync import sync
from nsyskit.analysis.trust import errors_first, trust
from nsyskit.analysis.verdict import verdict
from nsyskit.compare.sample import STEP_TIME, RunSample, kernel_title, sample_run
from nsyskit.compare.setup import trace_setup
from nsyskit.compare.store import metrics as sample_metrics
from nsyskit.errors import MissingTableError
from nsyskit.trace import Trace

SCHEMA: Final = "nsyskit.fleet.part/1"
BIN_WIDTH: Final = 1.01
"""Step times are counted in bins 1 % wide: bin b holds [1.01^b, 1.01^(b+1)) ns per token."""

ROW_SCHEMA: Final = {
    "kind": pl.String, "scope": pl.String, "name": pl.String, "count": pl.Int64, "total_ns": pl.Int64,
}  # fmt: skip
"""``kernel``: scope is the category; ``device``: the ledger of GPU ``scope``, by part; ``tokens``: the ledger of phase
``scope``, by part, over ``count`` tokens; ``steps``: steps of phase ``scope`` in the bin ``name`` of time per token."""

_SHAPES: Final = {"setup": dict, "metrics": dict, "hosts": list, "trust": list, "devices": list, "run": bool}
_LARGEST: Final = 2**53
"""More than any number of a part: as ns, a hundred days."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """``facts`` as JSON knows them (see ``make_part``), ``rows`` with the columns of ``ROW_SCHEMA``."""

    facts: Mapping[str, Any]
    rows: pl.DataFrame

    def parquet(self) -> bytes:
        out = io.BytesIO()
        self.rows.write_parquet(out, compression="zstd", statistics=False)
        return out.getvalue()


def make_part(trace: Trace, *, run: Mapping[str, Any] | None = None) -> Part:
    """Reduce a trace. ``run`` is the content of its ``run.json``, where there is one.

    Facts: ``setup`` (as ``compare.setup`` names it), ``rank``, ``trust``, ``bottleneck``, ``sentence``, ``window``,
    ``devices`` (the GPUs' names, most busy first), ``metrics`` (path -> value, unit).
    """
    ledgers = _or_none(lambda: devices(trace))
    sample = _or_none(lambda: sample_run(trace, run=run))
    notes = errors_first(list(trust(trace)))
    synced, stepped = _or_none(lambda: sync(trace)), _or_none(lambda: steps(trace))
    judged = verdict(ledgers, sync=synced, trust=notes, steps=stepped)
    window = ledgers.window if ledgers else None
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "nsyskit": __version__,
        "setup": dict(sample.setup if sample else trace_setup(trace, run)),
        "rank": trace.meta.capture.rank,
        "trust": [{"level": note.level, "code": note.code, "message": note.message} for note in notes],
        "bottleneck": judged.bottleneck,
        "sentence": judged.sentence,
        "window": None if window is None else {"kind": window.kind, "dur_ns": window.dur_ns},
        "devices": [ledger.use.name for ledger in ledgers.devices] if ledgers else [],
    }
    found: dict[str, tuple[float | None, str]] = dict(sample_metrics(sample)) if sample else {}
    found |= _step_metrics(sample) | _gpu_metrics(ledgers)
    if synced is not None:
        found |= {"sync.share_of_api": (synced.share_of_api, "share"), "sync.wait_share": (synced.wait_share, "share")}
    if (launched := _or_none(lambda: launch(trace))) is not None:
        found |= {"launch.call_p50": (launched.api_ns.p50, "ns"), "launch.queue_p50": (launched.queue_ns.p50, "ns")}
    facts["metrics"] = {
        name: [value, unit] for name, (value, unit) in found.items() if value is not None and math.isfinite(value)
    }
    rows = [*_kernel_rows(trace), *_device_rows(ledgers), *(_sample_rows(sample) if sample else [])]
    return Part(facts, pl.DataFrame(rows, schema=ROW_SCHEMA, orient="row"))


def stored_part(facts: Mapping[str, Any], rows: bytes) -> Part | None:
    """A part as it was kept; None where it is damaged or holds what ``make_part`` would not write."""
    try:
        part = Part(facts, pl.read_parquet(io.BytesIO(rows)))
        return part if _are_facts(facts) and _are_rows(part.rows) else None
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OSError,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
    ):
        return None


def _are_facts(facts: Mapping[str, Any]) -> bool:
    window, rank = facts["window"], facts["rank"]
    texts = [*facts["setup"], *facts["setup"].values(), *facts["hosts"], facts["sentence"], facts["content"]]
    texts += [note[name] for note in facts["trust"] for name in ("level", "code", "message")]
    numbers = [(value, unit) for value, unit in facts["metrics"].values()]
    return (
        all(isinstance(facts[name], kind) for name, kind in _SHAPES.items())
        and all(isinstance(text, str) for text in [*texts, *(unit for _, unit in numbers)])
        and all(_is_number(value, above=unit == "ms") for value, unit in numbers)
        and all(isinstance(name, str | None) for name in facts["devices"])
        and isinstance(facts["bottleneck"], str)
        and (rank is None or isinstance(rank, int | str))
        and (window is None or isinstance(window["dur_ns"], int))
    )


def _is_number(value: object, *, above: bool) -> bool:
    return isinstance(value, int | float) and (value > 0 if above else value >= 0) and value < _LARGEST


def _are_rows(rows: pl.DataFrame) -> bool:
    if dict(rows.schema) != ROW_SCHEMA:
        return False
    kind, name = pl.col("kind"), pl.col("name")
    of_a_phase = kind.is_in(["tokens", "steps"])
    sound = (
        pl.all_horizontal(pl.col(ROW_SCHEMA).is_not_null())
        & pl.col("count", "total_ns").is_between(0, _LARGEST)
        & (kind.is_in(["kernel", "device"]) | (of_a_phase & pl.col("scope").is_in(PHASES)))
        & ((kind != "tokens") | (name.is_in(LEDGER_PARTS) & (pl.col("count") > 0)))
        & ((kind != "steps") | name.str.contains(r"^[0-9]{1,4}$"))
    )
    return bool(rows.select(pl.all_horizontal(sound).all()).item())


def facts_text(facts: Mapping[str, Any]) -> str:
    """The facts of a part as they are kept."""
    return json.dumps(facts, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _or_none(analysis: Callable[[], T]) -> T | None:
    try:
        return analysis()
    except MissingTableError:
        return None


def _step_metrics(sample: RunSample | None) -> dict[str, tuple[float | None, str]]:
    """What a step took, however many sequences its batch held."""
    found: dict[str, tuple[float | None, str]] = {}
    for phase, one in (sample.phases if sample else {}).items():
        found[f"{phase}.ms_per_step"] = (int(one.steps[STEP_TIME].sum()) / one.steps.height / 1e6, "ms")
        found[f"{phase}.tokens_per_step"] = (one.tokens / one.steps.height, "count")
    return found


def _gpu_metrics(ledgers: DevicesResult | None) -> dict[str, tuple[float | None, str]]:
    """Of the GPU most busy, as shares of its window."""
    if ledgers is None or not ledgers.devices or not ledgers.devices[0].window_ns:
        return {}
    first = ledgers.devices[0]
    parts = {"kernel": first.kernel_ns, "graph": first.graph_ns, "memcpy": first.memcpy_ns, "memset": first.memset_ns}
    parts |= first.idle
    shares = {f"gpu.ledger.{part}": parts[part] / first.window_ns for part in LEDGER_PARTS}
    return {name: (value, "share") for name, value in ({"gpu.busy_share": first.busy_share} | shares).items()}


_Row = tuple[str, str, str, int, int]


def _kernel_rows(trace: Trace) -> list[_Row]:
    found = _or_none(lambda: kernel_hotspots(trace))
    if found is None:
        return []
    summed: dict[tuple[str, str], tuple[int, int]] = {}
    for row in found.rows.iter_rows(named=True):
        key = (row["category"] or "none", kernel_title(row["name"] or "unknown"))
        count, total = summed.get(key, (0, 0))
        summed[key] = (count + row["count"], total + row["total_ns"])
    return [("kernel", *key, *summed[key]) for key in sorted(summed)]


def _device_rows(ledgers: DevicesResult | None) -> list[_Row]:
    return [
        ("device", str(at), part, 1, int(ledger.idle[part] if part in ledger.idle else getattr(ledger, f"{part}_ns")))
        for at, ledger in enumerate(ledgers.devices if ledgers else ())
        for part in LEDGER_PARTS
    ]


def _sample_rows(sample: RunSample) -> list[_Row]:
    rows: list[_Row] = []
    for phase, one in sorted(sample.phases.items()):
        rows += [("tokens", phase, part, one.tokens, int(one.steps[f"ledger.{part}"].sum())) for part in LEDGER_PARTS]
        bins: dict[int, tuple[int, int]] = {}
        for period, tokens in one.steps.select(STEP_TIME, "n_tokens").iter_rows():
            at = step_bin(period / max(tokens, 1))
            count, total = bins.get(at, (0, 0))
            bins[at] = (count + 1, total + period)
        rows += [("steps", phase, str(at), *bins[at]) for at in sorted(bins)]
    return rows


def step_bin(ns: float) -> int:
    """The bin of a time per token."""
    return math.floor(math.log(max(ns, 1.0)) / math.log(BIN_WIDTH))


def bin_middle(at: int) -> float:
    """The time in ns that stands for a bin: its geometric middle, at most 0.5 % off."""
    return float(BIN_WIDTH ** (at + 0.5))
