"""The buffers that llama.cpp allocates, as its log names them while a model is loaded and contexts are made.

load_tensors:        CUDA0 model buffer size =   605.26 MiB
llama_context: n_ctx                 = 4096
llama_kv_cache:      CUDA0 KV buffer size =    88.00 MiB
sched_reserve:       CUDA0 compute buffer size =    66.50 MiB
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MIB: Final = 1 << 20
_BUFFER: Final = re.compile(
    r"(?P<device>[\w.\[\]:-]+) +(?P<kind>model|KV|RS|compute|output) buffer size = +(?P<mib>\d+(?:\.\d+)?) MiB"
)
_CONTEXT: Final = re.compile(r"llama_\w+: n_ctx +=")
_HOST: Final = re.compile(r"CPU|.*_Host$|Host$|BLAS$|AMX$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ContextMemory:
    """Bytes by device: the ``model``, and what one context holds: ``cache`` and ``compute`` (with outputs)."""

    model: Mapping[str, int]
    cache: Mapping[str, int]
    compute: Mapping[str, int]

    def on_gpus(self, part: str) -> int:
        """Bytes of ``model``, ``cache`` or ``compute`` on devices that are not the CPU."""
        found: Mapping[str, int] = getattr(self, part)
        return sum(size for device, size in found.items() if not _HOST.match(device))

    @property
    def vram_bytes(self) -> int:
        return sum(self.on_gpus(part) for part in ("model", "cache", "compute"))

    @property
    def total_bytes(self) -> int:
        return sum(sum(part.values()) for part in (self.model, self.cache, self.compute))


def parse_buffers(text: str) -> tuple[ContextMemory, ...]:
    """One entry for each context in the order made; empty when the log names no buffers (run with ``-v``)."""
    model: dict[str, int] = {}
    contexts: list[tuple[dict[str, int], dict[tuple[str, str], int]]] = []
    for line in text.splitlines():
        if _CONTEXT.search(line):
            contexts.append(({}, {}))
            continue
        found = _BUFFER.search(line)
        if found is None:
            continue
        device, kind, size = found["device"], found["kind"], round(float(found["mib"]) * _MIB)
        if kind == "model":
            model[device] = model.get(device, 0) + size
        elif contexts and kind in {"KV", "RS"}:  # one line for each cache: sliding windows have one of their own
            contexts[-1][0][device] = contexts[-1][0].get(device, 0) + size
        elif contexts:
            contexts[-1][1][device, kind] = size  # reserved anew, the last one holds
    return tuple(ContextMemory(model, cache, _by_device(compute)) for cache, compute in contexts if cache or compute)


def _by_device(compute: Mapping[tuple[str, str], int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for (device, _), size in compute.items():
        found[device] = found.get(device, 0) + size
    return found
