"""What must never reach a run folder: keys and tokens on command lines, in the environment, in logs."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HIDDEN = "(hidden)"
# --max-tokens, --prompt-tokens, --special and --key-file are no secrets: the name must end in the secret's kind.
_SECRET_OPTION = re.compile(r"-{1,2}(?:[\w-]*-)?(?:api-?key|token|secret|password|passphrase)|-hft", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|COOKIE|AUTH)(?:_|$)|APIKEY", re.IGNORECASE
)
_RELEVANT = re.compile(
    r"(?:GGML|LLAMA|CUDA|CUBLAS|NCCL|OMP|KMP|GOMP|NVIDIA|NSYSKIT)_\w+|(?:LD_LIBRARY_PATH|LD_PRELOAD|MODEL_ENDPOINT)"
)
_URL_USER = re.compile(r"(?<=://)[^/@\s]+@")


def is_secret_variable(name: str) -> bool:
    """Whether a variable's name promises a secret (``HF_TOKEN``, ``LLAMA_API_KEY``); names of files are none."""
    return _SECRET_VARIABLE.search(name) is not None and not name.upper().endswith(("_FILE", "_PATH", "_DIR"))


def relevant_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The switches that matter to llama.cpp and CUDA, without secrets."""
    return {
        name: _URL_USER.sub(f"{HIDDEN}@", value)
        for name, value in sorted(environment.items())
        if _RELEVANT.fullmatch(name) and not is_secret_variable(name)
    }


def hide_secrets(argv: Sequence[str]) -> tuple[str, ...]:
    """A command line with the values of secret options, secret assignments and URL users hidden."""
    shown: list[str] = []
    hide_next = False
    for word in argv:
        name, equals, _ = word.partition("=")
        if hide_next:
            shown.append(HIDDEN)
        elif equals and (_SECRET_OPTION.fullmatch(name) or is_secret_variable(name)):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(_URL_USER.sub(f"{HIDDEN}@", word))
        hide_next = not hide_next and not equals and _SECRET_OPTION.fullmatch(word) is not None
    return tuple(shown)


def secret_values(argv: Sequence[str], environment: Mapping[str, str]) -> frozenset[str]:
    """The secrets themselves, to be struck from logs. Words shorter than six letters would strike too much."""
    values = {value for name, value in environment.items() if is_secret_variable(name)}
    hide_next = False
    for word in argv:
        name, equals, value = word.partition("=")
        if hide_next:
            values |= {word, *word.split(",")}
        elif equals and (_SECRET_OPTION.fullmatch(name) or is_secret_variable(name)):
            values |= {value, *value.split(",")}
        hide_next = not hide_next and not equals and _SECRET_OPTION.fullmatch(word) is not None
    return frozenset(value for value in values if len(value) >= 6)


def strike(files: Iterable[Path], values: Iterable[str]) -> None:
    """Replace secrets in logs that a program wrote."""
    needles = [value.encode() for value in values]
    for file in files:
        with suppress(OSError):
            content = file.read_bytes()
            cleaned = content
            for needle in needles:
                cleaned = cleaned.replace(needle, HIDDEN.encode())
            if cleaned != content:
                file.write_bytes(cleaned)


def blank_own_process() -> None:
    """Overwrite the secrets in what ``/proc/self`` shows as command line and environment; ``os.environ`` keeps them.

    nsys reads both of the traced program's parents, nsyskit's among them, into the trace.
    """
    with suppress(OSError, ValueError, IndexError):
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        # arg_start, arg_end, env_start, env_end: fields 48 to 51 of proc(5), of which three came before
        arguments, environment = (int(stat[45]), int(stat[46])), (int(stat[47]), int(stat[48]))
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            for (begin, end), blank in ((arguments, blanked_arguments), (environment, blanked_environment)):
                memory.seek(begin)
                block = memory.read(end - begin)
                memory.seek(begin)
                memory.write(blank(block))


def blanked_environment(block: bytes) -> bytes:
    """A block of ``NAME=value`` ended by zeros, as long as before, with the values of secrets overwritten."""
    variables = []
    for variable in block.split(b"\0"):
        name, equals, value = variable.partition(b"=")
        secret = is_secret_variable(name.decode(errors="replace"))
        variables.append(name + equals + (b"x" * len(value) if secret else value))
    return b"\0".join(variables)


def blanked_arguments(block: bytes) -> bytes:
    """A block of arguments ended by zeros, as long as before, with secrets overwritten."""
    words = [word.decode(errors="surrogateescape") for word in block.split(b"\0")]
    secrets = [value.encode(errors="surrogateescape") for value in secret_values(words, {})]
    for secret in sorted(secrets, key=len, reverse=True):
        block = block.replace(secret, b"x" * len(secret))
    return block


def program_environment(
    environment: Mapping[str, str] | None = None, *, llama: bool, downloads: bool
) -> dict[str, str]:
    """The environment to run nsys and the program in: nsys writes all of it into the trace.

    A llama.cpp tool needs no secret but a download token, and only when it downloads; other programs keep theirs.
    """
    source = os.environ if environment is None else environment
    needed = {"HF_TOKEN"} if downloads else set()
    return {
        name: value for name, value in source.items() if not llama or name in needed or not is_secret_variable(name)
    }
