"""Time to first token through llama-server: the wait that a client sees, HTTP, batching and sampling included."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import median, stdev
from typing import IO, Any, Final

from nsyskit.errors import NsyskitError
from nsyskit.sweep.bench import Outcome, environment, start_program, why
from nsyskit.sweep.grid import Cell

_SPARE_TOKENS: Final = 16
_GRACE_S: Final = 10.0
_DEFAULT_TIMEOUT_S: Final = 600.0
_FIRST_ID, _LAST_ID = 10, 250  # token ids that every vocabulary has
_ON_OFF: Final = {"0": "off", "1": "on"}


class _ServerFailedError(NsyskitError):
    """llama-server ended, or did not answer."""


@dataclass(frozen=True, slots=True)
class _First:
    """One answer: when its first token came after the request was sent, and how many prompt tokens were computed."""

    ttft_ns: int
    prompt_n: int | None


def server_argv(program: Sequence[str], cell: Cell, port: int, *, n_ctx: int) -> list[str]:
    """llama-server with the cell's settings: one slot, a context that holds the longest prompt."""
    words = [*program, "-m", str(cell.model), "-c", str(n_ctx), "-np", "1", "--host", "127.0.0.1", "--port", str(port)]
    for flag, value in cell.flags.items():
        if flag == "-nkvo":
            words += [flag] if value == "1" else []
        elif flag == "-fa":
            words += [flag, _ON_OFF.get(value, value)]
        elif flag == "-ts":
            words += [flag, value.replace("/", ",")]
        elif flag != "-d":
            words += [flag, value]
    return [*words, *(["--rpc", cell.rpc] if cell.rpc else [])]


def run_ttft(cell: Cell, program: Sequence[str], *, timeout_s: float | None = None) -> Outcome:
    """Start a server for the cell and measure every prompt length of its tests; each prompt is new to the cache.

    At a depth the same tokens stand before every prompt and come from the server's cache, as in llama-bench's ``-d``.

    Raises:
        BenchError: the program does not exist or may not run.
    """
    depth = int(cell.flags.get("-d", "0"))
    lengths = [int(n) for n in cell.tests.n_prompt if n.isdigit() and int(n)]
    if not lengths:
        return Outcome((), "llama-server: there is no prompt test to measure the first token of")
    deadline = time.monotonic() + (timeout_s or _DEFAULT_TIMEOUT_S)
    rng = random.Random(0)  # noqa: S311  equal prompts in every cell
    try:
        with _server(cell, program, n_ctx=depth + max(lengths) + _SPARE_TOKENS, deadline=deadline) as port:
            prefix = _tokens(rng, depth)
            if depth:
                _ask(port, prefix, keep=True, deadline=deadline)
            return Outcome(tuple(_measure(cell, port, prefix, n, rng, deadline=deadline) for n in lengths))
    except _ServerFailedError as error:
        return Outcome((), f"llama-server: {error.message}")


def _measure(
    cell: Cell, port: int, prefix: list[int], n_prompt: int, rng: random.Random, *, deadline: float
) -> dict[str, Any]:
    """The median over the repetitions, after one that does not count."""
    answers = [
        _ask(port, prefix + _tokens(rng, n_prompt), keep=bool(prefix), deadline=deadline)
        for _ in range(cell.tests.repetitions + 1)
    ][1:]
    times = [answer.ttft_ns / 1e6 for answer in answers]
    return {
        "label": f"ttft{n_prompt}{f'@d{len(prefix)}' if prefix else ''}", "phase": "prefill", "tokens_per_s": None,
        "samples": len(times), "n_prompt": n_prompt, "n_gen": 0, "n_depth": len(prefix),
        "ttft_ms": median(times), "ttft_stddev_ms": stdev(times) if len(times) > 1 else None,
        "prompt_n": answers[-1].prompt_n,
    }  # fmt: skip


def _tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randint(_FIRST_ID, _LAST_ID) for _ in range(count)]


@contextmanager
def _server(cell: Cell, program: Sequence[str], *, n_ctx: int, deadline: float) -> Iterator[int]:
    """A server that answers; it ends with the block, whatever happens there."""
    port = _free_port()
    argv = server_argv(program, cell, port, n_ctx=n_ctx)
    with tempfile.TemporaryFile() as log:
        process = start_program(argv, environment(cell.env), out=log, err=log)
        try:
            _await_health(process, port, log, deadline=deadline)
            yield port
        finally:
            _end(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_health(process: subprocess.Popen[bytes], port: int, log: IO[bytes], *, deadline: float) -> None:
    while time.monotonic() < deadline:
        if process.poll() is not None:
            log.seek(0)
            raise _ServerFailedError(why(process.returncode, log.read().decode(errors="replace")))
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == http.client.OK:
                return
        time.sleep(0.05)
    raise _ServerFailedError("it was not healthy in time")


def _ask(port: int, tokens: Sequence[int], *, keep: bool, deadline: float) -> _First:
    """Send a prompt of token ids and read the stream to its end. ``keep``: let the cache serve what it knows.

    One token is asked for, so that the first piece of the stream is its: the server holds back what is no whole
    character yet, but not the piece that ends the answer.
    """
    body = {"prompt": list(tokens), "n_predict": 1, "stream": True, "cache_prompt": keep, "ignore_eos": True}
    payload = json.dumps(body)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=max(1.0, deadline - time.monotonic()))
    try:
        connection.connect()
        begun = time.perf_counter_ns()
        connection.request("POST", "/completion", payload, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise _ServerFailedError(f"HTTP {answer.status}: {answer.read(200).decode(errors='replace')}")
        return _read(answer, begun)
    except (OSError, http.client.HTTPException) as error:
        raise _ServerFailedError(f"no answer ({type(error).__name__})") from error
    finally:
        connection.close()


def _read(answer: http.client.HTTPResponse, begun: int) -> _First:
    first: int | None = None
    prompt_n: int | None = None
    while line := answer.readline():
        if not line.startswith(b"data:"):
            continue
        now = time.perf_counter_ns()
        with suppress(ValueError):
            chunk = json.loads(line.partition(b":")[2])
            if "error" in chunk:
                raise _ServerFailedError("it answered with an error")
            first = now - begun if first is None else first
            prompt_n = chunk.get("timings", {}).get("prompt_n", prompt_n)
    if first is None:
        raise _ServerFailedError("the answer held no token")
    return _First(first, prompt_n)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL for its whole group."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
