"""What forward passes left for the GPUs to do."""

from __future__ import annotations

import polars as pl

from nsyskit.analysis.hotspots import kernel_facts
from nsyskit.analysis.pairing import op_calls
from nsyskit.analysis.step_events import of_thread
from nsyskit.frames import PIECE_ROWS, in_runs, kept
from nsyskit.intervals import count_upto
from nsyskit.trace import Trace


def edges_of(passes: pl.DataFrame) -> pl.Series:
    """When each pass begins and when its calls end: of instants counted up to one, 2n - 1 is within the nth pass.

    2n is from its last call to the next pass, 0 before the first.
    """
    last_call = pl.min_horizontal("last_call_ns", pl.col("begin_ns").shift(-1))
    return passes.select(pl.concat_list("begin_ns", last_call).explode()).to_series()


def with_work(trace: Trace, key: tuple[object, ...], passes: pl.DataFrame) -> pl.DataFrame:
    """The passes of a thread with ``op_end_ns vector_ns product_ns``.

    When the last operation that their calls handed over ended on a GPU, 0 when they left none; durations of kernels
    that multiply matrices by vectors, and of all that make matrix products, up to the next pass.
    """
    place = pl.col("place")
    work = _work(trace, key, passes).with_columns(
        number=(place + 1) // 2, op_end_ns=pl.when(place % 2 == 1).then("op_end_ns")
    )
    work = work.group_by("number").agg(pl.col("op_end_ns").max(), pl.col("vector_ns", "product_ns").sum())
    found = passes.join(work, on="number", how="left", maintain_order="left")
    return found.with_columns(pl.col("op_end_ns", "vector_ns", "product_ns").fill_null(0))


def _work(trace: Trace, key: tuple[object, ...], passes: pl.DataFrame) -> pl.DataFrame:
    """The same of every place that the thread handed something over in: ``place op_end_ns vector_ns product_ns``."""
    products = kernel_facts(trace).filter(pl.col("category").str.starts_with("matmul"))
    vector = products.filter(pl.col("family").str.starts_with("mul_mat_vec"))
    names = trace.kernels.select("name_id").collect()["name_id"]
    name = pl.lit(names).gather(pl.when(pl.col("kind") == "kernel").then("row"))
    took = pl.col("end_ns") - pl.col("start_ns")
    measured = {
        "op_end_ns": pl.col("end_ns"),
        "vector_ns": pl.when(pl.col("name_id").is_in(vector["name_id"].implode())).then(took),
        "product_ns": pl.when(pl.col("name_id").is_in(products["name_id"].implode())).then(took),
    }
    edges, pieces = edges_of(passes), []
    wanted = op_calls(trace).select("start_ns", "end_ns", "call_start_ns", "pid", "tid", "kind", "row")
    for piece in wanted.iter_slices(PIECE_ROWS):
        ops = kept(piece, of_thread(key))
        rows = ops.with_columns(place=count_upto(edges, ops["call_start_ns"]), name_id=name).select("place", **measured)
        pieces.append(_per_place(rows))
    return _per_place(pl.concat(pieces))


def _per_place(rows: pl.DataFrame) -> pl.DataFrame:
    return (
        in_runs(rows, "place").group_by("place").agg(pl.col("op_end_ns").max(), pl.col("vector_ns", "product_ns").sum())
    )
