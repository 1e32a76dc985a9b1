"""``nsyskit fleet``."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nsyskit.cli.options import emit, examples, nsys_option, quiet_option, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nsyskit.fleet.fleet import Progress, Tell
    from nsyskit.fleet.result import FleetResult

_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class Size(click.ParamType):  # type: ignore[type-arg]  # no generic before click 8.4
    """``4GB``, ``800MB``."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?B|)", str(value).strip())
        if match is None or not float(match[1]):
            self.fail(f"{value!r} is no size; write a number with MB or GB, such as 4GB", param, ctx)
        return int(float(match[1]) * _UNITS[match[2]])


@examples("""
nsyskit fleet nsyskit-runs -o fleet
nsyskit fleet 'traces/*/trace.sqlite' more/ -o fleet --workers 8 --memory 4GB
nsyskit fleet traces.csv -o fleet --scheduler dask --dask-address tcp://head:8786
nsyskit fleet s3://bucket/traces -o fleet
""")
@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="DIR|GLOB|MANIFEST|URL...")
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True, metavar="OUT",
              help="The folder for results; that of an earlier run is continued.")  # fmt: skip
@click.option("--scheduler", type=click.Choice(["local", "processes", "dask"]), default="processes", show_default=True,
              help="Run in this process, in several, or on a Dask cluster.")  # fmt: skip
@click.option("--dask-address", metavar="tcp://HOST:PORT", help="The cluster's scheduler; default: workers of its own.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes on this machine; default: one a core.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of each worker.")
@click.option("--memory", type=Size(), default=0, help="What one trace may take; default: a worker's share of 80 %.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
              help="What one trace may take; default: no limit.")  # fmt: skip
@click.option("--host-names", is_flag=True, help="Show the hosts' own names instead of host-1, host-2, …")
@click.option("--format", "fmt", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--strict", is_flag=True, help="Exit with 1 when a trace failed.")
@nsys_option
@quiet_option
@click.pass_context
def command(
    ctx: click.Context, *, inputs: tuple[str, ...], out: Path, scheduler: str, dask_address: str | None,
    workers: int | None, threads: int, memory: int, timeout_s: float, host_names: bool, fmt: str, strict: bool,
    nsys: Path | None, quiet: bool,
) -> None:  # fmt: skip
    """Analyze many traces: distributions by host, GPU, build, model and flags, and what differs from its peers.

    A MANIFEST is a .txt with a path a line, or a .csv or .jsonl whose column `path` names the trace; other columns,
    such as host, rank or build, are facts about it. Writes fleet.html, fleet.json and Parquet files to OUT.
    Traces that cannot be read are listed and stop nothing; the same bytes under two names count once; after an
    interruption the same command goes on where it stopped.
    """
    from nsyskit.fleet.fleet import Options, run_fleet

    options = Options(
        scheduler=scheduler, dask_address=dask_address, workers=workers, memory=memory, timeout_s=timeout_s,
        threads=threads, host_names=host_names, nsys=str(nsys.absolute()) if nsys else None,
    )  # fmt: skip
    with _progress(quiet=quiet) as tell:
        result = run_fleet(inputs, out, options=options, tell=tell)
    write(result, out)
    if fmt == "json":
        from nsyskit.report.fleet_files import render_json

        emit(render_json(result), output=None, force=False)
    else:
        from nsyskit.report.fleet_text import render_text

        click.echo(f"{render_text(result)}\nReport: {out / 'fleet.html'}")
    ctx.exit(int(strict and bool(result.failed)))


def write(result: FleetResult, out: Path) -> None:
    """All files of a fleet; those of an earlier run of it are replaced, each as a whole."""
    from nsyskit.report.fleet_files import parquet_files, render_json
    from nsyskit.report.fleet_html import render_html

    files = parquet_files(result) | {
        "fleet.json": render_json(result).encode(), "fleet.html": render_html(result).encode()
    }  # fmt: skip
    for name, content in files.items():
        with whole_file(out / name, force=True) as file:
            file.write(content)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Tell]:
    """A bar where somebody watches; else the dashboard's link, notes, and nothing more."""
    if quiet:
        yield lambda _progress: None
    elif sys.stderr.isatty():
        with _bar() as tell:
            yield tell
    else:
        yield _told()


def _told() -> Tell:
    linked: set[str] = set()

    def tell(progress: Progress) -> None:
        if progress.dashboard and progress.dashboard not in linked:
            linked.add(progress.dashboard)
            click.echo(f"dashboard: {progress.dashboard}", err=True)
        if progress.note:
            click.echo(f"note: {progress.note}", err=True)

    return tell


@contextmanager
def _bar() -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[word]}"))  # fmt: skip
    console, told = Console(stderr=True), _told()
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("traces", total=None, word="")

        def tell(progress: object) -> None:
            from nsyskit.fleet.fleet import Progress as Said

            assert isinstance(progress, Said)  # noqa: S101 - rich has a Progress, too
            told(progress)
            words = [
                f"{progress.kept} known" if progress.kept else "",
                f"{progress.failed} failed" if progress.failed else "",
            ]
            bars.update(
                task, total=progress.of, completed=progress.done, word=", ".join(word for word in words if word)
            )

        yield tell
