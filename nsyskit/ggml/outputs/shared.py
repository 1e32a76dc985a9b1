"""What the parsers of program output have in common: the value they yield, and how text is read without trust.

Output reaches nsyskit cut off, coloured, and with other lines in between (stdout and stderr in one log). So nothing
here parses a document as a whole: pairs, rows and lines are picked out one by one, and a torn one is skipped.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Value = str | int | float | bool | None | tuple[float, ...]

NUMBER: Final = r"(?:-?\d+(?:[.,]\d+)?(?:e[+-]?\d+)?|-?inf|-?nan)"
"""A number as printf writes it, with a comma in some locales."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramNumbers:
    """One measurement that a llama.cpp tool printed about itself.

    Attributes:
        tool: ``llama-bench``, ``llama-batched-bench``, ``llama-server``, ``llama-cli``, ``llama-completion``, ….
        label: the workload as llama-bench names it (``pp512``, ``tg128``, ``pp512+tg128@d4096``, with ``@b8`` for eight
            sequences at once), after the request it belongs to (``slot 0 task 49 tg48``); or ``load``, ``total``,
            ``memory CUDA0``, ``ppl``.
        n_prompt: prompt tokens, 0 for pure generation, None when not printed.
        n_gen: generated tokens as printed, 0 for pure prompt processing, None when not printed.
        n_depth: tokens in the KV cache before the measurement.
        tokens_per_s: the rate as printed, None when there is none or it is no finite number.
        ms: the time as printed, in milliseconds.
        n_divisor: the token count that the printed rate divides by. Not always the printed count: llama-server counts
            the token that comes from the prompt step but does not time it, and newer builds divide by n - 1.
        extra: the rest, under the tool's own names.
    """

    tool: str
    label: str
    n_prompt: int | None = None
    n_gen: int | None = None
    n_depth: int = 0
    tokens_per_s: float | None = None
    ms: float | None = None
    n_divisor: int | None = None
    extra: Mapping[str, Value] = field(default_factory=dict)

    @property
    def phase(self) -> Literal["prefill", "decode", "mixed"] | None:
        """What was measured; None for what is no pass over tokens, such as load times and memory."""
        match self.n_prompt != 0, self.n_gen != 0:
            case True, False:
                return "prefill"
            case False, True:
                return "decode"
            case True, True if self.n_prompt is not None or self.n_gen is not None:
                return "mixed"
        return None


def workload(n_prompt: int, n_gen: int, *, n_depth: int = 0, n_parallel: int = 1) -> str:
    """The workload's label, as llama-bench prints it but without spaces.

    >>> workload(512, 128, n_depth=4096)
    'pp512+tg128@d4096'
    """
    parts = [f"pp{n_prompt}" if n_prompt else "", f"tg{n_gen}" if n_gen else ""]
    depth = f"@d{n_depth}" if n_depth else ""
    parallel = f"@b{n_parallel}" if n_parallel > 1 else ""
    return "+".join(part for part in parts if part) + depth + parallel


_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def clean(text: str) -> str:
    """Text without terminal colours and with plain line ends; a carriage return (a progress line) ends a line."""
    return _ESCAPE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def number(text: str | None) -> float | None:
    """A printed number; None where there is none or it is ``inf`` or ``nan``.

    >>> number("38,05"), number("inf")
    (38.05, None)
    """
    if text is None:
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def scalar(text: str) -> Value:
    """A cell of a table as an int or a float where it is one."""
    stripped = text.strip()
    if re.fullmatch(r"-?\d{1,18}", stripped):
        return int(stripped)
    return number(stripped) if re.fullmatch(r"-?\d{1,18}\.\d{1,18}", stripped) else stripped


# A pair counts only with what must follow it: the value of a pair that the end of the text cuts through is wrong.
_PAIR = re.compile(
    r'"(\w+)"\s*:\s*'
    r'("(?:[^"\\\n]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|-?inf|-?nan|\[[^\[\]{}"]*\])'
    r"(?=\s*[,}\]])"
)


def json_pairs(text: str) -> Iterator[tuple[str, Value]]:
    """The ``"key": value`` pairs in a text, in order, whatever stands between them; nested objects are flattened."""
    for match in _PAIR.finditer(text):
        yield match[1], _value(match[2])


def _value(text: str) -> Value:
    try:
        return _frozen(json.loads(text))
    except ValueError:  # nan and inf as the C++ library prints them, or a damaged number
        return None


def _frozen(value: object) -> Value:
    if isinstance(value, list):
        return tuple(float(item) for item in value if isinstance(item, int | float) and abs(item) < 1e300)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool) else None


def json_records(text: str, *, first: str) -> Iterator[dict[str, Value]]:
    """Flat JSON records whose first key is ``first``, from JSON lines, an indented array or a torn piece of either."""
    record: dict[str, Value] = {}
    end = 0
    for match in _PAIR.finditer(text):
        if record and (match[1] == first or "}" in text[end : match.start()]):
            yield record
            record = {}
        if record or match[1] == first:
            record.setdefault(match[1], _value(match[2]))
        end = match.end()
    if record:
        yield record


def integer(value: Value) -> int | None:
    """A count out of a record; None when it is none or out of all proportion."""
    found = scalar(value) if isinstance(value, str) else value
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 1 << 53:
        return None
    return found


def real(value: Value) -> float | None:
    """A finite number out of a record."""
    found = number(value) if isinstance(value, str) else value
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if abs(found) < 1e300 else None


def base_name(value: Value) -> Value:
    """The file name of a path: the folders are the user's own business."""
    return PurePath(value.replace("\\", "/")).name if isinstance(value, str) else value


def table_cells(line: str) -> list[str] | None:
    """The cells of a Markdown table's line, None for any other line."""
    stripped = line.strip()
    if len(stripped) < 2 or stripped[0] != "|" or stripped[-1] != "|":
        return None
    return [cell.strip() for cell in stripped[1:-1].split("|")]


@dataclass(frozen=True, slots=True)
class PerfLine:
    """One line ``prompt eval time = … ms / … tokens (… ms per token, … tokens per second)``."""

    what: str
    ms: float
    n: int | None
    ms_per_token: float | None
    tokens_per_s: float | None
    infinite: bool

    @property
    def n_divisor(self) -> int | None:
        """Whether the rate divides by n or by n - 1: whichever gives the printed numbers.

        Of the two printed witnesses, the one with more digits counts: at 5.20 tokens/s the rate is too coarse, at
        0.02 ms per token the time is.
        """
        if self.n is None or (self.tokens_per_s is None and self.ms_per_token is None):
            return None
        if self.infinite or self.n == 0:
            return self.n
        if not self.tokens_per_s or self.ms <= 0:  # one token that took no time: the count was n - 1 = 0
            return 0 if self.n == 1 and self.tokens_per_s == 0 else self.n
        if (self.ms_per_token or 0) > self.tokens_per_s:
            measured = self.ms / (self.ms_per_token or math.nan)
        else:
            measured = self.tokens_per_s * self.ms / 1e3
        return min((self.n, self.n - 1), key=lambda count: abs(measured - count))


_PERF_LINE = re.compile(
    r"(?P<what>prompt eval|generation eval|eval|total|load|sampling|sample|samplers) time"
    rf"\s*=\s*(?P<ms>{NUMBER}) ms"
    r"(?:\s*/\s*(?P<n>\d{1,12}) (?:tokens|runs)"
    rf"(?:\s*\(\s*(?P<per>{NUMBER}) ms per token(?:,\s*(?P<rate>{NUMBER}) tokens per second)?\))?)?"
)


def perf_line(line: str) -> PerfLine | None:
    """The perf numbers in a line, None where it holds none."""
    match = _PERF_LINE.search(line)
    ms = number(match["ms"]) if match else None
    if match is None or ms is None:
        return None
    return PerfLine(
        what=match["what"],
        ms=ms,
        n=int(match["n"]) if match["n"] else None,
        ms_per_token=number(match["per"]),
        tokens_per_s=number(match["rate"]),
        infinite=match["rate"] == "inf",
    )


def detect_tool(text: str) -> str:
    """Which of the tools that share perf lines and memory tables printed this text; llama-cli where it does not say."""
    for sign, tool in _SIGNS:
        if sign.search(text):
            return tool
    return "llama-cli"


_SIGNS = (
    (re.compile(r"print_timing|llama_server: |server is listening"), "llama-server"),
    (re.compile(r"perplexity: (?:calculating|tokenizing|\d)"), "llama-perplexity"),
    (re.compile(r"llama_completion: "), "llama-completion"),
)
