"""``nsyskit sweep``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nsyskit.cli.history import db_option, open_history, utc_now
from nsyskit.cli.options import emit, examples, force_option, nsys_option, quiet_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nsyskit.history.history import Cell as KeptCell
    from nsyskit.history.history import History
    from nsyskit.sweep.bench import Outcome
    from nsyskit.sweep.grid import Axes, Cell
    from nsyskit.sweep.run import Progress
    from nsyskit.sweep.table import SweepTable

_CAPTURE_GRACE_S = 60.0  # a capture ends nsys and its program first
_FLAGS = (
    ("-t", "--threads", "CPU threads"), ("-b", "--batch-size", "batch sizes"), ("-ub", "--ubatch-size", "ubatch sizes"),
    ("-ngl", "--n-gpu-layers", "layers on the GPU"), ("-ncmoe", "--n-cpu-moe", "MoE layers on the CPU"),
    ("-fa", "--flash-attn", "flash attention"), ("-ctk", "--cache-type-k", "types of the K cache"),
    ("-ctv", "--cache-type-v", "types of the V cache"), ("-sm", "--split-mode", "split modes"),
    ("-ts", "--tensor-split", "splits"), ("-nkvo", "--no-kv-offload", "KV cache on the CPU"),
    ("-mg", "--main-gpu", "main GPUs"), ("-d", "--n-depth", "tokens in the cache before the test"),
)  # fmt: skip


def _flag_options(command: Callable[..., None]) -> Callable[..., None]:
    for short, long, what in reversed(_FLAGS):
        name = f"flag_{short.lstrip('-')}"
        command = click.option(short, long, name, metavar="VALUES", help=f"{what[0].upper()}{what[1:]}, as 1,2,4.")(
            command
        )
    return command


@examples("""
nsyskit sweep --model model.gguf -p 512 -n 128 -t 1,2,4,8 -fa 0,1
nsyskit sweep --model a.gguf --model b.gguf -ngl 99 --env GGML_CUDA_DISABLE_GRAPHS=0,1 --html sweep.html
nsyskit sweep --model q4.gguf --model q8.gguf --memory --ttft --ppl wiki.txt --html quants.html
nsyskit sweep --model model.gguf -t 4,8 --traced cells --html cells.html
nsyskit sweep --model model.gguf --build old/build --build new/build -d 0,4096
nsyskit sweep --read results.jsonl --read older.csv
""")
@click.command()
@click.option("--model", "models", multiple=True, type=click.Path(path_type=Path), help="A GGUF file (repeatable).")
@click.option("--build", "builds", multiple=True, type=click.Path(path_type=Path),
              help="A folder with llama-bench (repeatable); default: the one on the PATH.")  # fmt: skip
@click.option("-p", "--n-prompt", "n_prompt", default="512", show_default=True, metavar="VALUES", help="Prompt tokens.")
@click.option("-n", "--n-gen", "n_gen", default="128", show_default=True, metavar="VALUES", help="Generated tokens.")
@click.option("-r", "--repetitions", type=click.IntRange(min=1), default=3, show_default=True, help="Of each test.")
@_flag_options
@click.option("--env", "env", multiple=True, metavar="NAME=VALUES", help="A variable and its values; empty unsets it.")
@click.option("--rpc", metavar="SERVERS", help="RPC servers, passed to llama-bench.")
@click.option("--from-advice", type=click.Path(path_type=Path), metavar="TRACE",
              help="Run the experiments that `analyze -a advice` names for this trace, one at a time.")  # fmt: skip
@click.option("--traced", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Also capture one traced repetition of each cell, into this folder.")  # fmt: skip
@click.option("--memory", is_flag=True, help="Also tell VRAM by model, cache and compute (one more repetition).")
@click.option("--ttft", is_flag=True, help="Also measure the time to first token through llama-server.")
@click.option("--ppl", type=click.Path(path_type=Path), metavar="FILE", help="Also measure perplexity on this text.")
@click.option("--read", "read", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Take results that llama-bench wrote: json, jsonl, csv, sql, md (repeatable).")  # fmt: skip
@click.option("--name", help="The sweep's name in the history; default: made of its cells.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), help="Seconds a cell may take.")
@click.option("--retry-failed", is_flag=True, help="Run cells again that failed before.")
@click.option("--dry-run", is_flag=True, help="Show the command lines and run nothing.")
@click.option("--format", "fmt", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--html", type=click.Path(path_type=Path), help="Also write tables and plots as an HTML file.")
@force_option
@db_option
@nsys_option
@quiet_option
def command(
    *, models: tuple[Path, ...], builds: tuple[Path, ...], n_prompt: str, n_gen: str, repetitions: int,
    env: tuple[str, ...], rpc: str | None, from_advice: Path | None, traced: Path | None,
    memory: bool, ttft: bool, ppl: Path | None,
    read: tuple[Path, ...], name: str | None, timeout_s: float | None, retry_failed: bool, dry_run: bool, fmt: str,
    html: Path | None, force: bool, db: Path | None, nsys: Path | None, quiet: bool, **flags: str | None,
) -> None:  # fmt: skip
    """Run llama-bench over every combination of settings, keep the results, and go on where it stopped.

    Results go to the history. Cells that fail are recorded and skipped. The same command line again runs what is
    missing only.
    """
    from nsyskit.errors import UsageError
    from nsyskit.sweep.grid import cells, one_at_a_time, sweep_name

    if not models and not read:
        raise UsageError("there is nothing to sweep", hint="name --model FILE, or --read results of llama-bench")
    axes = _axes((models, builds), (n_prompt, n_gen, repetitions), env=env, rpc=rpc, flags=flags)
    found = cells(axes) if models else []
    if from_advice is not None:
        found, lacking = one_at_a_time(axes, _experiments(from_advice, models, nsys=nsys, quiet=quiet))
        for flag in lacking:
            click.echo(f"note: llama-bench has no {flag}; that experiment needs llama-server or llama-cli", err=True)
    if dry_run:
        _show(found)
        return
    name = name or (sweep_name(found) if found else read[0].name)
    with open_history(db) as history:
        from nsyskit.sweep.run import run_sweep
        from nsyskit.sweep.table import tabulate

        for at, file in enumerate(read):
            _keep_file(history, name, file, at)
        runner = _Runner(timeout_s=timeout_s, memory=memory, ttft=ttft, ppl=ppl)
        for build in axes.builds if found else ():
            runner.bench(build)  # a build without llama-bench is told before anything runs
        summary = run_sweep(
            name, found, history=history, run=runner.run, now=utc_now, tell=_teller(quiet=quiet),
            retry_failed=retry_failed, whole=runner.is_whole,
        )  # fmt: skip
        if traced is not None:
            _trace_cells(history, name, found, runner, traced, quiet=quiet)
        table = tabulate(history.cells(name))
    if found and not quiet:
        told = f"{summary.ran} ran, {summary.failed} failed, {summary.skipped} known before"
        click.echo(f"{name}: {told}", err=True)
    _emit(name, table, fmt=fmt, html=html, force=force)


def _axes(
    files: tuple[Sequence[Path], Sequence[Path]], tests: tuple[str, str, int], *, env: Sequence[str], rpc: str | None,
    flags: dict[str, str | None],
) -> Axes:  # fmt: skip
    from nsyskit.sweep.grid import Axes, Tests, parse_env, parse_values

    (models, builds), (n_prompt, n_gen, repetitions) = files, tests
    return Axes(
        models=tuple(models),
        builds=tuple(builds) or (None,),
        flags={f"-{key.removeprefix('flag_')}": parse_values(value) for key, value in flags.items() if value},
        env=dict(parse_env(one) for one in env),
        rpc=rpc,
        tests=Tests(parse_values(n_prompt), parse_values(n_gen), repetitions),
    )


class _Runner:
    """Runs cells: llama-bench, then what else is asked for; the first that fails ends a cell."""

    def __init__(self, *, timeout_s: float | None, memory: bool, ttft: bool, ppl: Path | None) -> None:
        self._timeout_s, self._memory, self._ttft, self._ppl = timeout_s, memory, ttft, ppl

    def bench(self, build: Path | None) -> list[str]:
        from nsyskit.sweep.bench import find_bench

        return find_bench(build)

    def is_whole(self, cell: KeptCell) -> bool:
        """Whether a cell of the history holds all that is asked for."""
        labels = {str(one["label"]) for one in cell.results}
        return (
            (not self._memory or any("vram_bytes" in one for one in cell.results))
            and (not self._ttft or any(label.startswith("ttft") for label in labels))
            and (self._ppl is None or "ppl" in labels)
        )

    def run(self, cell: Cell) -> Outcome:
        from nsyskit.sweep.bench import Outcome, run_cell, with_kv

        outcome = with_kv(cell, run_cell(cell, self.bench(cell.build), timeout_s=self._timeout_s))
        for measure in (self._with_memory, self._with_ttft, self._with_perplexity):
            if outcome.error is None:
                outcome = measure(cell, outcome)
        return Outcome(outcome.results, outcome.error)

    def _with_memory(self, cell: Cell, outcome: Outcome) -> Outcome:
        from nsyskit.sweep.bench import with_memory

        if not self._memory:
            return outcome
        return with_memory(cell, outcome, self.bench(cell.build), timeout_s=self._timeout_s)

    def _with_ttft(self, cell: Cell, outcome: Outcome) -> Outcome:
        from nsyskit.sweep.bench import find_bench
        from nsyskit.sweep.ttft import run_ttft

        if not self._ttft:
            return outcome
        program = find_bench(cell.build, "llama-server")
        return _joined(outcome, run_ttft(cell, program, timeout_s=self._timeout_s))

    def _with_perplexity(self, cell: Cell, outcome: Outcome) -> Outcome:
        from nsyskit.sweep.bench import find_bench, run_perplexity

        if self._ppl is None:
            return outcome
        program = find_bench(cell.build, "llama-perplexity")
        return _joined(outcome, run_perplexity(cell, program, self._ppl, timeout_s=self._timeout_s))


def _joined(outcome: Outcome, further: Outcome) -> Outcome:
    from nsyskit.sweep.bench import Outcome

    return Outcome((*outcome.results, *further.results), further.error)


def _experiments(
    path: Path, models: Sequence[Path], *, nsys: Path | None, quiet: bool
) -> list[dict[str, tuple[str, ...]]]:
    """What the trace's advice would try. The model to sweep tells the limits, where it can be read."""
    from nsyskit.analysis.analyze import analyze
    from nsyskit.cli.analyze import model_load
    from nsyskit.cli.options import open_with_progress
    from nsyskit.errors import NsyskitError

    trace = open_with_progress(path, nsys=nsys, quiet=quiet)
    try:
        load = model_load(trace, models[0] if models else None, None)
    except NsyskitError:
        load = None
    found = analyze(trace, only=["advice"], load=load).sections["advice"]
    if found.withheld and not quiet:
        click.echo(f"note: {found.withheld}", err=True)
    return [dict(item.axes) for item in found.items if item.axes]


def _show(found: Sequence[Cell]) -> None:
    import shlex

    from nsyskit.sweep.bench import find_bench

    for cell in found:
        env = [f"{name}={value}" for name, value in cell.env.items()]
        click.echo(shlex.join([*(["env", *env] if env else []), *cell.argv(find_bench(cell.build))]))


def _teller(*, quiet: bool) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        if quiet or progress.outcome is None:
            return
        settings = ", ".join(f"{key}={value or 'unset'}" for key, value in progress.cell.settings().items())
        rates = ", ".join(
            f"{one['label']} {one['tokens_per_s']:.2f} t/s"
            for one in progress.outcome.results
            if one.get("tokens_per_s") is not None
        )
        left = "" if not progress.left_s else f", about {_duration(progress.left_s)} left"
        said = progress.outcome.error or rates
        click.echo(f"[{progress.at}/{progress.of}] {settings}: {said} ({progress.took_s or 0:.1f} s{left})", err=True)

    return tell


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _keep_file(history: History, name: str, file: Path, at: int) -> None:
    from nsyskit.history.history import Cell as KeptCell
    from nsyskit.sweep.bench import read_results
    from nsyskit.sweep.grid import FLAGS

    groups: dict[str, list[dict[str, object]]] = {}
    for one in read_results(file):
        told = {key: str(one[key]) for key in ("model", "build_commit", *FLAGS.values()) if one.get(key) is not None}
        groups.setdefault(json.dumps(told, sort_keys=True), []).append(one)
    for key, results in groups.items():
        settings = {"file": file.name, **json.loads(key)}
        history.put_cell(
            KeptCell(name, f"{at} {file.name} {key}", settings, "done", utc_now(), None, None, tuple(results))
        )


def _trace_cells(
    history: History, name: str, found: Sequence[Cell], runner: _Runner, folder: Path, *, quiet: bool
) -> None:
    """One traced repetition of every cell that was measured and has no trace yet."""
    import sys
    from dataclasses import replace

    from nsyskit.sweep.bench import environment, run_program

    kept = {cell.key: cell for cell in history.cells(name)}
    folder.mkdir(parents=True, exist_ok=True)
    for cell in found:
        known = kept[cell.key()]
        place = folder / cell.key()
        if known.state != "done" or known.trace is not None:
            continue
        once = replace(cell, tests=replace(cell.tests, repetitions=1))
        argv = [sys.executable, "-m", "nsyskit", "capture", "-q", "-o", str(place)]
        code, _, err = run_program(
            [*argv, *once.argv(runner.bench(cell.build))],
            environment(cell.env),
            timeout_s=None,
            grace_s=_CAPTURE_GRACE_S,
        )
        if code == 0:
            history.put_cell(replace(known, trace=str(place)))
        if not quiet:
            last = (err.strip().splitlines() or ["failed"])[-1]
            click.echo(f"traced {place.name}: {'done' if code == 0 else last}", err=True)


def _emit(name: str, table: SweepTable, *, fmt: str, html: Path | None, force: bool) -> None:
    from nsyskit.sweep.ledgers import cell_ledgers

    ledgers = cell_ledgers(table)
    if fmt == "json":
        from nsyskit.report.sweep_json import render_json

        click.echo(render_json(name, table, ledgers), nl=False)
    else:
        from nsyskit.report.sweep_text import render_table

        click.echo(render_table(name, table, ledgers), nl=False)
    if html is not None:
        from nsyskit.report.sweep_html import render_html

        emit(render_html(name, table, ledgers), output=html, force=force)
