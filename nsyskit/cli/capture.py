"""``nsyskit capture``: run a program under nsys and keep everything in a run folder."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsyskit.errors import UsageError

if TYPE_CHECKING:
    from nsyskit.capture.config import CaptureConfig, LoadConfig
    from nsyskit.capture.outcome import Outcome
    from nsyskit.capture.ui import Ui
    from nsyskit.nsys import Nsys

_KINDS = ("server", "bench", "batched-bench", "cli", "completion", "perplexity", "rpc", "other")
_PROFILES = ("spans", "kernels", "cpu", "light")

_SECONDS = click.FloatRange(min=0, min_open=True)
_COUNT = click.IntRange(min=1)


@click.command("capture", context_settings={"allow_interspersed_args": False})
@click.argument("program", nargs=-1, type=click.UNPROCESSED, required=True, metavar="[--] PROGRAM [ARGS]...")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The run folder.  [default: nsyskit-runs/<time>-<program>-<model>]",
)
@click.option(
    "--profile",
    type=click.Choice(_PROFILES),
    default="kernels",
    show_default=True,
    help="spans: GPU busy and idle, undistorted. kernels: every graph node, distorts short tokens. "
    "cpu: samples and context switches. light: long runs. What each costs is not measured yet.",
)
@click.option(
    "--fused",
    is_flag=True,
    help="Untraced, graph-level and node-level runs of the same load, one after "
    "another, and how much tracing distorted them.",
)
@click.option("--repeat", type=_COUNT, default=1, metavar="N", help="Capture N times, each into a folder of its own.")
@click.option("--kind", type=click.Choice(_KINDS), help="What PROGRAM is, where its name does not tell.")
@click.option("--requests", type=_COUNT, metavar="N", help="Send N requests.  [default: 8, unless --duration]")
@click.option("--concurrency", type=_COUNT, default=1, show_default=True, metavar="C", help="Requests in flight.")
@click.option("--rate", type=_SECONDS, metavar="R", help="R requests a second (Poisson), however many are in flight.")
@click.option("--duration", type=_SECONDS, metavar="S", help="Send requests for S seconds; with --no-load, the window.")
@click.option("--prompt-tokens", type=_COUNT, default=128, show_default=True, metavar="P", help="Prompt length.")
@click.option("--max-tokens", type=_COUNT, default=64, show_default=True, metavar="T", help="New tokens a request.")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    metavar="FILE.jsonl",
    help='Prompts to send instead of made-up ones: {"prompt": "…"} or {"messages": […]} a line.',
)
@click.option(
    "--endpoint",
    type=click.Choice(["completion", "completions", "chat"]),
    default="completion",
    show_default=True,
    help="/completion, /v1/completions or /v1/chat/completions.",
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    metavar="N",
    help="Requests before the window.  [default: 2 or C, whichever is more]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed is the same load.")
@click.option("--request-timeout", type=_SECONDS, default=600.0, show_default=True, metavar="S", help="Of one request.")
@click.option(
    "--api-key",
    envvar="NSYSKIT_API_KEY",
    metavar="KEY",
    help="The server's key for the load, where its own arguments do not tell. Never stored.",
)
@click.option("--no-load", is_flag=True, help="Send nothing: capture your own traffic until Ctrl-C or --duration.")
@click.option(
    "--ready-timeout",
    type=_SECONDS,
    default=300.0,
    show_default=True,
    metavar="S",
    help="How long the server may take to be healthy.",
)
@click.option(
    "--stop-timeout",
    type=_SECONDS,
    default=20.0,
    show_default=True,
    metavar="S",
    help="How long the program may take to end after SIGTERM; then SIGKILL.",
)
@click.option(
    "--beside",
    multiple=True,
    metavar="COMMAND",
    help='Also start and capture this, before PROGRAM: --beside "rpc-server -p 50052".',
)
@click.option(
    "--nvml-hz", type=click.FloatRange(min=10, max=100), default=20.0, show_default=True, help="GPU samples a second."
)
@click.option("--no-nvml", is_flag=True, help="No GPU samples.")
@click.option("--no-export", is_flag=True, help="Leave the rep file as it is.")
@click.option("--redact", is_flag=True, help="Keep of the trace only its cleaned export; delete the rep file.")
@click.option("--session", metavar="NAME", help="Name of the nsys session.  [default: a new one]")
@click.option(
    "--nsys-arg", "nsys_args", multiple=True, metavar="ARG", help="Hand ARG through to nsys (--nsys-arg=--x=y)."
)
@click.option(
    "--nsys",
    "nsys_path",
    type=click.Path(path_type=Path),
    envvar="NSYSKIT_NSYS",
    metavar="PATH",
    help="The nsys to capture with.",
)
@click.option("--dry-run", is_flag=True, help="Print every command and run none.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no notes on stderr.")
def command(program: tuple[str, ...], **options: Any) -> None:  # fmt: skip
    """Run PROGRAM under nsys and keep the trace, its export, logs, requests and GPU samples in a run folder.

    A llama-server is captured while a load runs, or your own traffic; any other program from start to end. What stands
    after PROGRAM is PROGRAM's own. Prints the run folder.

    Exit code: 130 when interrupted; else PROGRAM's own where it is not 0; else 2 to 7 when the capture failed; else 0.

    \b
    Examples:
      nsyskit capture --requests 32 --concurrency 4 -- llama-server -m model.gguf -ngl 99 -np 4
      nsyskit capture --profile spans llama-bench -m model.gguf -p 512 -n 128
      nsyskit capture --redact llama-bench -m model.gguf
      nsyskit capture --no-load -- llama-server -m model.gguf --port 8080
    """  # noqa: D301 - click wants the backspace itself
    nsys, config = _prepare(program, options)
    if options["dry_run"]:
        click.echo(_dry_run(config, nsys, options))
        return
    outcome = _run(config, nsys, options, _ui(quiet=options["quiet"]))
    click.echo(_shown(outcome.folder))
    if not options["quiet"]:
        from nsyskit.capture.summary import summary_lines

        for line in summary_lines(outcome.summary):
            click.echo(line, err=True)
    if outcome.message:
        click.echo(f"nsyskit: {' '.join(outcome.message.split())}", err=True)
    sys.exit(outcome.exit_code)


def _prepare(program: tuple[str, ...], options: dict[str, Any]) -> tuple[Nsys, CaptureConfig]:
    import os

    from nsyskit.capture.build import build_config
    from nsyskit.capture.config import program_kind
    from nsyskit.capture.group import FUSED_ARMS
    from nsyskit.capture.profiles import PROFILES, check_profile
    from nsyskit.nsys import find_nsys

    kind = options["kind"] or program_kind(program)
    load = _load(options) if kind == "server" else None
    _check(options, kind=kind)
    config = build_config(
        program,
        kind=kind,
        folder=options["folder"],
        session=options["session"],
        profile=options["profile"],
        load=load,
        nsys_args=options["nsys_args"],
        beside=[shlex.split(words) for words in options["beside"]],
        api_key=options["api_key"],
        wait_s=options["duration"] if options["no_load"] else None,
        ready_timeout_s=options["ready_timeout"],
        stop_timeout_s=options["stop_timeout"],
        nvml_hz=0.0 if options["no_nvml"] else options["nvml_hz"],
        export=not options["no_export"],
        redact=options["redact"],
    )
    nsys = find_nsys(options["nsys_path"])
    wanted = (
        [profile for profile in FUSED_ARMS.values() if profile] if options["fused"] else [PROFILES[options["profile"]]]
    )
    for profile in wanted:
        check_profile(profile, nsys, os.environ)
    return nsys, config


def _check(options: dict[str, Any], *, kind: str) -> None:
    """Refuse options that do not fit together.

    Raises:
        UsageError: with what to leave out.
    """
    if options["fused"] and (options["repeat"] > 1 or options["no_load"]):
        raise UsageError("--fused needs the same load three times", hint="leave out --repeat and --no-load")
    if options["redact"] and options["no_export"]:
        raise UsageError("--redact cleans the export; a rep file cannot be cleaned", hint="leave out --no-export")
    if options["no_load"] and (options["requests"] or options["rate"] or options["prompts"]):
        raise UsageError("--no-load sends nothing", hint="leave out --requests, --rate and --prompts")
    if options["no_load"] and kind != "server":
        raise UsageError("--no-load is for llama-server", hint="leave it out, or name the program with --kind server")


def _load(options: dict[str, Any]) -> LoadConfig | None:
    from nsyskit.capture.config import LoadConfig

    if options["no_load"]:
        return None
    requests = options["requests"] or (None if options["duration"] else 8)
    warmup = options["warmup"]
    return LoadConfig(
        requests=requests,
        duration_s=options["duration"],
        concurrency=options["concurrency"],
        rate=options["rate"],
        prompt_tokens=options["prompt_tokens"],
        max_tokens=options["max_tokens"],
        prompts=options["prompts"],
        endpoint=options["endpoint"],
        warmup=max(2, options["concurrency"]) if warmup is None else warmup,
        seed=options["seed"],
        timeout_s=options["request_timeout"],
    )


def _run(config: CaptureConfig, nsys: Nsys, options: dict[str, Any], ui: Ui) -> Outcome:
    from nsyskit.capture.capture import capture
    from nsyskit.capture.group import fused, repeat

    if options["fused"]:
        return fused(config, nsys, ui=ui)
    if options["repeat"] > 1:
        return repeat(config, nsys, times=options["repeat"], ui=ui)
    return capture(config, nsys, ui=ui)


def _dry_run(config: CaptureConfig, nsys: Nsys, options: dict[str, Any]) -> str:
    from nsyskit.capture.group import arms_of
    from nsyskit.capture.plan import build_plan, shell_lines

    configs = arms_of(config, fused=options["fused"], times=options["repeat"])
    return "\n\n".join(shell_lines(build_plan(arm, nsys)) for arm in configs)


def _ui(*, quiet: bool) -> Ui:
    if quiet:
        from nsyskit.capture.ui import Silent

        return Silent()
    from nsyskit.cli.progress import Progress

    return Progress()


def _shown(folder: Path) -> str:
    """A folder below this one by its short name, which is what people paste."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)
