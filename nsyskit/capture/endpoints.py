"""llama-server's own view of itself during a load: ``/metrics`` and ``/slots``, where they are on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from nsyskit.capture.clock import Clock

# Each question goes through the server's own task queue: often enough to see a change, too rarely to be one.
_INTERVAL_S = 1.0
_SLOT_FIELDS = ("n_ctx", "n_prompt_tokens", "n_prompt_tokens_processed", "n_prompt_tokens_cache")


@dataclass(slots=True)
class ServerSamples:
    """Rows of what the endpoints said, and which of them do not answer."""

    metrics: list[dict[str, Any]] = field(default_factory=list)
    slots: list[dict[str, Any]] = field(default_factory=list)
    off: set[str] = field(default_factory=set)

    async def sample(self, client: httpx.AsyncClient, clock: Clock) -> AsyncIterator[None]:
        """Ask for ever; an endpoint that is off or broken is not asked again."""
        while {"/metrics", "/slots"} - self.off:
            for path in sorted({"/metrics", "/slots"} - self.off):
                await self._ask(client, clock, path)
            yield
            await asyncio.sleep(_INTERVAL_S)

    async def _ask(self, client: httpx.AsyncClient, clock: Clock, path: str) -> None:
        import httpx  # noqa: PLC0415

        try:
            answer = await client.get(path)
            if answer.status_code != httpx.codes.OK:
                self.off.add(path)
                return
            at_ns = clock.now_ns()
            if path == "/metrics":
                self.metrics += [{"at_ns": at_ns, **row} for row in parse_metrics(answer.text)]
            else:
                self.slots += [{"at_ns": at_ns, **row} for row in parse_slots(answer.json())]
        except (httpx.HTTPError, ValueError):
            self.off.add(path)


def parse_metrics(text: str) -> list[dict[str, Any]]:
    """Rows of name and value out of a Prometheus page."""
    rows: list[dict[str, Any]] = []
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name and not line.startswith("#"):
            try:
                rows.append({"name": name, "value": float(value)})
            except ValueError:
                continue
    return rows


def parse_slots(slots: object) -> list[dict[str, Any]]:
    """Rows of ``/slots``: what a slot is busy with, without the prompt's text."""
    if not isinstance(slots, list):
        return []
    rows = []
    for slot in slots:
        if isinstance(slot, dict):
            following = slot.get("next_token")
            token = following[0] if isinstance(following, list) and following else following
            decoded = token.get("n_decoded") if isinstance(token, dict) else None
            rows.append(
                {"id_slot": slot.get("id"), "id_task": slot.get("id_task"), "processing": slot.get("is_processing")}
                | {name: slot.get(name) for name in _SLOT_FIELDS}
                | {"n_decoded": decoded}
            )
    return rows
