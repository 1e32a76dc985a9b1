"""What a capture keeps beside the trace: ``requests.sqlite``, ``nvml.sqlite``, ``results.jsonl``, ``run.json``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nsyskit.capture.tax import Part, tax_ns
from nsyskit.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from nsyskit.capture.endpoints import ServerSamples
    from nsyskit.capture.load import Request
    from nsyskit.capture.nvml import NvmlSampler
    from nsyskit.capture.serverlog import LogClock, Task

_REQUEST_COLUMNS = {
    "index": int, "warmup": int, "scheduled_ns": int, "send_ns": int, "first_byte_ns": int, "first_token_ns": int,
    "end_ns": int, "ttft_ns": int, "total_ns": int, "itl_p50_ns": int, "itl_p99_ns": int, "status": int, "error": str,
    "prompt_n": int, "cache_n": int, "predicted_n": int, "prompt_ms": float, "predicted_ms": float, "draft_n": int,
    "draft_n_accepted": int, "tax_ns": int, "id_slot": int, "id_task": int,
}  # fmt: skip


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a whole JSON file or none.

    Raises:
        OutputError: the disk refuses.
    """
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {path} ({error.strerror})", hint="free space or choose another folder with -o"
        ) from error


def write_requests(
    path: Path,
    requests: Sequence[Request],
    *,
    matched: Mapping[int, Task],
    clock: LogClock | None,
    parts: Iterable[Part],
    samples: ServerSamples,
) -> None:
    """``requests``, ``tokens`` (when each piece of text came), ``parts`` (the server's tax), ``metrics``, ``slots``."""
    import sqlite_utils  # noqa: PLC0415  slow to import

    database = sqlite_utils.Database(path, recreate=True)
    database["requests"].create(_REQUEST_COLUMNS, pk="index")  # type: ignore[union-attr]
    database["requests"].insert_all([_request_row(request, matched) for request in requests])  # type: ignore[union-attr]
    tokens = [
        {"request": request.index, "place": place, "at_ns": at_ns}
        for request in requests
        for place, at_ns in enumerate(request.token_ns)
    ]
    database["tokens"].insert_all(tokens)  # type: ignore[union-attr]
    database["parts"].insert_all([asdict(part) | {"dur_ns": part.dur_ns} for part in parts])  # type: ignore[union-attr]
    database["metrics"].insert_all(samples.metrics)  # type: ignore[union-attr]
    database["slots"].insert_all(samples.slots)  # type: ignore[union-attr]
    if clock is not None:
        database["log_clock"].insert(asdict(clock))  # type: ignore[union-attr]
    database.close()


def write_nvml(path: Path, sampler: NvmlSampler) -> None:
    """``samples`` and ``gpus``; nothing when nothing was sampled."""
    if not sampler.rows:
        return
    import sqlite_utils  # noqa: PLC0415

    database = sqlite_utils.Database(path, recreate=True)
    database["gpus"].insert_all(sampler.gpus, pk="gpu")  # type: ignore[union-attr]
    database["samples"].insert_all(sampler.rows)  # type: ignore[union-attr]
    database.close()


def quantile(values: Sequence[int], share: float) -> int | None:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _request_row(request: Request, matched: Mapping[int, Task]) -> dict[str, Any]:
    task = matched.get(request.index)
    timings = request.timings
    row = {name: getattr(request, name, timings.get(name)) for name in _REQUEST_COLUMNS}
    row |= {
        "itl_p50_ns": quantile(request.itl_ns, 0.5),
        "itl_p99_ns": quantile(request.itl_ns, 0.99),
        "tax_ns": tax_ns(request),
        "id_slot": request.id_slot if task is None else task.id_slot,
        "id_task": None if task is None else task.id_task,
    }
    return row
