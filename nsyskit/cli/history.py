"""``nsyskit history``: keep runs, list them, tag them, see how a number moves over builds."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nsyskit.cli.options import emit, examples, force_option, no_cache_option, nsys_option, quiet_option

if TYPE_CHECKING:
    from nsyskit.compare.sample import RunSample
    from nsyskit.history.history import History, StoredRun

db_option = click.option(
    "--db", type=click.Path(path_type=Path), envvar="NSYSKIT_DB",
    help="The history's SQLite file.  [default: in your data directory]",
)  # fmt: skip


@click.group()
def command() -> None:
    """Keep runs in one SQLite file: list, tag, show them, and plot a number over builds.

    Datasette shows the file as it is: runs, metrics, tags, and the cells and results of sweeps, with their links.
    """


examples("""
nsyskit history add trace.sqlite --tag main
nsyskit history list
nsyskit history trend decode.ms_per_token
nsyskit compare history:main new.sqlite
""")(command)


@examples("nsyskit history add trace.sqlite --tag main --tag v1")
@command.command("add")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--tag", "tags", multiple=True, help="A tag for them (repeatable).")
@db_option
@nsys_option
@no_cache_option
@quiet_option
def add(*, runs: tuple[Path, ...], tags: tuple[str, ...], db: Path | None, nsys: Path | None, quiet: bool) -> None:
    """Keep traces or run folders: their setup, numbers per token, and steps; never command lines or paths."""
    from nsyskit.cli.compare import Opener
    from nsyskit.units import printable

    opener = Opener(db=db, nsys=nsys, quiet=quiet, window=None)
    samples = opener.side([str(path) for path in runs])
    with open_history(db) as history:
        for sample in samples:
            number = history.add(stored(sample, tags))
            click.echo(printable(f"run {number}: {sample.name}{' tagged ' + ', '.join(tags) if tags else ''}"))


@examples("nsyskit history list --tag main")
@command.command("list")
@click.option("--tag", help="Only runs with this tag.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest so many.")
@click.option("--format", "fmt", type=click.Choice(["text", "json"]), default="text", show_default=True)
@db_option
def list_(*, tag: str | None, limit: int | None, fmt: str, db: Path | None) -> None:
    """List runs, newest last."""
    with open_history(db) as history:
        runs = history.runs(tag=tag, limit=limit)
    if fmt == "json":
        click.echo(json.dumps([_plain(run) for run in runs], indent=1, ensure_ascii=False))
        return
    from nsyskit.report.history_text import render_runs

    click.echo(render_runs(runs), nl=False)


@examples("nsyskit history show main --format json")
@command.command("show")
@click.argument("run")
@click.option("--format", "fmt", type=click.Choice(["text", "json"]), default="text", show_default=True)
@db_option
def show(*, run: str, fmt: str, db: Path | None) -> None:
    """Show RUN, a number or a tag (its newest run): setup and numbers per token."""
    with open_history(db) as history:
        found = history.run(run)
    if fmt == "json":
        click.echo(json.dumps(_plain(found), indent=1, ensure_ascii=False))
        return
    from nsyskit.report.history_text import render_run

    click.echo(render_run(found), nl=False)


@examples("""
nsyskit history trend decode.ms_per_token
nsyskit history trend decode.ledger.host --model tiny.gguf --html trend.html
""")
@command.command("trend")
@click.argument("metric")
@click.option("--tag", help="Only runs with this tag.")
@click.option("--model", help="Only runs of this model.")
@click.option("--gpu", help="Only runs on this GPU.")
@click.option("--format", "fmt", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--html", type=click.Path(path_type=Path), help="Also plot it in an HTML file.")
@force_option
@db_option
def trend(
    *, metric: str, tag: str | None, model: str | None, gpu: str | None, fmt: str, html: Path | None, force: bool,
    db: Path | None,
) -> None:  # fmt: skip
    """Show METRIC over all runs that have it, such as decode.ms_per_token or decode.ledger.host."""
    from dataclasses import asdict

    with open_history(db) as history:
        points = history.trend(metric, tag=tag, model=model, gpu=gpu)
    if fmt == "json":
        click.echo(json.dumps([asdict(point) for point in points], indent=1, ensure_ascii=False))
    else:
        from nsyskit.report.history_text import render_trend

        click.echo(render_trend(metric, points), nl=False)
    if html is not None:
        from nsyskit.report.history_html import render_trend as render_page

        emit(render_page(metric, points), output=html, force=force)


@examples("nsyskit history tag main 12 13 14 --move")
@command.command("tag")
@click.argument("tag")
@click.argument("runs", nargs=-1, required=True, type=int, metavar="RUN...")
@click.option("--move", is_flag=True, help="Take the tag from all other runs.")
@db_option
def tag_(*, tag: str, runs: tuple[int, ...], move: bool, db: Path | None) -> None:
    """Give runs a TAG, to be named as history:TAG."""
    with open_history(db) as history:
        history.tag(tag, runs, move=move)


def open_history(db: Path | None) -> History:
    """The named history, or the user's."""
    from nsyskit.history.history import History, default_path

    return History(db or default_path())


def tagged_samples(named: str, *, db: Path | None) -> list[RunSample]:
    """The runs of a tag (or the one of a number), as comparing needs them."""
    from nsyskit.compare.store import load_sample

    with open_history(db) as history:
        runs = [history.whole(run.id) for run in history.resolve(named)]
    return [load_sample(run.facts, run.steps) for run in runs]


def stored(sample: RunSample, tags: tuple[str, ...]) -> StoredRun:
    """A sample as the history keeps it."""
    from nsyskit.compare.store import facts, frame_bytes, metrics
    from nsyskit.history.history import StoredRun

    return StoredRun(
        name=sample.name,
        added=utc_now(),
        build=sample.setup.get("build"),
        model=sample.setup.get("model") or sample.setup.get("model_type"),
        gpu=sample.setup.get("gpu"),
        nsys=sample.setup.get("nsys"),
        facts=facts(sample),
        metrics=metrics(sample),
        steps={phase: frame_bytes(one) for phase, one in sample.phases.items()},
        tags=tags,
    )


def utc_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(run: StoredRun) -> dict[str, object]:
    return {
        "id": run.id, "name": run.name, "added": run.added, "build": run.build, "model": run.model, "gpu": run.gpu,
        "nsys": run.nsys, "tags": list(run.tags), "setup": run.facts.get("setup", {}),
        "metrics": {name: {"value": value, "unit": unit} for name, (value, unit) in run.metrics.items()},
    }  # fmt: skip
