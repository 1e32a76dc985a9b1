"""What forward passes left for the GPUs to do."""

from __future__ import annotations

import polars as pl

from nsyskit.analysis.hotspots import kernel_facts
from nsyskit.analysis.pairing import op_calls
from nsyskit.analysis.step_events import of_thread
from nsyskit.intervals import count_upto
from nsyskit.trace import Trace


def place_of(passes: pl.DataFrame, instants: pl.Series) -> pl.Series:
    """Where instants lie: 2n - 1 within the calls of the nth pass, 2n from its last call to the next pass.

    0 is before the first.
    """
    last_call = pl.min_horizontal("last_call_ns", pl.col("begin_ns").shift(-1))
    edges = passes.select(pl.concat_list("begin_ns", last_call).explode()).to_series()
    return count_upto(edges, instants).alias("place")


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
    ops = op_calls(trace).select("start_ns", "end_ns", "call_start_ns", "pid", "tid", "kind", "row")
    ops = ops.filter(of_thread(key))
    place = place_of(passes, ops["call_start_ns"])
    place = place.set_sorted() if place.is_sorted() else place  # as with one stream; rows are grouped faster then
    products = kernel_facts(trace).filter(pl.col("category").str.starts_with("matmul"))
    vector = products.filter(pl.col("family").str.starts_with("mul_mat_vec"))
    names = trace.kernels.select("name_id").collect()["name_id"]
    name = pl.lit(names).gather(pl.when(pl.col("kind") == "kernel").then("row"))
    took = pl.col("end_ns") - pl.col("start_ns")
    rows = ops.with_columns(place, name.alias("name_id")).select(
        "place",
        op_end_ns="end_ns",
        vector_ns=pl.when(pl.col("name_id").is_in(vector["name_id"].implode())).then(took),
        product_ns=pl.when(pl.col("name_id").is_in(products["name_id"].implode())).then(took),
    )
    return rows.group_by("place").agg(pl.col("op_end_ns").max(), pl.col("vector_ns", "product_ns").sum())
