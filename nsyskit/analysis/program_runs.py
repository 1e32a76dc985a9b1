"""Which steps a llama.cpp tool was timing when it printed a number, and how long the trace says they took.

Tools time from before they hand over a batch to after its wait, but a step begins with its first upload: the little
work before it is taken from the pauses between like steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import starmap
from statistics import median
from sys import maxunicode
from typing import Final, NamedTuple

import polars as pl

from nsyskit.ggml.outputs import ProgramNumbers

_N_BATCH: Final = 2048
_N_UBATCH: Final = 512
"""What tools take where their output does not say."""
_FIRST_REQUESTS: Final = 32
_FIRST_STEPS: Final = 256


class Pass(NamedTuple):
    """A step, as a program's clock sees it. ``pause`` is the time to the next step, None before idling."""

    n_tokens: int
    n_outputs: int
    begin: int
    forward_end: int
    pause: int | None

    @property
    def forward(self) -> int:
        return self.forward_end - self.begin


def passes_of(steps: pl.DataFrame) -> tuple[Pass, ...]:
    """Rows of ``find_steps`` of one thread as passes."""
    pause = pl.when(~pl.col("last_of_request")).then(pl.col("end_ns") - pl.col("forward_end_ns"))
    columns = steps.select("n_tokens", pl.col("n_outputs").fill_null(0), "begin_ns", "forward_end_ns", pause)
    return tuple(starmap(Pass, columns.iter_rows()))


@dataclass(frozen=True, slots=True)
class Depths:
    """For each step how many sequences generate in it, and the tokens in their contexts together.

    A sequence's context holds the step's own token, too. Both are 0 where that is not known.
    """

    sequences: list[int]
    totals: list[int]


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


def bench_depths(records: Sequence[ProgramNumbers], passes: Sequence[Pass]) -> Depths:
    """For each step how many tokens are in the context once it has run, as far as the tests tell."""
    depths = Depths([0] * len(passes), [0] * len(passes))
    laid = _laid_over(records, [one.n_tokens for one in passes])
    plan, at = laid or ((), 0)
    for chunk in plan:
        depth = chunk.depth
        for size in chunk.sizes:
            depth += size
            if 0 <= at < len(passes):
                depths.sequences[at], depths.totals[at] = 1, depth
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
    # as text, which Python searches in linear time
    short, long = sorted(("".join(chr(min(n, maxunicode)) for n in sizes) for sizes in (shape, plan)), key=len)
    at = long.find(short)
    if not short or at < 0 or long.find(short, at + 1) >= 0:
        return None
    return at if len(shape) >= len(plan) else -at


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


class Asked(NamedTuple):
    """A request: tokens of its prompt that are computed, tokens of its answer, tokens found in the prompt cache."""

    n_prompt: int
    n_gen: int
    n_cached: int = 0


def served(requests: Sequence[Asked], passes: Sequence[Pass]) -> list[Served | None]:
    """For each request, in the order of arrival, what its prompt and its generation took, ns.

    Continuous batching is replayed: every generating request has a token in each batch, the rest of it is prompts in
    the order of arrival, and each step must show the tokens and the outputs that follow. None for requests after the
    first step that does not fit, and for all when several places fit equally well.
    """
    found = _only_replay(requests, passes)
    if found is None:
        return [None] * len(requests)
    return [found.done.get(request) for request in range(len(requests))]


def served_depths(requests: Sequence[Asked], passes: Sequence[Pass]) -> Depths:
    """The depths of all steps that the replay reaches."""
    found = _only_replay(requests, passes)
    if found is None:
        return Depths([0] * len(passes), [0] * len(passes))
    before, after = [0] * found.begin, [0] * (len(passes) - found.begin - len(found.depths.totals))
    return Depths(before + found.depths.sequences + after, before + found.depths.totals + after)


def _only_replay(requests: Sequence[Asked], passes: Sequence[Pass]) -> _Replay | None:
    """The replay that gets through most requests, from whatever request and step; None unless there is only one."""
    return _replayed_most(tuple(requests), tuple(passes))


@lru_cache(maxsize=2)  # who asks for times asks for depths, too
def _replayed_most(requests: tuple[Asked, ...], passes: tuple[Pass, ...]) -> _Replay | None:
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
    depth: int  # its tokens that have been computed or were in the cache
    begin: int = -1  # the first step of the batch that its prompt began with
    answered: int = -1  # the last step of the batch that gave its first token


class _Replay:
    """The slots of a server, step by step, from a request and a step on.

    A batch holds the generating requests' tokens first, then prompts; cut into ubatches, it samples at its end only.
    ``done``: times of the requests that are through, by number. ``depths``: of the steps taken, without those of
    prompts.
    """

    def __init__(self, requests: Sequence[Asked], passes: Sequence[Pass], first: int, begin: int) -> None:
        self.begin = begin
        self.done: dict[int, Served] = {}
        self.depths = Depths([], [])
        self._requests = requests
        self._passes = passes
        self._next = first  # of the requests that wait
        self._prompting: list[_Request] = []  # with a part of their prompt computed
        self._generating: list[_Request] = []
        self._begun = begin  # first step of the batch
        self._prompts = False  # whether the step before held prompts: this one may be of the same batch

    def run(self) -> None:
        """Up to the first step that does not fit."""
        for at in range(self.begin, len(self._passes)):
            if not self._step(at):
                return

    def _step(self, at: int) -> bool:
        """Take one step; False when it holds other tokens or outputs than it must."""
        unfinished = self._prompts and bool(self._prompting)
        for own in self._orders(unfinished=unfinished):
            taken = self._taken(self._passes[at], len(own))
            if taken is not None:
                break
        else:
            return False
        if own or not (unfinished and self._fits_batch(at)):
            self._begun = at
        self._prompts = bool(taken)
        self._generate(own)
        self._compute(at, taken)
        self._release(at)
        return True

    def _orders(self, *, unfinished: bool) -> tuple[list[_Request], ...]:
        """Whose tokens a step may hold beside prompts, likelier first: everybody's, or nobody's within a batch."""
        if not self._prompts:
            return (self._generating,)
        return ([], self._generating) if unfinished else (self._generating, [])

    def _fits_batch(self, at: int) -> bool:
        return sum(one.n_tokens for one in self._passes[self._begun : at + 1]) <= _N_BATCH

    def _taken(self, one: Pass, own: int) -> list[tuple[_Request, int]] | None:
        """How many tokens of which prompts make up the rest of the step; None when it does not add up."""
        room, outputs = one.n_tokens - own, own
        taken = []
        for request in self._prompts_left() if room > 0 else ():
            n = min(room, request.prompt_left)
            taken.append((request, n))
            room -= n
            outputs += n == request.prompt_left
            if room <= 0:
                break
        return taken if room == 0 and outputs == one.n_outputs else None

    def _prompts_left(self) -> Iterator[_Request]:
        """Requests whose prompts are not through, in the order of arrival."""
        yield from self._prompting
        for number in range(self._next, len(self._requests)):
            yield _Request(number, *self._requests[number])

    def _generate(self, own: Sequence[_Request]) -> None:
        """A token for each of them."""
        for request in own:
            request.gen_left -= 1
            request.depth += 1
        self.depths.sequences.append(len(own))
        self.depths.totals.append(sum(request.depth for request in own))

    def _compute(self, at: int, taken: Sequence[tuple[_Request, int]]) -> None:
        """So many tokens of each prompt; one that is through generates from then on."""
        for request, n in taken:
            request.depth += n
            if request.begin < 0:
                request.begin = self._begun
                self._prompting.append(request)
                self._next = request.number + 1
            request.prompt_left -= n
            if not request.prompt_left:
                request.answered = at
                request.gen_left = max(0, request.gen_left - 1)  # the prompt's step gives the first token
                self._prompting.remove(request)
                self._generating.append(request)

    def _release(self, at: int) -> None:
        """Let go of the requests that have all their tokens."""
        if self._begun < at:  # the batch goes on: what it has answered comes with its end
            for request in self._generating:
                request.answered = at if request.answered >= self._begun else request.answered
        if all(request.gen_left for request in self._generating):
            return
        for request in self._generating:
            if not request.gen_left:
                self.done[request.number] = _served(request, self._passes, at)
        self._generating = [request for request in self._generating if request.gen_left]


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
