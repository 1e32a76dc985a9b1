"""A fleet as files: Parquet for notebooks, the JSON document ``nsyskit.fleet/1`` for programs."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from typing import Any, Final

import polars as pl

from nsyskit import __version__
from nsyskit.fleet.result import Duplicate, Failure, FleetResult, Outlier
from nsyskit.report.fleet_words import HEADLINES, outlier_sentence
from nsyskit.report.schemas import shipped_schema

SCHEMA: Final = "nsyskit.fleet/1"

_FRAMES: Final = ("traces", "setup", "metrics", "groups", "steps", "ledgers", "kernels")
_FAILED: Final = {"name": pl.String, "error": pl.String, "fault": pl.Boolean}
_DUPLICATES: Final = {"name": pl.String, "same_as": pl.String}
_OUTLIERS: Final = {
    "kind": pl.String, "who": pl.String, "traces": pl.Int64, "metric": pl.String, "unit": pl.String,
    "value": pl.Float64, "expected": pl.Float64, "limit": pl.Float64, "peers": pl.Int64, "part": pl.String,
    "part_value": pl.Float64, "part_expected": pl.Float64, "cell": pl.String,
}  # fmt: skip


def parquet_files(result: FleetResult) -> dict[str, bytes]:
    """File name -> content; columns as in ``FleetResult``. Equal results give equal bytes."""
    frames = {name: getattr(result, name) for name in _FRAMES}
    frames["outliers"] = _frame(result.outliers, _OUTLIERS)
    frames["failed"] = _frame(result.failed, _FAILED)
    frames["duplicates"] = _frame(result.duplicates, _DUPLICATES)
    return {f"{name}.parquet": _parquet(frame) for name, frame in frames.items()}


def _frame(
    found: tuple[Outlier, ...] | tuple[Failure, ...] | tuple[Duplicate, ...], schema: dict[str, Any]
) -> pl.DataFrame:
    return pl.DataFrame([asdict(one) for one in found], schema=schema)


def _parquet(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_parquet(out, compression="zstd")
    return out.getvalue()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the document, shipped with the package."""
    return shipped_schema("fleet")


def render_json(result: FleetResult) -> str:
    """The document as text. It holds the first few metrics; all of them are in ``metrics`` and ``groups.parquet``."""
    return json.dumps(document(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def document(result: FleetResult) -> dict[str, Any]:
    """The document as plain values."""
    return {
        "schema": SCHEMA,
        "nsyskit": __version__,
        "traces": _traces(result),
        "axes": list(result.axes),
        "outliers": [asdict(one) | {"ratio": one.ratio, "sentence": outlier_sentence(one)} for one in result.outliers],
        "failed": [asdict(one) for one in result.failed],
        "duplicates": [asdict(one) for one in result.duplicates],
        "groups": result.groups.filter(pl.col("metric").is_in(list(HEADLINES))).to_dicts(),
        "steps": result.steps.to_dicts(),
        "ledgers": result.ledgers.to_dicts(),
        "kernels": result.kernels.to_dicts(),
    }


def _traces(result: FleetResult) -> list[dict[str, Any]]:
    first: dict[int, dict[str, float]] = {}
    for trace, metric, value in result.metrics.select("trace", "metric", "value").iter_rows():
        if metric in HEADLINES:
            first.setdefault(trace, {})[metric] = value
    return [row | {"metrics": first.get(row["trace"], {})} for row in result.traces.to_dicts()]
