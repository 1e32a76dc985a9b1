"""The commands of a capture, as data: shown by ``--dry-run``, run by the session."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nsyskit.capture.config import ENDPOINTS, CaptureConfig
from nsyskit.nsys import Nsys, export_argv, options

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a capture does: a command, or what nsyskit does itself (``argv`` empty)."""

    purpose: str
    argv: tuple[str, ...] = ()
    background: bool = False


def build_plan(config: CaptureConfig, nsys: Nsys | None) -> tuple[Step, ...]:
    """Every step of a capture in order."""
    if config.profile is None or nsys is None:
        return (Step("run without nsys", config.program), *_load_steps(config))
    if config.kind == "server":
        return (*_beside_steps(config, nsys), *_server_steps(config, nsys), *_export_steps(config, nsys))
    return (
        *_beside_steps(config, nsys),
        Step("run under nsys", profile_argv(config, nsys)),
        *_export_steps(config, nsys),
    )


def launch_argv(config: CaptureConfig, nsys: Nsys) -> tuple[str, ...]:
    """``nsys launch``: the program, ready to be captured."""
    profile = _profile_options(config)[0]
    extra = [word for word in config.nsys_args if _belongs_to_launch(word, nsys)]
    return (str(nsys.path), "launch", f"--session-new={config.session}", *profile, *extra, *config.program)


def start_argv(config: CaptureConfig, nsys: Nsys) -> tuple[str, ...]:
    """``nsys start``: the window begins."""
    profile = _profile_options(config)[1]
    extra = [word for word in config.nsys_args if not _belongs_to_launch(word, nsys)]
    return (
        str(nsys.path), "start", f"--session={config.session}", _output(config), "--force-overwrite=true",
        *profile, *extra,
    )  # fmt: skip


def stop_argv(config: CaptureConfig, nsys: Nsys) -> tuple[str, ...]:
    """``nsys stop``: the window ends, the rep file is written, the program goes on."""
    return (str(nsys.path), "stop", f"--session={config.session}")


def shutdown_argv(config: CaptureConfig, nsys: Nsys) -> tuple[str, ...]:
    """``nsys shutdown``: for a session that outlived its program."""
    return (str(nsys.path), "shutdown", f"--session={config.session}", "--kill=sigkill")


def profile_argv(config: CaptureConfig, nsys: Nsys) -> tuple[str, ...]:
    """``nsys profile``: the program's whole life."""
    launch, start = _profile_options(config)
    return (
        str(nsys.path), "profile", f"--session-new={config.session}", _output(config), "--force-overwrite=true",
        *launch, *start, *config.nsys_args, *config.program,
    )  # fmt: skip


def shell_lines(steps: Iterable[Step]) -> str:
    """Steps as a shell script: what nsyskit does itself is a comment."""
    lines: list[str] = []
    for step in steps:
        lines.append(f"# {step.purpose}")
        if step.argv:
            lines.append(shlex.join(step.argv) + (" &" if step.background else ""))
    return "\n".join(lines)


def _server_steps(config: CaptureConfig, nsys: Nsys) -> tuple[Step, ...]:
    assert config.address is not None  # noqa: S101  complete_program gives every server one
    warmup, load = _load_steps(config)
    keys = (Step(f"the API keys, one a line, into {config.key_file}, only for this user"),) if config.keys else ()
    return (
        *keys,
        Step("the server, ready to be captured", launch_argv(config, nsys), background=True),
        Step(f"wait until GET {config.address.url}/health answers 200, at most {config.ready_timeout_s:g} s"),
        warmup,
        Step("the window begins", start_argv(config, nsys)),
        load,
        Step("the window ends; the server goes on", stop_argv(config, nsys)),
        Step(
            f"SIGTERM to the server, SIGKILL after {config.stop_timeout_s:g} s; if the session is left over:",
            shutdown_argv(config, nsys),
        ),
    )


def _load_steps(config: CaptureConfig) -> tuple[Step, ...]:
    if config.kind != "server" or config.address is None:
        return ()
    load = config.load
    if load is None:
        until = f"for {config.wait_s:g} s" if config.wait_s is not None else "until Ctrl-C"
        return Step("no warm-up"), Step(f"wait for your own traffic on {config.address.url} {until}")
    count = f"{load.requests} requests" if load.requests is not None else "requests"
    span = f" for {load.duration_s:g} s" if load.duration_s is not None else ""
    loop = f"{load.rate:g} a second (Poisson)" if load.rate is not None else f"{load.concurrency} at a time"
    prompts = f"prompts of {load.prompts}" if load.prompts else f"prompts of about {load.prompt_tokens} tokens"
    where = f"POST {config.address.url}{ENDPOINTS[load.endpoint]}"
    return (
        Step(f"warm up: {load.warmup} requests"),
        Step(f"load: {count}{span}, {loop}, {prompts}, {load.max_tokens} new tokens each, {where}"),
    )


def _beside_steps(config: CaptureConfig, nsys: Nsys) -> tuple[Step, ...]:
    return tuple(
        Step("beside it", profile_argv(beside_config(config, index), nsys), background=True)
        for index in range(len(config.beside))
    )


def beside_config(config: CaptureConfig, index: int) -> CaptureConfig:
    """The capture of a program beside another one."""
    return replace(
        config, program=config.beside[index], kind="rpc", folder=config.folder / f"beside-{index + 1}",
        session=f"{config.session}-b{index + 1}", address=None, load=None, nvml_hz=0.0, beside=(),
    )  # fmt: skip


def _export_steps(config: CaptureConfig, nsys: Nsys) -> tuple[Step, ...]:
    if not config.export:
        return ()
    rep, sqlite = config.output.with_suffix(".nsys-rep"), config.output.with_suffix(".sqlite")
    return (Step("export", export_argv(nsys, rep, sqlite, kind="sqlite")),)


def _profile_options(config: CaptureConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The profile's options for launch and start, without those that the user gave another value."""
    assert config.profile is not None  # noqa: S101  without a profile there is no nsys
    given = {word.partition("=")[0] for word in config.nsys_args}
    launch = tuple(word for word in config.profile.launch if word.partition("=")[0] not in given)
    start = tuple(word for word in config.profile.start if word.partition("=")[0] not in given)
    return launch, start


def _belongs_to_launch(word: str, nsys: Nsys) -> bool:
    return word.partition("=")[0] in options(nsys, "launch")


def _output(config: CaptureConfig) -> str:
    return f"--output={str(config.output).replace('%', '%%')}"  # nsys would expand %p, %h and %n
