"""Which steps a llama.cpp tool was timing when it printed a number, and how long the trace says they took.

Tools time from before they hand over a batch to after its wait, but a step begins with its first upload: the little
work before it is taken from the pauses between like steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Final

import polars as pl

from nsyskit.ggml.outputs import ProgramNumbers

_N_BATCH: Final = 2048
_N_UBATCH: Final = 512
"""What tools take where their output does not say."""
_FIRST_REQUESTS: Final = 32
_FIRST_STEPS: Final = 256


@dataclass(frozen=True, slots=True)
class Pass:
    """A step, as a program's clock sees it. ``pause`` is the time to the next step, None before idling."""

    n_tokens: int
    n_outputs: int
    begin: int
    forward_end: int
    pause: int | None

    @property
    def forward(self) -> int:
        return self.forward_end - self.begin


def passes_of(steps: pl.DataFrame) -> list[Pass]:
    """Rows of ``find_steps`` of one thread as passes."""
    columns = steps.select("n_tokens", "n_outputs", "begin_ns", "forward_end_ns", "end_ns", "last_of_request")
    return [
        Pass(tokens, outputs or 0, begin, forward_end, None if last else end - forward_end)
        for tokens, outputs, begin, forward_end, end, last in columns.iter_rows()
    ]


def usual_pause(passes: Sequence[Pass]) -> int:
    """The median pause after steps of one token, ns; 0 where there are none."""
    pauses = [one.pause for one in passes if one.n_tokens == one.n_outputs and one.pause is not None]
    return round(median(pauses)) if pauses else 0


def span_ns(passes: Sequence[Pass]) -> int:
    """What a caller's clock shows around these passes: from the first one's begin to the last wait, and one pause."""
    inner = [one.pause for one in passes[:-1] if one.pause is not None]
    lead = round(median(inner)) if inner else 0
    return passes[-1].forward_end - passes[0].begin + lead


# --- llama-bench


def bench_ns(records: Sequence[ProgramNumbers], passes: Sequence[Pass]) -> list[list[int]]:
    """For each test, in the order printed, what its repetitions took, ns; empty where they cannot be told apart.

    Every test is a warm-up and repetitions of known ubatches. What llama-bench did is laid out (with or without
    warm-up, the depth filled each time or once) and laid over the steps; it must fit in exactly one place.
    """
    shape = [one.n_tokens for one in passes]
    laid = _laid_over(records, shape)
    return [[] for _ in records] if laid is None else _measured(records, passes, *laid)


def bench_depths(records: Sequence[ProgramNumbers], passes: Sequence[Pass]) -> list[int | None]:
    """For each step how many tokens are in the context once it has run, None where the tests do not tell."""
    depths: list[int | None] = [None] * len(passes)
    laid = _laid_over(records, [one.n_tokens for one in passes])
    plan, at = laid or ((), 0)
    for chunk in plan:
        depth = chunk.depth
        for size in chunk.sizes:
            depth += size
            if 0 <= at < len(passes):
                depths[at] = depth
            at += 1
    return depths


def _laid_over(records: Sequence[ProgramNumbers], shape: Sequence[int]) -> tuple[list[_Chunk], int] | None:
    """What the tests ran, and where in the steps that begins; None when it fits in no place or in several."""
    for warm_up in (True, False):
        for refill in (True, False):
            plan = [chunk for record in records for chunk in _plan(record, warm_up=warm_up, refill=refill)]
            offset = _only_place(shape, [n for chunk in plan for n in chunk.sizes])
            if offset is not None:
                return plan, offset
    return None


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Steps that belong together; ``record`` is the test that times them, None for those nobody times.

    ``depth``: tokens in the context before the first of them.
    """

    sizes: tuple[int, ...]
    record: ProgramNumbers | None
    depth: int = 0


def _plan(record: ProgramNumbers, *, warm_up: bool, refill: bool) -> Iterator[_Chunk]:
    n_prompt, n_gen = record.n_prompt or 0, record.n_gen or 0
    prompt = _ubatches(record, n_prompt)
    if warm_up:
        yield _Chunk(prompt + (1,) * min(n_gen, 1), None)
    for repetition in range(_repetitions(record)):
        if record.n_depth and (refill or not repetition):
            yield _Chunk(_ubatches(record, record.n_depth), None)
        yield _Chunk(prompt + (1,) * n_gen, record, record.n_depth)


def _repetitions(record: ProgramNumbers) -> int:
    samples = record.extra.get("samples_ns") or record.extra.get("samples_ts")
    return len(samples) if isinstance(samples, tuple) else 5


def _ubatches(record: ProgramNumbers, n: int) -> tuple[int, ...]:
    """The ubatches that ``n`` tokens of a prompt are cut into."""
    n_batch, n_ubatch = _size(record, "n_batch", _N_BATCH), _size(record, "n_ubatch", _N_UBATCH)
    batches = [min(n_batch, n - at) for at in range(0, n, n_batch)]
    return tuple(min(n_ubatch, batch - at) for batch in batches for at in range(0, batch, n_ubatch))


def _size(record: ProgramNumbers, name: str, default: int) -> int:
    value = record.extra.get(name)
    return value if isinstance(value, int) and value > 0 else default


def _only_place(shape: Sequence[int], plan: Sequence[int]) -> int | None:
    """Where the plan begins in the steps; negative when the trace begins later. None unless there is one place."""
    short, long = sorted((shape, plan), key=len)
    if not short:
        return None
    found = [at for at in range(len(long) - len(short) + 1) if list(long[at : at + len(short)]) == list(short)]
    if len(found) != 1:
        return None
    return found[0] if long is shape else -found[0]


def _measured(
    records: Sequence[ProgramNumbers], passes: Sequence[Pass], plan: Sequence[_Chunk], offset: int
) -> list[list[int]]:
    times: dict[int, list[int]] = {id(record): [] for record in records}
    at = offset
    lead = usual_pause(passes)
    for chunk in plan:
        own = passes[max(at, 0) : max(at + len(chunk.sizes), 0)]
        if chunk.record is not None and at >= 0 and len(own) == len(chunk.sizes):
            times[id(chunk.record)].append(span_ns(own) if chunk.record.n_gen else _prompt_ns(own, lead))
        at += len(chunk.sizes)
    return [times[id(record)] for record in records]


def _prompt_ns(passes: Sequence[Pass], lead: int) -> int:
    return passes[-1].forward_end - passes[0].begin + lead


# --- llama-server


@dataclass(frozen=True, slots=True)
class Served:
    """What a request took: its prompt up to the first token, and from there to the last; ns.

    ``slack_ns``: by how much either may be off, because slots sample one after the other in an order not seen.
    """

    prompt_ns: int
    gen_ns: int
    slack_ns: int


def served(requests: Sequence[tuple[int, int]], passes: Sequence[Pass]) -> list[Served | None]:
    """For each request ``(n_prompt, n_gen)``, in the order of arrival, what its prompt and its generation took, ns.

    Continuous batching is replayed: every generating request has a token in each batch, the rest of it is prompts in
    the order of arrival, and each step must show the tokens and the outputs that follow. None for requests after the
    first step that does not fit, and for all when several places fit equally well.
    """
    found = _only_replay(requests, passes)
    if found is None:
        return [None] * len(requests)
    return [found.done.get(request) for request in range(len(requests))]


def served_depths(
    requests: Sequence[tuple[int, int]], passes: Sequence[Pass], cached: Sequence[int]
) -> list[tuple[int, ...] | None]:
    """For each step the tokens in the context of every sequence that generates in it, itself among them.

    Args:
        requests: as of ``served``.
        passes: of one thread.
        cached: for each request the tokens of its prompt that were in the cache already.

    None for steps that the replay does not reach, or that are another's.
    """
    depths: list[tuple[int, ...] | None] = [None] * len(passes)
    found = _only_replay(requests, passes)
    if found is not None:
        for at, generating in enumerate(found.generating, found.begin):
            depths[at] = tuple(depth + cached[request] for request, depth in generating)
    return depths


def _only_replay(requests: Sequence[tuple[int, int]], passes: Sequence[Pass]) -> _Replay | None:
    """The replay that gets through most requests, from whatever request and step; None unless there is only one."""
    return _replayed_most(tuple(requests), tuple(passes))


@lru_cache(maxsize=2)  # who asks for times asks for depths, too
def _replayed_most(requests: tuple[tuple[int, int], ...], passes: tuple[Pass, ...]) -> _Replay | None:
    best: list[_Replay] = []
    most = 0
    for first in range(min(len(requests), _FIRST_REQUESTS)):
        for begin in _beginnings(passes):
            replay = _Replay(requests, passes, first, begin)
            replay.run()
            if replay.done and len(replay.done) >= most:
                best = [*(best if len(replay.done) == most else []), replay]
                most = len(replay.done)
        if best and most == len(requests) - first:
            break
    return best[0] if len(best) == 1 else None


def _beginnings(passes: Sequence[Pass]) -> list[int]:
    """Steps that a request may begin with: the first ones, which may be a warm-up, and those after idling."""
    after_idle = [at + 1 for at, one in enumerate(passes[:-1]) if one.pause is None]
    return sorted({*range(min(3, len(passes))), *after_idle})[:_FIRST_STEPS]


@dataclass(slots=True)
class _Request:
    number: int
    prompt_left: int
    gen_left: int
    depth: int = 0  # its tokens that have been computed
    begin: int = -1  # the first step of the batch that its prompt began with
    answered: int = -1  # the last step of the batch that gave its first token


class _Replay:
    """The slots of a server, step by step, from a request and a step on.

    A batch holds the generating requests' tokens first, then prompts; cut into ubatches, it samples at its end only.
    ``done``: times of the requests that are through, by number. ``generating``: for each step taken the number and the
    depth of every request that had a token in it beside prompts.
    """

    def __init__(self, requests: Sequence[tuple[int, int]], passes: Sequence[Pass], first: int, begin: int) -> None:
        self.begin = begin
        self.done: dict[int, Served] = {}
        self.generating: list[tuple[tuple[int, int], ...]] = []
        self._requests = requests
        self._passes = passes
        self._next = first  # of the requests that wait
        self._active: list[_Request] = []
        self._begun = begin  # first step of the batch
        self._prompts = False  # whether the step before held prompts: this one may be of the same batch

    def run(self) -> None:
        """Up to the first step that does not fit."""
        for at in range(self.begin, len(self._passes)):
            if not self._step(at):
                return

    def _step(self, at: int) -> bool:
        """Take one step; False when it holds other tokens or outputs than it must."""
        generating = [request for request in self._active if not request.prompt_left]
        unfinished = self._prompts and len(generating) < len(self._active)
        for own in self._orders(generating, unfinished=unfinished):
            taken = self._taken(self._passes[at], own)
            if taken is not None:
                break
        else:
            return False
        if own or not (unfinished and self._fits_batch(at)):
            self._begun = at
        self._prompts = bool(taken)
        self._advance(at, own, taken)
        return True

    def _orders(self, generating: list[_Request], *, unfinished: bool) -> Iterator[list[_Request]]:
        """Whose tokens a step may hold beside prompts, likelier first: everybody's, or nobody's within a batch."""
        yield [] if unfinished else generating
        if self._prompts:
            yield generating if unfinished else []

    def _fits_batch(self, at: int) -> bool:
        return sum(one.n_tokens for one in self._passes[self._begun : at + 1]) <= _N_BATCH

    def _taken(self, one: Pass, own: Sequence[_Request]) -> list[tuple[_Request, int]] | None:
        """How many tokens of which prompts make up the rest of the step; None when it does not add up."""
        room, outputs = one.n_tokens - len(own), len(own)
        taken = []
        for request in self._prompting() if room > 0 else ():
            n = min(room, request.prompt_left)
            taken.append((request, n))
            room -= n
            outputs += n == request.prompt_left
            if room <= 0:
                break
        return taken if room == 0 and outputs == one.n_outputs else None

    def _prompting(self) -> Iterator[_Request]:
        """Requests whose prompts are not through, in the order of arrival."""
        yield from (request for request in self._active if request.prompt_left)
        for number in range(self._next, len(self._requests)):
            yield _Request(number, *self._requests[number])

    def _advance(self, at: int, own: Sequence[_Request], taken: Sequence[tuple[_Request, int]]) -> None:
        for request in own:
            request.gen_left -= 1
            request.depth += 1
        self.generating.append(tuple((request.number, request.depth) for request in own))
        for request, n in taken:
            request.depth += n
            if request.begin < 0:
                request.begin = self._begun
                self._active.append(request)
                self._next = request.number + 1
            request.prompt_left -= n
            if not request.prompt_left:
                request.answered = at
                request.gen_left = max(0, request.gen_left - 1)  # the prompt's step gives the first token
        for request in self._active:
            request.answered = at if request.answered >= self._begun else request.answered
        for request in [request for request in self._active if not request.prompt_left and not request.gen_left]:
            self._active.remove(request)
            self.done[request.number] = _served(request, self._passes, at)


def _served(request: _Request, passes: Sequence[Pass], last: int) -> Served:
    """The prompt's time, from its first upload to its first token, and the generation's from there to the last."""
    first, answered, end = passes[request.begin], passes[request.answered], passes[last]
    # the middle of the pause, on average, where several slots sample one after the other
    sampled = (answered.pause or 0) * (answered.n_outputs + 1) // (2 * max(answered.n_outputs, 1))
    shared = [one.pause or 0 for one in (answered, end) if one.n_outputs > 1]
    return Served(
        prompt_ns=answered.forward_end - first.begin + sampled,
        gen_ns=end.forward_end - answered.forward_end,
        slack_ns=max(shared, default=0) // 2,
    )


# --- perf lines


def perf_ns(n_prompt: int, n_gen: int, passes: Sequence[Pass], phases: Sequence[str]) -> Mapping[str, int]:
    """What perf lines time: forward passes without sampling, by phase, ns. Empty where the counts do not fit.

    Args:
        n_prompt: tokens that the prompt's line counts, 0 without one.
        n_gen: runs that the generation's line counts, 0 without one.
        passes: of one thread.
        phases: of each pass.
    """
    for warm_up in range(min(3, len(passes))):
        rows = list(zip(passes, phases, strict=True))[warm_up:]
        prompt = [one for one, phase in rows if phase == "prefill"]
        gen = [one for one, phase in rows if phase == "decode"]
        counts = sum(one.n_tokens for one in prompt), sum(one.n_tokens for one in gen)
        if counts == (n_prompt, n_gen):
            return {"prefill": sum(one.forward for one in prompt), "decode": sum(one.forward for one in gen)}
    return {}
