"""The facts of a trace without what is private: command lines, environments, and single values by name.

Values that nobody knows are not trusted: what is neither a number nor a word of nsys's own is scrubbed or hidden.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from nsyskit import nsys_schema as nsys
from nsyskit.redact.words import HIDDEN, Known, Scrubber, is_secret_name

_PLAIN = re.compile(
    r"true|false|[A-Za-z]{1,24}|[-+]?\d[\d.,]*|[\d.]+ sec|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\{\}|",
    re.IGNORECASE,
)
_OPTION = re.compile(r"--[a-z][a-z-]+(?:\d(?=[a-z-]))?[a-z-]*|-[a-z]{1,5}", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?\d[\d.,:;/x+-]*[kmgt]?b?", re.IGNORECASE)
_DOTTED = re.compile(r"\d+\.\d+\.\d+")
_SWITCH: Final = frozenset({
    "on", "off", "auto", "true", "false", "none", "all", "layer", "row", "tensor", "cuda0", "cuda1", "cuda2", "cuda3",
    "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1", "json", "jsonl", "csv", "md", "sql",
    "distribute", "isolate", "numactl", "enabled", "disabled", "linear", "yarn", "mean", "cls", "last", "rank",
})  # fmt: skip
_MODEL = re.compile(r"[\w.+-]+\.gguf", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_]\w*=")
_SWITCHES = re.compile(r"(?:GGML|LLAMA|CUDA|CUBLAS|NCCL|OMP)_\w+|NVIDIA_(?:VISIBLE_DEVICES|TF32_OVERRIDE)")
_PLAIN_VALUE = re.compile(r"[\w.,:-]{0,24}")
_SAFE_WORD = re.compile(
    r"[(\"'\[]?(?:[A-Za-z]+(?:['/-][A-Za-z]+)*|[-+]?\d[\d.,]*(?:%|[a-zA-Z]{1,2})?|-|—)[.,:;!?)\]\"']*"
)
_SENSITIVE = re.compile(r"(?i)pass|pwd|secret|token|key|credential|user|host|login|environment")
REMOVED_ENVIRONMENT: Final = "NSYSKIT_REDACTED=1"
"""Left where an environment was: an environment that is known to hide no GPU is not the same as none."""


def is_environment(text: str) -> bool:
    """``NAME=value``, once or with zeros between."""
    return _VARIABLE.match(text) is not None


def variables(text: str) -> Iterator[tuple[str, str]]:
    """The variables of an environment."""
    for part in re.split(r"[\0\n]", text):
        name, equals, value = part.partition("=")
        if equals:
            yield name, value


def learn(facts: list[tuple[str, str]], known: Known) -> None:
    """Take from the facts of a file the values to look for everywhere else."""
    secret_next = False
    for name, value in facts:
        known.learn_owners(value)
        if _is(name, nsys.FACT_ENVIRONMENT):
            for variable, content in variables(value):
                known.learn_variable(variable, content)
        elif _ends(name, nsys.FACT_HOST) and value:
            known.hosts |= {value, value.partition(".")[0]}
        elif _ends(name, nsys.FACT_USER) and value:
            known.users.add(value)
        elif _is(name, nsys.FACT_ARGUMENT):
            option, equals, rest = value.partition("=")
            if secret_next and value:
                known.secrets |= {value, *value.split(",")}
            elif equals and is_secret_name(option):
                known.secrets |= {rest, *rest.split(",")}
            secret_next = not equals and value.startswith("-") and is_secret_name(value)


class FactCleaner:
    """Rows of name and value, in the file's order: an option's value is judged by the option before it."""

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._option = ""

    def value(self, name: str, value: str) -> str:
        """The value to write."""
        if value in {"", HIDDEN, REMOVED_ENVIRONMENT}:
            return value
        if _is(name, nsys.FACT_ENVIRONMENT):
            return self.environment(value)
        if _is(name, nsys.FACT_ARGUMENT):
            return self._argument(value)
        if _ends(name, nsys.FACT_COMMAND):
            return self._command(value)
        private = self._private(name, value)
        return self._described(name, value) if private is None else HIDDEN if self._scrubber.found(private) else value

    def _private(self, name: str, value: str) -> str | None:
        """The class of a fact whose name alone says that it is private."""
        kinds = {"host": nsys.FACT_HOST, "user": nsys.FACT_USER, "home": nsys.FACT_FOLDER}
        secret = "credential" if is_secret_name(name) and not _plain_number(value) else None
        return next((kind for kind, ends in kinds.items() if _ends(name, ends)), secret)

    def _described(self, name: str, value: str) -> str:
        cleaned = self._scrubber.text(value)
        if name.startswith(nsys.FACT_PLAIN) or _PLAIN.fullmatch(value):
            return cleaned
        return self._free(cleaned)

    def environment(self, text: str) -> str:
        """Switches of CUDA and llama.cpp that hold no more than a number or a word; nothing else."""
        if not text or "environment" in self._scrubber.keep:
            return text
        kept = []
        for name, value in variables(text):
            if _SWITCHES.fullmatch(name) and not is_secret_name(name) and self._harmless(value):
                kept.append(f"{name}={value}")
            elif f"{name}={value}" != REMOVED_ENVIRONMENT:
                self._scrubber.found("environment")
        return "\0".join(kept) or REMOVED_ENVIRONMENT

    def message(self, text: str) -> str:
        """A sentence of nsys's: plain words and numbers stay, whatever else it quotes does not."""
        before, words = "", []
        for word in self._scrubber.text(text).split():
            odd = _SAFE_WORD.fullmatch(word) is None or _SENSITIVE.search(before) is not None
            words.append(HIDDEN if odd and not word.startswith(HIDDEN) and self._scrubber.found("output") else word)
            before = word
        return " ".join(words)

    def _harmless(self, value: str) -> bool:
        return _PLAIN_VALUE.fullmatch(value) is not None and _quietly(self._scrubber, value) == value

    def _command(self, value: str) -> str:
        if not re.search(r"[/\\]", value) or "home" in self._scrubber.keep:
            return self._scrubber.text(value)
        self._scrubber.counts["home"] += 1
        return self._scrubber.text(re.split(r"[/\\]", value)[-1])

    def _argument(self, word: str) -> str:
        if "argument" in self._scrubber.keep:
            return self._scrubber.text(word)
        option, equals, value = word.partition("=")
        if _OPTION.fullmatch(option if equals else word):
            self._option = option
            return f"{option}={self._value(option, value)}" if equals else word
        return self._value(self._option, word)

    def _value(self, option: str, value: str) -> str:
        if value == HIDDEN:
            return value
        if is_secret_name(option):
            return HIDDEN if self._scrubber.found("credential") else value
        if value.lower() in _SWITCH or _plain_number(value):
            return value
        file = re.split(r"[/\\]", value)[-1]
        if _MODEL.fullmatch(file):
            if file != value and not self._scrubber.found("home"):
                return value
            return self._scrubber.text(file)
        return HIDDEN if self._scrubber.found("argument") else value

    def _free(self, value: str) -> str:
        if _SAFE_WORD.fullmatch(value) or value == "Local (CLI)":
            return value
        return HIDDEN if self._scrubber.found("other") else value


def _quietly(scrubber: Scrubber, text: str) -> str:
    before = scrubber.counts.copy()
    cleaned = scrubber.text(text)
    scrubber.counts = before
    return cleaned


def _plain_number(value: str) -> bool:
    return _NUMBER.fullmatch(value) is not None and _DOTTED.search(value) is None


def _is(name: str, parts: tuple[str, ...]) -> bool:
    return any(part in name for part in parts)


def _ends(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.endswith((f":{part}", f"_{part}")) for part in parts)
