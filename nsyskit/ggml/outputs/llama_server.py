"""llama-server: what ``print_timing`` logs a request, and the ``timings`` of responses.

Spellings: one line a number with slot and task (2026); a header line and three bare lines (mid-2024 to 2025);
``print_timings`` with ``id_slot=0 id_task=0`` or as JSON log lines (to mid-2024). The generation rate divides by the
printed n, or by n - 1 in newer builds, which no longer time the token that the prompt step yields.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nsyskit.ggml.outputs.shared import PerfLine, ProgramNumbers, Value, integer, json_pairs, perf_line, real, workload

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOL = "llama-server"


@dataclass(slots=True)
class _Request:
    """A request while its lines are being read."""

    key: str
    prompt: PerfLine | None = None
    gen: PerfLine | None = None
    extra: dict[str, Value] = field(default_factory=dict)


def parse(text: str) -> Iterator[ProgramNumbers]:
    """Two measurements a request, prompt then generation, in the order in which requests ended."""
    logged = [numbers for request in _logged_requests(text) for numbers in _measurements(request)]
    yield from logged
    # A verbose log holds the responses too; the same request must not count twice.
    seen = {_key(numbers) for numbers in logged}
    yield from (numbers for numbers in _responses(text) if _key(numbers) not in seen)


def _key(numbers: ProgramNumbers) -> tuple[int | None, int | None, str]:
    return numbers.n_prompt, numbers.n_gen, f"{numbers.ms or 0:.2f}"


_IDS = (
    re.compile(r"\bid\s+(-?\d{1,18}) \| task (-?\d{1,18}) \|"),
    re.compile(r"\bid_slot=(-?\d{1,18}) id_task=(-?\d{1,18})"),
    re.compile(r'"(?:slot_id|id_slot)":(-?\d{1,18}),.{0,400}"(?:task_id|id_task)":(-?\d{1,18})'),
)
_BARE = re.compile(r"\s*(?:prompt eval|eval|total) time =")
_DRAFT = re.compile(r"draft acceptance(?: rate)?\s*=[^(\n]{0,40}\(\s*(\d{1,12}) accepted /\s*(\d{1,12}) generated\)")
_REUSED = re.compile(r"graphs reused =\s*(\d{1,12})")
_RELEASED = re.compile(r"stop processing: (?:n_tokens|n_past) = (\d{1,12})")


def _logged_requests(text: str) -> Iterator[_Request]:
    done: list[_Request] = []
    current: dict[str, _Request] = {}
    last = ""
    for line in text.splitlines():
        if (held := _RELEASED.search(line)) and (key := _request_key(line)) in current:
            current[key].extra["n_context"] = int(held[1])
        named = "print_timing" in line and "llama_print_timings" not in line
        # Bare lines follow a header that carries the ids, up to the next line of another kind.
        if not named and not (last and (_BARE.match(line) or "draft acceptance" in line)):
            last = "" if line.strip() else last
            continue
        last = _request_key(line) or last or "request"
        _add(current, done, last, line)
    yield from done
    yield from current.values()


def _request_key(line: str) -> str:
    for pattern in _IDS:
        if found := pattern.search(line):
            return f"slot {found[1]} task {found[2]}"
    return ""


def _add(current: dict[str, _Request], done: list[_Request], key: str, line: str) -> None:
    perf = perf_line(line)
    request = current.setdefault(key, _Request(key))
    if perf is not None and perf.what == "prompt eval" and request.prompt is not None:
        # Old builds without ids, or a restarted server: the same key begins anew.
        done.append(request)
        request = current[key] = _Request(key)
    if perf is not None:
        _add_perf(request, perf)
    if found := _REUSED.search(line):
        request.extra["graphs_reused"] = int(found[1])
    if found := _DRAFT.search(line):
        request.extra |= {"draft_n": int(found[2]), "draft_n_accepted": int(found[1])}


def _add_perf(request: _Request, perf: PerfLine) -> None:
    match perf.what:
        case "prompt eval":
            request.prompt = perf
        case "eval" | "generation eval":
            request.gen = perf
        case "total":
            request.extra["total_ms"] = perf.ms


def _measurements(request: _Request) -> Iterator[ProgramNumbers]:
    prefix = "" if request.key == "request" else f"{request.key} "
    ids = [int(part) for part in request.key.split()[1::2]]
    extra: dict[str, Value] = dict(zip(("id_slot", "id_task"), ids, strict=False)) | request.extra
    for perf, is_prompt in ((request.prompt, True), (request.gen, False)):
        if perf is not None and perf.n is not None:
            n_prompt, n_gen = (perf.n, 0) if is_prompt else (0, perf.n)
            yield ProgramNumbers(
                tool=TOOL,
                label=prefix + workload(n_prompt, n_gen),
                n_prompt=n_prompt,
                n_gen=n_gen,
                tokens_per_s=perf.tokens_per_s,
                ms=perf.ms,
                n_divisor=perf.n if is_prompt else perf.n_divisor,
                extra=extra,
            )


_TIMINGS = re.compile(r'"timings"\s*:\s*\{([^{}]*\}?)')
_RESPONSE_ID = re.compile(r'(?<!\\)"(id|id_slot)"\s*:\s*"?([\w.-]{1,200})')


def _responses(text: str) -> Iterator[ProgramNumbers]:
    """Timings of JSON responses. A stream with ``timings_per_token`` repeats them: the last of a request counts."""
    pending: tuple[str, dict[str, Value]] | None = None
    end = 0
    for match in _TIMINGS.finditer(text):
        ids = _RESPONSE_ID.findall(text, end, match.start())
        end = match.end()
        label = _response_label(ids)
        timings = dict(json_pairs(match[1]))
        if pending and not _same_request(pending[1], timings):
            yield from _from_timings(*pending)
        pending = label, timings
    if pending:
        yield from _from_timings(*pending)


def _response_label(ids: list[tuple[str, str]]) -> str:
    named = dict(ids)
    if "id" in named:
        return f"{named['id']} "
    return f"slot {named['id_slot']} " if named.get("id_slot", "").isdecimal() else ""


def _same_request(before: dict[str, Value], after: dict[str, Value]) -> bool:
    same_prompt = all(before.get(name) == after.get(name) for name in ("cache_n", "prompt_n", "prompt_ms"))
    return same_prompt and (real(before.get("predicted_ms")) or 0) <= (real(after.get("predicted_ms")) or 0)


def _from_timings(label: str, timings: dict[str, Value]) -> Iterator[ProgramNumbers]:
    extra: dict[str, Value] = {
        name: timings[name] for name in ("cache_n", "draft_n", "draft_n_accepted") if name in timings
    }
    for kind, is_prompt in (("prompt", True), ("predicted", False)):
        n, ms = integer(timings.get(f"{kind}_n")), real(timings.get(f"{kind}_ms"))
        if n is None or ms is None:
            continue
        rate = real(timings.get(f"{kind}_per_second"))
        perf = PerfLine(kind, ms, n, real(timings.get(f"{kind}_per_token_ms")), rate, infinite=False)
        n_prompt, n_gen = (n, 0) if is_prompt else (0, n)
        yield ProgramNumbers(
            tool=TOOL,
            label=label + workload(n_prompt, n_gen),
            n_prompt=n_prompt,
            n_gen=n_gen,
            n_depth=integer(timings.get("cache_n")) or 0,
            tokens_per_s=rate,
            ms=ms,
            n_divisor=n if is_prompt else perf.n_divisor,
            extra=extra,
        )
