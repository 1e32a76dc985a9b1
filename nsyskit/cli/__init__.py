"""The command line: parse, call one library function, echo.

Commands are imported when they are run, so that ``nsyskit --help`` needs neither polars nor plotly.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import Any, Final

import click

from nsyskit import __version__
from nsyskit.errors import NsyskitError
from nsyskit.units import printable

_LONGEST_LINE: Final = 900
_SWITCH_S: Final = 0.0005
"""Python's own choice is ten times as long."""
_MALLOPT: Final = {-1: 1 << 30, -3: 1 << 25}
"""``mallopt`` of glibc: M_TRIM_THRESHOLD, and M_MMAP_THRESHOLD at its largest."""

COMMANDS: Final[dict[str, str]] = {
    "analyze": "Numbers, verdict and report of one trace.",
    "cache": "What nsyskit keeps in your cache directory; clear it.",
    "capture": "Run a llama.cpp program under nsys: a steady, loaded window.",
    "compare": "What differs per token between two runs, how surely, and why; gates for CI.",
    "doctor": "What on this machine would make a capture fail or lie.",
    "export": "Write a trace as SQLite, Perfetto or Parquet.",
    "fleet": "Many traces at once: distributions, and which host, rank or trace differs.",
    "history": "Keep runs in one SQLite file; list, tag and show them, plot a number over builds.",
    "info": "What a trace holds: versions, sources, GPUs, programs.",
    "kernels": "Explain a ggml kernel by its name, or list the catalogue.",
    "model": "Facts of a GGUF model: sizes, bytes per token, KV cache.",
    "ranks": "Several reports of one run on one clock: who idles while others work.",
    "recipes": "List and run recipes of nsys: nsyskit's for llama.cpp, and NVIDIA's.",
    "redact": "A copy of a trace without secrets, to show to others.",
    "report": "What bounds a trace, as one HTML file to look at.",
    "sweep": "Run llama-bench over every combination of settings; resumable, kept in the history.",
    "timeline": "A window of a trace, event by event, as one HTML file.",
}
"""Command -> its line in the overview; the command itself is ``nsyskit.cli.NAME:command``."""


class LazyGroup(click.Group):
    """Imports a command's module when the command is asked for, and turns the family of errors into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"nsyskit.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NsyskitError as error:
            click.echo(f"nsyskit: {one_line(error)}", err=True)
            ctx.exit(error.exit_code)


def one_line(error: NsyskitError) -> str:
    """What went wrong and what to do next, as one line that a terminal can be trusted with.

    Messages quote damaged input: of a long one the middle goes, its hint stays.
    """
    said = printable(" ".join(str(error).split()))
    return said if len(said) <= _LONGEST_LINE else f"{said[: _LONGEST_LINE * 2 // 3]} … {said[-_LONGEST_LINE // 3 :]}"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nsyskit")
def cli() -> None:
    """Where each token's time goes: Nsight Systems traces of llama.cpp, explained to the nanosecond."""


def _speak_utf8() -> None:
    """Whatever the locale: a file or a pipe gets UTF-8, a terminal what it can show of it."""
    if isinstance(sys.stdout, TextIOWrapper):
        encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="replace")


def _keep_memory() -> None:
    """A process that ends soon gains nothing by handing pages back, and touching others for the first time costs most.

    What one thread has freed, small or large, is to serve the next: polars' allocator gets one arena for all, read when
    polars is loaded, and numpy's trims nothing. Huge pages take a tenth off the system's time (``bench/README.md``).
    """
    os.environ.setdefault(
        "_RJEM_MALLOC_CONF", "narenas:1,oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:0,thp:always"
    )
    import ctypes

    with suppress(OSError, AttributeError):  # no glibc
        allocator = ctypes.CDLL(None)
        for parameter, value in _MALLOPT.items():
            allocator.mallopt(parameter, value)


def main() -> None:
    """Entry point of the console script."""
    _keep_memory()
    # Threads that work on columns need the interpreter only for moments; one that computes in Python must not keep them
    # from it for long.
    sys.setswitchinterval(_SWITCH_S)
    _speak_utf8()
    try:
        cli()
    except BrokenPipeError:  # `nsyskit … | head`
        sys.stderr.close()
        sys.exit(1)
