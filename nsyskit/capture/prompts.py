"""Prompts for a load: made up and all different, or from a file."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nsyskit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "was",
    "for",
    "on",
    "as",
    "with",
    "by",
    "he",
    "that",
    "from",
    "at",
    "it",
    "his",
    "an",
    "are",
    "were",
    "which",
    "be",
    "this",
    "had",
    "also",
    "or",
    "has",
    "first",
    "one",
    "their",
    "its",
    "new",
    "after",
    "but",
    "who",
    "not",
    "they",
    "have",
    "her",
    "she",
    "two",
    "been",
    "other",
    "when",
    "there",
    "all",
    "during",
    "into",
    "school",
    "time",
    "may",
    "years",
    "more",
    "most",
    "only",
    "over",
    "city",
    "some",
    "world",
    "would",
    "where",
    "later",
    "up",
    "such",
    "used",
    "many",
    "can",
    "state",
    "about",
    "national",
    "out",
    "known",
    "university",
    "united",
    "then",
    "made",
    "under",
    "people",
    "war",
    "area",
    "three",
    "no",
    "if",
    "system",
    "between",
    "part",
    "him",
    "season",
    "world",
    "became",
    "both",
]


class Prompts(Protocol):
    """A source of requests: the fields of the body that hold the prompt."""

    def body(self, index: int) -> Mapping[str, Any]:
        """The prompt's fields of the request with this index."""


@dataclass(frozen=True, slots=True)
class MadeUp:
    """Random words. No two prompts begin alike: the prompt cache finds nothing to reuse.

    ``characters_per_token`` is asked of the server's own tokenizer.
    """

    seed: int
    tokens: int
    characters_per_token: float
    chat: bool

    def body(self, index: int) -> Mapping[str, Any]:
        text = words(self.seed, index, max(1, round(self.tokens * self.characters_per_token)))
        return {"messages": [{"role": "user", "content": text}]} if self.chat else {"prompt": text}


@dataclass(frozen=True, slots=True)
class FromFile:
    """Prompts of a file, from the top again when they are used up."""

    lines: tuple[Mapping[str, Any], ...]
    chat: bool

    def body(self, index: int) -> Mapping[str, Any]:
        fields = dict(self.lines[index % len(self.lines)])
        if self.chat and "messages" not in fields:
            fields["messages"] = [{"role": "user", "content": fields.pop("prompt")}]
        return fields


def words(seed: int, index: int, characters: int) -> str:
    """Random words of this many characters, different from the first one on."""
    rng = random.Random(f"{seed}/{index}")  # noqa: S311  a load is no secret
    parts = [f"{rng.choice(_WORDS)}{index}"]
    length = len(parts[0])
    while length < characters:
        parts.append(rng.choice(_WORDS))
        length += 1 + len(parts[-1])
    return " ".join(parts)[:characters]


def read_prompts(path: Path, *, chat: bool) -> FromFile:
    """Prompts of a file: a JSON string or an object with ``prompt`` or ``messages`` on each line.

    Other fields of an object go into the request's body.

    Raises:
        UsageError: the file cannot be read or a line is neither.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the prompts {path} cannot be read", hint="name a file of JSON lines") from error
    lines = tuple(
        _prompt_line(line, where=f"{path}:{number}", chat=chat)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    )
    if not lines:
        raise UsageError(f"{path} holds no prompts", hint='write lines such as {"prompt": "…"}')
    return FromFile(lines, chat)


def _prompt_line(line: str, *, where: str, chat: bool) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where} is not JSON", hint='write lines such as {"prompt": "…"}') from error
    if isinstance(value, str):
        return {"prompt": value}
    fields = ("prompt", "messages") if chat else ("prompt",)
    if isinstance(value, dict) and any(field in value for field in fields):
        return value
    raise UsageError(f"{where} has no {' or '.join(fields)}", hint='write lines such as {"prompt": "…"}')
