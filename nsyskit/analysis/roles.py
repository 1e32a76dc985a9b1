"""Time, bytes and speed of every tensor of a model: matrix kernels in order against the order of the model's matrices.

Kernels do not say which tensor they read. Their order does, together with what their names and grids say: the format of
the weights and the number of rows. A step counts only where all of its matrix kernels agree with the model in all of
that; where two orders fit and give one kernel different tensors, these are told together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import polars as pl

from nsyskit.analysis.hotspots import kernel_facts
from nsyskit.analysis.limits import ModelLoad
from nsyskit.analysis.pairing import HANDED_OVER, op_calls
from nsyskit.analysis.step_costs import busiest
from nsyskit.analysis.steps import find_steps, op_steps
from nsyskit.analysis.windows import steady_window, window_all
from nsyskit.errors import MissingTableError
from nsyskit.ggml.decode_order import ATTENTION, Matrix, Order, orders, unknown_roles
from nsyskit.schema import Columns
from nsyskit.trace import Trace, Window

ROLES: Final[Columns] = {
    "role": pl.String(), "types": pl.String(), "kernels": pl.Int64(), "ns": pl.Float64(), "share": pl.Float64(),
    "bytes": pl.Int64(), "gb_per_s": pl.Float64(), "share_of_peak": pl.Float64(),
}  # fmt: skip
"""Columns of ``RolesResult.roles``."""
CELLS: Final[Columns] = {
    "layer": pl.Int64(), "role": pl.String(), "type": pl.String(), "ns": pl.Float64(), "bytes": pl.Int64(),
    "gb_per_s": pl.Float64(), "share_of_peak": pl.Float64(),
}  # fmt: skip
"""Columns of ``RolesResult.cells``."""
LAYERS: Final[Columns] = {
    "layer": pl.Int64(), "ns": pl.Float64(), "bytes": pl.Int64(), "gb_per_s": pl.Float64(),
    "share_of_peak": pl.Float64(),
}  # fmt: skip
"""Columns of ``RolesResult.layers``."""

_MAX_VECTOR_BATCH: Final = 8
_ALIKE: Final = 0.9
_AUXILIARY: Final = ("mul_mat_q_stream_k_fixup", "cublas_setup", "library_splitk")
"""Families that only prepare or finish another matrix kernel."""
_BY_ROWS: Final = ("mul_mat_vec_q", "mul_mat_vec_f")
"""Families with a block for every row of the result, or for every few rows."""
_ROWS_A_BLOCK: Final = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class RolesResult:
    """Matrix kernels of decode steps by tensor.

    Attributes:
        window: steps that begin in it are looked at.
        batch: tokens of these steps: one, or what most steps of up to eight have.
        steps: how many of them were matched.
        others: further steps of this batch: those in CUDA graphs traced as a whole, and those that lost rows.
        memory_bandwidth: of the GPU, bytes a second.
        roles: ``ROLES``, most time first: mean of a step over all layers; ``types`` and tensors of one role are joined
            by commas. ``share`` is of all matrix kernels. Bytes are those of the weights for one token; null for the
            cache (``kq``, ``kqv``), and for experts in larger batches, which may need any of them.
        cells: the same by layer; ``layer`` null for the output layer.
        layers: sums of a layer's matrices.
        why_none: why nothing is shown.
    """

    window: Window
    batch: int | None
    steps: int
    others: int
    memory_bandwidth: int | None
    roles: pl.DataFrame
    cells: pl.DataFrame
    layers: pl.DataFrame
    why_none: str | None


def roles(trace: Trace, *, window: Window | None = None, load: ModelLoad | None = None) -> RolesResult:
    """Tell the matrix kernels of decode steps by tensor.

    Args:
        trace: with kernels visible, one by one.
        window: steps that begin in it are looked at, ``steady`` where there is such.
        load: of a model whose file was read.

    Raises:
        MissingTableError: the model's tensors are not known, or the trace holds no decode step.
    """
    if load is None or load.model is None:
        raise MissingTableError("tensors of the model", hint="give --model FILE.gguf")
    decode = find_steps(trace).steps.filter(pl.col("phase") == "decode")
    if decode.is_empty():
        raise MissingTableError("decode steps", hint="capture llama.cpp with --trace=cuda")
    window = window or steady_window(trace) or window_all(trace)
    steps = decode.filter(pl.col("begin_ns").is_between(window.start_ns, window.end_ns, "left"))
    batch = _batch(steps) or 0
    nothing = _Reason(window, batch or None)
    if unknown := unknown_roles(load.tensors):
        return nothing.why(
            f"the place of {', '.join(unknown[:3])} in a layer of {load.model.architecture} is not known"
        )
    kernels = _kernels(trace, steps.filter(pl.col("n_tokens") == batch))
    if kernels.is_empty():
        hidden = "kernels are hidden in CUDA graphs; capture with --cuda-graph-trace=node"
        return nothing.why(hidden if batch else f"no decode step of up to {_MAX_VECTOR_BATCH} tokens in this window")
    shapes = {step: _Sequence.of(rows) for (step,), rows in kernels.group_by("step", maintain_order=True)}
    shape, alike = Counter(shapes.values()).most_common(1)[0]
    if alike < _ALIKE * len(shapes):
        return nothing.why("steps differ in their matrix kernels")
    named = _named(shape, orders(load.model, load.tensors))
    if isinstance(named, str):
        return nothing.why(named)
    own = kernels.filter(pl.col("step").is_in([step for step, one in shapes.items() if one == shape]))
    others = int((steps["n_tokens"] == batch).sum()) - alike
    return _told(trace, nothing, _sums(own, named, batch), alike, others)


def _batch(steps: pl.DataFrame) -> int | None:
    """One token where there are such steps, else the commonest batch that vector kernels take."""
    counts = Counter(steps.filter(pl.col("n_tokens") <= _MAX_VECTOR_BATCH)["n_tokens"].to_list())
    return 1 if 1 in counts else max(counts, key=lambda n: (counts[n], -n), default=None)


@dataclass(frozen=True, slots=True)
class _Reason:
    window: Window
    batch: int | None

    def why(self, text: str) -> RolesResult:
        roles, cells, layers = (pl.DataFrame(schema=columns) for columns in (ROLES, CELLS, LAYERS))
        return RolesResult(self.window, self.batch, 0, 0, None, roles, cells, layers, text)


def _kernels(trace: Trace, steps: pl.DataFrame) -> pl.DataFrame:
    """Matrix and attention kernels of steps, on all GPUs, in the order in which they were handed over.

    Columns: ``step dur name_id family category quant grid_x``.
    """
    own = (
        op_calls(trace)
        .select("kind", "row", "start_ns", "end_ns", at=HANDED_OVER)
        .with_columns(op_steps(trace).cast(pl.Int64).alias("step"))
        .filter((pl.col("kind") == "kernel") & pl.col("step").is_in(steps["index"].implode()))
    )
    own = own.hstack(trace.kernels.select("name_id", "grid_x").collect()[own["row"]])
    known = kernel_facts(trace).select("name_id", "family", "category", "quant")
    attention = pl.col("category").is_in(["attention", "softmax"])
    matrices = pl.col("category").str.starts_with("matmul") & ~pl.col("family").is_in(_AUXILIARY)
    return (
        own.join(known, on="name_id", how="left", maintain_order="left")
        .filter(attention | matrices)
        .sort("step", "at", "start_ns", maintain_order=True)
        .select(
            "step", "name_id", "family", "quant", "grid_x", dur=pl.col("end_ns") - pl.col("start_ns"),
            attention=attention,
        )
        .filter(~(pl.col("attention") & pl.col("attention").shift(1).over("step").fill_null(value=False)))
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Kernel:
    """What a matrix kernel tells of its weights; None for attention."""

    name_id: int
    quant: str | None
    grid: int | None  # blocks, where there is one for every few rows


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The kernels of a step: a matrix kernel each, None for attention."""

    kernels: tuple[_Kernel | None, ...]

    @classmethod
    def of(cls, rows: pl.DataFrame) -> _Sequence:
        columns = rows.select("attention", "name_id", "quant", "family", "grid_x")
        return cls(
            tuple(
                None if attention else _Kernel(name_id, quant, grid_x if family in _BY_ROWS else None)
                for attention, name_id, quant, family, grid_x in columns.iter_rows()
            )
        )

    def fits(self, order: Order) -> bool:
        return len(self.kernels) == len(order) and self.agreeing(order) == len(order)

    def agreeing(self, order: Order) -> int:
        """How many kernels from the first on agree with an order."""
        blocks: dict[int, tuple[int, ...]] = {}
        for at, (kernel, matrix) in enumerate(zip(self.kernels, order, strict=False)):
            if not _agrees(kernel, matrix, blocks):
                return at
        return min(len(self.kernels), len(order))


def _agrees(kernel: _Kernel | None, matrix: Matrix, blocks: dict[int, tuple[int, ...]]) -> bool:
    """Whether a kernel may multiply with a matrix; ``blocks`` collects how many rows a block of each kernel takes."""
    if kernel is None or matrix.role == ATTENTION:
        return kernel is None and matrix.role == ATTENTION
    if matrix.type is None:  # the cache: its kernel says nothing that the model's file knows
        return True
    if kernel.quant != matrix.type:
        return False
    if kernel.grid is None or matrix.rows is None:
        return True
    rows, grid = matrix.rows, kernel.grid
    blocks[kernel.name_id] = tuple(
        each for each in blocks.get(kernel.name_id, _ROWS_A_BLOCK) if -(-rows // each) == grid
    )
    return bool(blocks[kernel.name_id])


def _mismatch(shape: _Sequence, candidates: Sequence[Order]) -> str:
    """Where the order that agrees longest goes wrong."""
    order = max(candidates, key=lambda one: (shape.agreeing(one), -len(one)))
    at = shape.agreeing(order)
    if at >= min(len(order), len(shape.kernels)):
        return f"a step has {len(shape.kernels)} products and attentions, the model {len(order)}"
    kernel, matrix = shape.kernels[at], order[at]
    where = matrix.role if matrix.layer is None else f"{matrix.role} of layer {matrix.layer}"
    what = "attention" if kernel is None else f"a product with {kernel.quant or 'weights of unknown format'}"
    if kernel is not None and kernel.quant == matrix.type:
        what += f" of {kernel.grid:,} blocks"
    wanted = "" if matrix.type is None else f" ({matrix.type}, {matrix.rows:,} rows)"
    return f"kernel {at + 1} of a step is {what} where {where}{wanted} is due"


def _named(shape: _Sequence, candidates: Sequence[Order]) -> list[Matrix] | str:
    """The matrix of every place, or why not; tensors between which the orders do not decide are told together."""
    fitting = [order for order in candidates if shape.fits(order)]
    if not fitting:
        return _mismatch(shape, candidates)
    named = []
    for places in zip(*fitting, strict=True):
        one = places[0]
        if len({(other.layer, other.type, other.rows, other.bytes) for other in places}) > 1:
            return "several orders fit, and they differ by more than the tensors of a layer"
        named.append(replace(one, role=", ".join(sorted({other.role for other in places}))))
    return named


def _sums(kernels: pl.DataFrame, named: Sequence[Matrix], batch: int) -> pl.DataFrame:
    """Mean of a step by place: ``layer role type ns bytes kernels``, kernels of one role and layer put together."""
    steps = kernels["step"].n_unique()
    sums = (
        kernels.with_columns(place=pl.int_range(pl.len(), dtype=pl.Int64).over("step"))
        .group_by("place")
        .agg(ns=pl.col("dur").sum() / steps)
    )
    places = pl.DataFrame(
        list(_places(named, batch)),
        schema={"place": pl.Int64, "layer": pl.Int64, "role": pl.String, "type": pl.String, "bytes": pl.Int64},
        orient="row",
    )
    return (
        places.join(sums, on="place", how="left")
        .filter(pl.col("role") != ATTENTION)
        .group_by("layer", "role", maintain_order=True)
        .agg(
            pl.col("type").unique(maintain_order=True).str.join(", "),
            pl.col("ns").sum(),
            pl.when(pl.col("bytes").null_count() == 0).then(pl.col("bytes").sum()),
            kernels=pl.len(),
        )
    )


def _places(named: Sequence[Matrix], batch: int) -> Iterator[tuple[int, int | None, str, str | None, int | None]]:
    for place, one in enumerate(named):
        known = one.type is not None and (batch == 1 or "_exps" not in one.role)
        yield place, one.layer, one.role, one.type, one.bytes if known else None


def _told(trace: Trace, found: _Reason, cells: pl.DataFrame, steps: int, others: int) -> RolesResult:
    use = busiest(trace)
    bandwidth = next((gpu.memory_bandwidth for gpu in trace.meta.gpus if gpu.gpu == use.gpu), None)
    total = float(cells["ns"].sum())
    size = pl.when(pl.col("bytes").null_count() == 0).then(pl.col("bytes").sum()).alias("bytes")
    roles = (
        cells.group_by("role")
        .agg(
            types=pl.col("type").drop_nulls().unique(maintain_order=True).str.join(", "),
            kernels=pl.col("kernels").sum(), ns=pl.col("ns").sum(), share=pl.col("ns").sum() / total, bytes=size,
        )
        .sort(["ns", "role"], descending=[True, False])
    )  # fmt: skip
    layers = cells.filter(pl.col("layer").is_not_null()).group_by("layer").agg(pl.col("ns").sum(), size).sort("layer")
    return RolesResult(
        window=found.window,
        batch=found.batch,
        steps=steps,
        others=others,
        memory_bandwidth=bandwidth,
        roles=_with_rate(roles, bandwidth, ROLES),
        cells=_with_rate(cells, bandwidth, CELLS),
        layers=_with_rate(layers, bandwidth, LAYERS),
        why_none=None,
    )


def _with_rate(rows: pl.DataFrame, bandwidth: int | None, columns: Columns) -> pl.DataFrame:
    rate = pl.when(pl.col("ns") > 0).then(pl.col("bytes") / pl.col("ns"))
    peak = pl.lit(bandwidth / 1e9 if bandwidth else None, pl.Float64)
    rows = rows.with_columns(gb_per_s=rate, share_of_peak=rate / peak)
    return rows.select(pl.col(name).cast(kind) for name, kind in columns.items())
