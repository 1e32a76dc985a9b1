"""A run folder as ``capture`` leaves it, by the capture's own writers. No GPU took part: samples are stand-ins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nsyskit.capture.endpoints import ServerSamples
from nsyskit.capture.load import Request
from nsyskit.capture.nvml import NvmlSampler
from nsyskit.capture.store import write_nvml, write_requests
from nsyskit.capture.tax import Part

MS = 1_000_000
START = 1_700_000_000_000_000_000


def request(index: int, at: int, tokens: tuple[int, ...], end: int, **more: Any) -> Request:
    """Times in ms; ``tokens`` and ``end`` from the sending."""
    sent = START + at * MS
    return Request(
        index=index, send_ns=sent, first_token_ns=sent + tokens[0] * MS if tokens else None,
        token_ns=tuple(sent + token * MS for token in tokens), end_ns=sent + end * MS,
        **{"prompt_n": 8, "predicted_n": len(tokens), "timings": {"prompt_ms": 2.0, "predicted_ms": 3.0}, **more},
    )  # fmt: skip


REQUESTS = (
    request(0, 0, (1, 2), 3, warmup=True),
    request(1, 100, (5, 8, 13), 20),
    request(2, 110, (3, 5), 10),
    request(3, 120, (), 1, error="token sk-hunter2 refused"),
)
PARTS = (
    Part(0, "accept", "a", "b", 0, 3),
    Part(1, "accept", "a", "b", 0, 5 * MS),
    Part(1, "decode", "b", "c", 0, 15 * MS),
    Part(2, "decode", "b", "c", 0, 10 * MS),
)


def stand_in(samples: int = 4) -> NvmlSampler:
    """Two GPUs, whose second holds 3 GB more; clocks are held down in the last sample."""
    sampler = NvmlSampler(0)
    sampler.gpus = [{"gpu": gpu, "name": "Stand-in", "uuid": None, "memory_bytes": 8 * 10**9} for gpu in (0, 1)]
    sampler.rows = [
        {"at_ns": START + at * MS, "gpu": gpu, "memory_used_bytes": (at + 3 * gpu) * 10**9, "sm_share": 0.5,
         "memory_share": None, "power_mw": 80_000 + 10_000 * at, "sm_clock_mhz": 1500, "memory_clock_mhz": None,
         "temperature_c": 50 + at, "throttle_reasons": 4 if at == samples - 1 else 1}
        for at in range(samples) for gpu in (0, 1)
    ]  # fmt: skip
    return sampler


def served_run(folder: Path) -> Path:
    """A run folder without its trace."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"schema": "nsyskit.run/1", "outcome": {"state": "complete"}}))
    write_requests(folder / "requests.sqlite", REQUESTS, matched={}, clock=None, parts=PARTS, samples=ServerSamples())
    write_nvml(folder / "nvml.sqlite", stand_in())
    return folder
