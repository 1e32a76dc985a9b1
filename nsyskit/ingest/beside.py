"""What a run folder holds beside its trace: the load's requests, and what NVML said of the GPUs meanwhile."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from nsyskit.errors import TraceFormatError
from nsyskit.runfolder import is_run_folder, load_run

_I: Final = pl.Int64
REQUESTS: Final = {
    "index": _I, "send_ns": _I, "ttft_ns": _I, "total_ns": _I, "itl_p50_ns": _I, "itl_p99_ns": _I, "prompt_n": _I,
    "cache_n": _I, "predicted_n": _I, "tax_ns": _I, "failed": pl.Boolean,
}  # fmt: skip
TOKENS: Final = {"request": _I, "place": _I, "at_ns": _I}
PARTS: Final = {"index": _I, "part": pl.String, "dur_ns": _I}
SAMPLES: Final = {
    "at_ns": _I, "gpu": _I, "memory_used_bytes": _I, "sm_share": pl.Float64, "memory_share": pl.Float64,
    "power_mw": _I, "sm_clock_mhz": _I, "memory_clock_mhz": _I, "temperature_c": _I, "throttle_reasons": _I,
}  # fmt: skip
GPUS: Final = {"gpu": _I, "name": pl.String, "memory_bytes": _I}


@dataclass(frozen=True, slots=True)
class Beside:
    """Tables of a run folder, None where the capture left none. Times are Unix nanoseconds.

    Attributes:
        requests: ``REQUESTS``, a row a request after the warm-up, as its client saw it.
        tokens: ``TOKENS``, when each piece of text came.
        parts: ``PARTS``, where a request's time went, by named timestamps.
        samples: ``SAMPLES``, a row a GPU and moment.
        gpus: ``GPUS``.
    """

    requests: pl.DataFrame | None = None
    tokens: pl.DataFrame | None = None
    parts: pl.DataFrame | None = None
    samples: pl.DataFrame | None = None
    gpus: pl.DataFrame | None = None


def read_beside(path: Path) -> Beside:
    """The tables beside the trace that is analyzed; none of them for anything but a run folder.

    Raises:
        TraceFormatError: one of the files is damaged.
    """
    if not (path.is_dir() and is_run_folder(path)):
        return Beside()
    run = load_run(path)
    run = load_run(run.trace.parent)  # of several arms the one whose trace is taken
    sent = "FROM requests WHERE NOT warmup"
    chosen = f'SELECT "index" {sent}'
    tables: dict[str, pl.DataFrame] = {}
    if run.requests.is_file():
        tables["requests"] = _rows(run.requests, REQUESTS, f"SELECT *, error IS NOT NULL AS failed {sent}")
        tables["tokens"] = _rows(run.requests, TOKENS, f"SELECT * FROM tokens WHERE request IN ({chosen})")
        tables["parts"] = _rows(run.requests, PARTS, f'SELECT * FROM parts WHERE "index" IN ({chosen})')
    if run.nvml.is_file():
        tables["samples"] = _rows(run.nvml, SAMPLES, "SELECT * FROM samples")
        tables["gpus"] = _rows(run.nvml, GPUS, "SELECT * FROM gpus")
    return Beside(**tables)


def _rows(path: Path, schema: dict[str, Any], query: str) -> pl.DataFrame:
    """A query's rows; a table that was never filled does not exist, and is empty."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.row_factory = sqlite3.Row
            if database.execute("SELECT 1 FROM sqlite_master WHERE type = 'view'").fetchone():
                raise _damaged(path, TypeError())  # a view may have no end
            found = [dict(row) for row in database.execute(query)]
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise _damaged(path, error) from error
        found = []
    except sqlite3.Error as error:
        raise _damaged(path, error) from error
    try:
        return pl.DataFrame([{name: row.get(name) for name in schema} for row in found], schema=schema)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> TraceFormatError:
    return TraceFormatError(
        f"{path.name} of the run cannot be read ({type(error).__name__})", hint="move it away to see the trace alone"
    )
