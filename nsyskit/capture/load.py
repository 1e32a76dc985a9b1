"""A load on a llama-server: requests in a closed or an open loop, streamed, each with the times that a client sees."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from nsyskit.capture.clock import Clock
from nsyskit.capture.config import ENDPOINTS
from nsyskit.capture.prompts import MadeUp, Prompts, read_prompts, words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    import httpx

    from nsyskit.capture.address import Address
    from nsyskit.capture.config import Endpoint, LoadConfig

_SAMPLE_CHARACTERS = 2000
_DEFAULT_CHARACTERS_PER_TOKEN = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as its client saw it. Times are Unix nanoseconds, None where it did not get that far.

    Attributes:
        index: of the prompt.
        warmup: sent before the window.
        scheduled_ns: when the open loop wanted it sent; equal to ``send_ns`` in the closed loop.
        send_ns: the client begins to send.
        first_byte_ns: the answer's first byte.
        first_token_ns: the first piece of text.
        end_ns: the answer's last byte.
        token_ns: when each piece of text came.
        status: HTTP status.
        error: what went wrong, None when the answer is whole.
        prompt_n: prompt tokens that were computed; ``cache_n`` came from the prompt cache.
        predicted_n: new tokens.
        timings: the server's own numbers.
        id_slot: the slot that served it, where the endpoint tells.
    """

    index: int
    warmup: bool = False
    scheduled_ns: int = 0
    send_ns: int = 0
    first_byte_ns: int | None = None
    first_token_ns: int | None = None
    end_ns: int | None = None
    token_ns: tuple[int, ...] = ()
    status: int | None = None
    error: str | None = None
    prompt_n: int | None = None
    cache_n: int | None = None
    predicted_n: int | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    id_slot: int | None = None

    @property
    def ttft_ns(self) -> int | None:
        """Time to first token."""
        return None if self.first_token_ns is None else self.first_token_ns - self.send_ns

    @property
    def total_ns(self) -> int | None:
        return None if self.end_ns is None else self.end_ns - self.send_ns

    @property
    def itl_ns(self) -> tuple[int, ...]:
        """Times between pieces of text. A piece is a token, unless one token alone is no valid text."""
        return tuple(after - before for before, after in pairwise(self.token_ns))


class Load:
    """Drives requests and keeps what became of them, also when it is interrupted."""

    def __init__(
        self,
        address: Address,
        config: LoadConfig,
        *,
        alive: Callable[[], bool] = lambda: True,
        on_done: Callable[[int], None] = lambda _count: None,
        clock: Clock | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self._address = address
        self._config = config
        self._alive = alive
        self.on_done = on_done
        self._clock = clock or Clock()
        self._prompts: Prompts | None = None
        self._next = 0

    def prepare(self) -> None:
        """Read or make up the prompts; asks the server's tokenizer how long its tokens are."""
        chat = self._config.endpoint == "chat"
        if self._config.prompts is not None:
            self._prompts = read_prompts(self._config.prompts, chat=chat)
        else:
            ratio = asyncio.run(self._characters_per_token())
            self._prompts = MadeUp(self._config.seed, self._config.prompt_tokens, ratio, chat)

    def warm_up(self) -> tuple[Request, ...]:
        """Send the warm-up requests, as concurrently as the load."""
        config = replace(self._config, requests=self._config.warmup, duration_s=None, rate=None)
        before = len(self.requests)
        asyncio.run(self._drive(config, warmup=True))
        return tuple(self.requests[before:])

    def run(self, also: Callable[[httpx.AsyncClient], AsyncIterator[None]] | None = None) -> None:
        """Send the load. ``also`` samples beside it, for as long as it lasts."""
        asyncio.run(self._drive(self._config, warmup=False, also=also))

    async def _drive(
        self,
        config: LoadConfig,
        *,
        warmup: bool,
        also: Callable[[httpx.AsyncClient], AsyncIterator[None]] | None = None,
    ) -> None:
        async with self._client() as client:
            sampler = asyncio.create_task(_exhaust(also(client))) if also is not None else None
            try:
                loop = self._closed_loop if config.rate is None else self._open_loop
                await loop(client, config, warmup=warmup)
            finally:
                if sampler is not None:
                    sampler.cancel()
                    await asyncio.gather(sampler, return_exceptions=True)

    def _client(self) -> httpx.AsyncClient:
        import httpx  # noqa: PLC0415  an optional dependency, and slow to import

        key = self._address.api_key
        return httpx.AsyncClient(
            base_url=self._address.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(self._config.timeout_s, connect=10.0),
            # llama-server closes a connection after some requests, and a reused one is then met by a disconnect
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,  # no proxy: the load goes to the captured server and nowhere else
            verify=False,  # noqa: S501  a certificate of the user's own for this machine
        )

    async def _characters_per_token(self) -> float:
        sample = words(self._config.seed, -1, _SAMPLE_CHARACTERS)
        async with self._client() as client:
            import httpx  # noqa: PLC0415

            try:
                answer = await client.post("/tokenize", json={"content": sample})
                count = len(answer.json()["tokens"])
            except (httpx.HTTPError, ValueError, KeyError, TypeError):
                return _DEFAULT_CHARACTERS_PER_TOKEN
        return len(sample) / count if count else _DEFAULT_CHARACTERS_PER_TOKEN

    async def _closed_loop(self, client: httpx.AsyncClient, config: LoadConfig, *, warmup: bool) -> None:
        more = self._budget(config)

        async def worker() -> None:
            while more():
                await self._one(client, config, warmup=warmup, scheduled_ns=None)

        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, config.concurrency)):
                group.create_task(worker())

    async def _open_loop(self, client: httpx.AsyncClient, config: LoadConfig, *, warmup: bool) -> None:
        more = self._budget(config)
        rng = random.Random(config.seed)  # noqa: S311  a load is no secret
        due_ns = self._clock.now_ns()
        async with asyncio.TaskGroup() as group:
            while more():
                group.create_task(self._one(client, config, warmup=warmup, scheduled_ns=due_ns))
                due_ns += round(rng.expovariate(config.rate or 1.0) * 1e9)
                await asyncio.sleep(max(0.0, (due_ns - self._clock.now_ns()) / 1e9))

    def _budget(self, config: LoadConfig) -> Callable[[], bool]:
        """Asked before each request: whether there is still one to send."""
        left = config.requests
        deadline = None if config.duration_s is None else time.monotonic() + config.duration_s

        def more() -> bool:
            nonlocal left
            if left == 0 or not self._alive() or (deadline is not None and time.monotonic() >= deadline):
                return False
            left = None if left is None else left - 1
            return True

        return more

    async def _one(
        self, client: httpx.AsyncClient, config: LoadConfig, *, warmup: bool, scheduled_ns: int | None
    ) -> None:
        assert self._prompts is not None  # noqa: S101  prepare() comes first
        index, self._next = self._next, self._next + 1
        body = request_body(config.endpoint, config.max_tokens, self._prompts.body(index))
        send_ns = self._clock.now_ns()
        watch = _Watch(
            Request(index=index, warmup=warmup, send_ns=send_ns, scheduled_ns=scheduled_ns or send_ns), self._clock
        )
        try:
            await watch.stream(client, ENDPOINTS[config.endpoint], body)
        finally:
            if watch.request.end_ns is None:
                watch.failed("cut short")
            self.requests.append(watch.request)
            self.on_done(len(self.requests))


class _Watch:
    """One streamed request while it runs."""

    def __init__(self, request: Request, clock: Clock) -> None:
        self.request = request
        self._clock = clock
        self._token_ns: list[int] = []

    def failed(self, why: str) -> None:
        self.request = replace(self.request, error=why, end_ns=self._clock.now_ns(), token_ns=tuple(self._token_ns))

    async def stream(self, client: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> None:
        import httpx  # noqa: PLC0415

        try:
            async with client.stream("POST", path, json=body) as answer:
                self.request = replace(self.request, first_byte_ns=self._clock.now_ns(), status=answer.status_code)
                if answer.status_code != httpx.codes.OK:
                    self.failed(error_text(await answer.aread(), answer.status_code))
                    return
                await self._read(answer)
        except httpx.HTTPError as error:
            self.failed(f"{type(error).__name__}: {error}".rstrip(": "))

    async def _read(self, answer: httpx.Response) -> None:
        finished = False
        async for line in answer.aiter_lines():
            if not line.startswith(("data:", "error:")):
                continue
            now = self._clock.now_ns()
            payload = line.partition(":")[2].strip()
            if payload == "[DONE]":
                finished = True
                continue
            finished = self._chunk(payload, now) or finished
            if self.request.error is not None:
                return
        if finished:
            self.request = replace(self.request, end_ns=self._clock.now_ns(), token_ns=tuple(self._token_ns))
        else:
            self.failed("the answer ended early")

    def _chunk(self, payload: str, now: int) -> bool:
        try:
            chunk = json.loads(payload)
        except ValueError:
            self.failed("the server sent something that is not JSON")
            return False
        if "error" in chunk:
            self.failed(error_text(payload.encode(), self.request.status or 0))
            return False
        if has_text(chunk):
            self._token_ns.append(now)
            if self.request.first_token_ns is None:
                self.request = replace(self.request, first_token_ns=now)
        if "timings" in chunk:
            self.request = with_timings(self.request, chunk)
            return True
        return bool(chunk.get("stop"))


def request_body(endpoint: Endpoint, max_tokens: int, prompt: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a streamed request: as many tokens as asked for, whatever the model would like."""
    count = {"n_predict": max_tokens} if endpoint == "completion" else {"max_tokens": max_tokens}
    usage = {} if endpoint == "completion" else {"stream_options": {"include_usage": True}}
    return {**count, "ignore_eos": True, **usage, **prompt, "stream": True}


def has_text(chunk: Mapping[str, Any]) -> bool:
    """Whether a piece of a stream carries new tokens: of ``/completion`` or of the OpenAI endpoints."""
    if chunk.get("tokens") or chunk.get("content"):
        return True
    for choice in chunk.get("choices", ()):
        delta = choice.get("delta", {})
        if choice.get("text") or delta.get("content") or delta.get("reasoning_content"):
            return True
    return False


def with_timings(request: Request, chunk: Mapping[str, Any]) -> Request:
    """A request with the numbers of the stream's last piece."""
    timings = {name: value for name, value in chunk["timings"].items() if isinstance(value, int | float)}
    slot = chunk.get("id_slot")
    return replace(
        request,
        timings=timings,
        prompt_n=_count(timings.get("prompt_n")),
        cache_n=_count(timings.get("cache_n")),
        predicted_n=_count(timings.get("predicted_n")),
        id_slot=slot if isinstance(slot, int) and slot >= 0 else None,
    )


def error_text(body: bytes, status: int) -> str:
    """The message in an error answer, in one line."""
    try:
        error = json.loads(body)["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace")
    return f"HTTP {status}: {' '.join(str(message).split())[:200]}"


def _count(value: float | None) -> int | None:
    return None if value is None else int(value)


async def _exhaust(source: AsyncIterator[None]) -> None:
    async for _ in source:
        pass
