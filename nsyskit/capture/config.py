"""What a capture was asked to do, as one frozen value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal

from nsyskit.capture.address import Address, option, server_address
from nsyskit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from nsyskit.capture.profiles import Profile

ProgramKind = Literal["server", "bench", "batched-bench", "cli", "completion", "perplexity", "rpc", "other"]
Endpoint = Literal["completion", "completions", "chat"]

ENDPOINTS: Mapping[Endpoint, str] = {
    "completion": "/completion",
    "completions": "/v1/completions",
    "chat": "/v1/chat/completions",
}
_KINDS: Mapping[str, ProgramKind] = {
    "llama-server": "server",
    "llama-bench": "bench",
    "llama-batched-bench": "batched-bench",
    "llama-cli": "cli",
    "llama-completion": "completion",
    "llama-perplexity": "perplexity",
    "rpc-server": "rpc",
    "llama-rpc-server": "rpc",
    "ggml-rpc-server": "rpc",
}
# Programs that run another one, which stands later on the same line.
_WRAPPERS = {"env", "numactl", "taskset", "nice", "ionice", "chrt", "stdbuf", "setarch", "time", "timeout", "chroot"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """The load on a server.

    Attributes:
        requests: how many, None for as many as ``duration_s`` allows.
        duration_s: for how long, None for as long as ``requests`` take.
        concurrency: requests in flight in the closed loop.
        rate: requests a second of an open loop (Poisson); None is the closed loop.
        prompt_tokens: about how long the made-up prompts are, by the server's own tokenizer.
        max_tokens: how many tokens each answer has.
        prompts: a file of prompts, one JSON object (or string) a line, instead of made-up ones.
        endpoint: ``/completion``, ``/v1/completions`` or ``/v1/chat/completions``.
        warmup: requests before the window.
        seed: of prompts and arrival times; the same seed is the same load.
        timeout_s: of one request.
    """

    requests: int | None = 8
    duration_s: float | None = None
    concurrency: int = 1
    rate: float | None = None
    prompt_tokens: int = 128
    max_tokens: int = 64
    prompts: Path | None = None
    endpoint: Endpoint = "completion"
    warmup: int = 2
    seed: int = 0
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureConfig:
    """A capture of one program.

    Attributes:
        program: the command line to run, with what the capture adds to it.
        kind: which of llama.cpp's tools it is.
        folder: the run folder to make.
        session: the nsys session's name, unlike that of any other capture.
        profile: what to ask of nsys; None runs the program without nsys.
        nsys_args: options handed through to nsys.
        address: where the server listens; None unless ``kind`` is ``server``.
        load: the load on it; None waits for the user's own traffic.
        wait_s: with no load: the length of the window, None until Ctrl-C.
        ready_timeout_s: how long the server may take to be healthy.
        stop_timeout_s: how long the program may take to end after SIGTERM.
        nvml_hz: samples a second of the GPUs; 0 for none.
        export: whether to export the rep file to SQLite.
        beside: programs to start before and to capture beside this one, such as rpc-servers.
        keys: the server's API keys, which reach it in ``key_file``: a command line would be in the trace.
    """

    program: tuple[str, ...]
    kind: ProgramKind
    folder: Path
    session: str
    profile: Profile | None
    nsys_args: tuple[str, ...] = ()
    address: Address | None = None
    load: LoadConfig | None = None
    wait_s: float | None = None
    ready_timeout_s: float = 300.0
    stop_timeout_s: float = 20.0
    nvml_hz: float = 20.0
    export: bool = True
    redact: bool = False
    beside: tuple[tuple[str, ...], ...] = ()
    keys: tuple[str, ...] = field(default=(), repr=False)
    key_file: Path | None = None

    @property
    def output(self) -> Path:
        """The rep file, without its ending."""
        return self.folder / "trace"


def find_tool(program: Sequence[str]) -> int:
    """Where on a command line the program itself stands, behind ``numactl``, ``env`` and the like."""
    if not program or PurePath(program[0]).name not in _WRAPPERS:
        return 0
    return next((place for place, word in enumerate(program) if PurePath(word).name in _KINDS), 0)


def program_kind(program: Sequence[str]) -> ProgramKind:
    """Which of llama.cpp's tools a command line runs."""
    return _KINDS.get(PurePath(program[find_tool(program)]).name, "other") if program else "other"


def complete_program(
    program: Sequence[str], kind: ProgramKind, environment: Mapping[str, str]
) -> tuple[tuple[str, ...], Address | None]:
    """The command line with what a capture needs added where the user chose nothing, and the server's address.

    llama-bench and llama-batched-bench print JSON lines; llama-server gets a free port.

    Raises:
        UsageError: no program, or an address that cannot be used.
    """
    if not program:
        raise UsageError("no program to run", hint="write it after the options: nsyskit capture -- llama-server -m …")
    words = tuple(program)
    if kind == "server":
        address, named = server_address(words, environment)
        return (words if named else (*words, "--port", str(address.port))), address
    if kind == "bench" and option(words, "-o", "--output") is None:
        return (*words, "-o", "jsonl"), None
    if kind == "batched-bench" and option(words, "--output-format") is None:
        return (*words, "--output-format", "jsonl"), None
    return words, None


def move_keys(
    program: Sequence[str], environment: Mapping[str, str], key_file: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A llama-server's command line without its API keys, and the keys: they go into a file beside any trace."""
    words: list[str] = []
    keys: list[str] = []
    following = False
    for word in program:
        name, equals, value = word.partition("=")
        if following or (name == "--api-key" and equals):
            keys += (word if following else value).split(",")
            following = False
        elif word == "--api-key":
            following = True
        else:
            words.append(word)
    if not keys and environment.get("LLAMA_API_KEY"):
        keys = environment["LLAMA_API_KEY"].split(",")
    return (*words, *(("--api-key-file", str(key_file)) if keys else ())), tuple(keys)


def model_path(program: Sequence[str]) -> str | None:
    """The model that a llama.cpp command line names, a file or a repository."""
    return option(program, "-m", "--model") or option(program, "-hf", "-hfr", "--hf-repo")


def default_folder(program: Sequence[str], now: datetime) -> Path:
    """``nsyskit-runs/<time>-<program>-<model>``."""
    name = PurePath(program[find_tool(program)]).name
    model = model_path(program)
    parts = [now.strftime("%Y%m%d-%H%M%S"), name, *([PurePath(model).stem] if model else [])]
    return Path("nsyskit-runs") / "-".join(re.sub(r"[^\w.+]+", "-", part).strip("-") for part in parts)
