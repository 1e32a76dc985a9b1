"""Threads beside those that drive the GPU: HTTP, timers, CUDA's own, ggml's CPU workers; and samples of the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traces.synth.world import Process, Thread, World


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thread: what it waits in, how long, and its call chain."""

    name: str
    call: str
    wait_ns: float
    frames: tuple[str, ...]
    between_ns: float = 8_000


HTTP = Kind(
    "llama-server", "pthread_cond_wait", 42e6,
    ("pthread_cond_wait", "httplib::ThreadPool::worker::operator()()", "start_thread"),
)  # fmt: skip
LISTEN = Kind("llama-server", "poll", 100e6, ("poll", "httplib::Server::listen_internal()", "start_thread"))
CUDA_EVENTS = Kind("cuda-EvtHandlr", "poll", 100e6, ("poll", "cuda-EvtHandlr"))
WORKER = Kind("llama-worker", "sem_wait", 11e6, ("sem_wait", "ggml_graph_compute_secondary_thread", "start_thread"))
POOL = Kind("llama-log", "pthread_cond_wait", 120e6, ("pthread_cond_wait", "common_log::worker()", "start_thread"))


def add_threads(world: World, process: Process, kinds: tuple[tuple[Kind, int], ...], span: tuple[int, int]) -> None:
    """Threads of these kinds that wait through the whole span."""
    for kind, number in kinds:
        for _ in range(number):
            _fill(world, world.thread(process, kind.name), kind, span)


def _fill(world: World, thread: Thread, kind: Kind, span: tuple[int, int]) -> None:
    first, last = span
    rng = world.noise.rng
    expected = int((last - first) / (kind.wait_ns + kind.between_ns) * 2) + 4
    waits = rng.exponential(kind.wait_ns, expected).astype(np.int64) + 1_500
    gaps = rng.exponential(kind.between_ns, expected).astype(np.int64) + 500
    starts = first + np.cumsum(waits + gaps) - waits
    ends = np.minimum(starts + waits, last)
    keep = starts < last
    chain = world.chain(*kind.frames)
    world.osrt.extend(
        int(keep.sum()), start=starts[keep], end=ends[keep], proc=thread.process.number, thread=thread.number,
        name=world.strings.id(kind.call), blocked=1, chain=chain,
    )  # fmt: skip


def sample_cpu(world: World, thread: Thread, busy: list[tuple[int, int, tuple[str, ...]]], period_ns: int) -> None:
    """Samples of a thread, one a period, inside spans in which it runs, with what runs there."""
    for first, last, frames in busy:
        at = -(-first // period_ns) * period_ns
        chain = world.chain(*frames)
        while at < last:
            world.samples.add(
                start=at, end=at, proc=thread.process.number, thread=thread.number, cpu=thread.number % 8, chain=chain
            )
            at += period_ns


def flush_buffers(world: World, process: Process, span: tuple[int, int], every_ns: float = 9e6) -> None:
    """CUPTI's own thread writes its buffers out now and then."""
    thread = world.thread(process, "CUPTI worker")
    rng = world.noise.rng
    at = span[0] + round(float(rng.exponential(every_ns)))
    while at < span[1]:
        end = at + 200_000 + round(float(rng.exponential(400_000.0)))
        world.overheads.add(
            start=at, end=end, proc=process.number, thread=thread.number,
            name=world.strings.id("CUPTI Buffer flush"),
        )  # fmt: skip
        at = end + 50_000 + round(float(rng.exponential(every_ns)))
