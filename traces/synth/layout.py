"""The finished schedule: every row in time order, and the facts around them. Damage is done to it, not to the file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from traces.synth import world as w
from traces.synth.programs import close_steps
from traces.synth.tape import I64, Bools, Columns, take
from traces.synth.world import World


@dataclass(frozen=True)
class Layout:
    """What goes into the file, and what was meant by it.

    Attributes:
        world: names and facts; its tapes are not read any more.
        removed: rows taken out of the file, by what they were.
        n_vocab, model_bytes, kv_bytes_per_token: of the target model.
        program: what the programs printed, as numbers.
    """

    world: World
    schema: str
    graph: str
    ops: Columns
    api: Columns
    syncs: Columns
    osrt: Columns
    overheads: Columns
    samples: Columns
    osrt_collected: bool = True
    unsorted: bool = False
    backtraces: bool = False
    removed: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    program: list[dict[str, Any]] = field(default_factory=list)


def freeze(world: World, **facts: Any) -> Layout:
    """The layout of a world in which everything has happened."""
    close_steps(world.steps)
    return Layout(
        world=world, ops=world.ops.freeze(), api=world.api.freeze(), syncs=world.syncs.freeze(),
        osrt=world.osrt.freeze(), overheads=world.overheads.freeze(), samples=world.samples.freeze(), **facts,
    )  # fmt: skip


def key(columns: Columns) -> I64:
    """Process and correlation id in one number: what joins calls and operations."""
    return (columns["proc"] << 40) + columns["corr"]


def long_calls(layout: Layout) -> Bools:
    """API rows of which a backtrace was taken."""
    return layout.api["end"] - layout.api["start"] >= 80_000


def has_call(ops: Columns) -> Bools:
    """Which operations have an API row in the file."""
    return ops["api_start"] >= 0


def drop_graph_rows(layout: Layout, share: float) -> Layout:
    """Lose a share of the graph launches' GPU rows, as a full buffer does: of a launch all or nothing."""
    ops = layout.ops
    from_graph = (ops["type"] == w.GRAPH) | (ops["node"] > 0)
    launches = np.unique(key(ops)[from_graph])
    lost = launches[layout.world.noise.rng.random(len(launches)) < share]
    gone = from_graph & np.isin(key(ops), lost)
    removed = {"graph_launches_without_rows": len(lost), "graph_gpu_rows": int(gone.sum())}
    return replace(layout, ops=take(ops, ~gone), removed=layout.removed | removed)


def drop_api_rows(layout: Layout, share: float) -> Layout:
    """Lose a share of the API rows; their operations stay."""
    api, ops = layout.api, layout.ops
    gone = layout.world.noise.rng.random(len(api["start"])) < share
    orphans = np.isin(key(ops), key(api)[gone]) & has_call(ops)
    bereft = {name: np.where(orphans, -1, ops[name]) for name in ("api_start", "api_end", "thread")}
    removed = {"api_rows": int(gone.sum()), "ops_orphaned": int(orphans.sum())}
    return replace(layout, api=take(api, ~gone), ops=ops | bereft, removed=layout.removed | removed)


def drop_osrt(layout: Layout) -> Layout:
    """The OS runtime was not traced."""
    nothing = np.zeros(0, dtype=np.int64)
    removed = {"os_rows": len(layout.osrt["start"])}
    return replace(layout, osrt=take(layout.osrt, nothing), osrt_collected=False, removed=layout.removed | removed)


def older_schema(layout: Layout) -> Layout:
    """Exports of 2023 have no table for whole graphs: their rows do not exist."""
    graphs = layout.ops["type"] == w.GRAPH
    removed = {"graph_rows_without_a_table": int(graphs.sum())}
    return replace(layout, ops=take(layout.ops, ~graphs), removed=layout.removed | removed)
