"""``nsyskit compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nsyskit.cli.options import (
    check_output,
    emit,
    examples,
    force_option,
    no_cache_option,
    nsys_option,
    open_with_progress,
    quiet_option,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsyskit.compare.gate import GateResult
    from nsyskit.compare.result import Comparison
    from nsyskit.compare.sample import RunSample

_HISTORY = "history:"


@examples("""
nsyskit compare before.sqlite after.sqlite
nsyskit compare b1.sqlite c1.sqlite --base b2.sqlite --base b3.sqlite --cand c2.sqlite --cand c3.sqlite
nsyskit compare before.sqlite after.sqlite --gate 'decode.ms_per_token<=+3%' --gate 'launches_per_token<=+0'
nsyskit compare history:main after.sqlite --format markdown
nsyskit compare --bench bench-run server-run
""")
@click.command()
@click.argument("base")
@click.argument("candidate")
@click.option("--base", "more_base", multiple=True, metavar="RUN", help="A further run of the baseline (repeatable).")
@click.option("--cand", "more_candidate", multiple=True, metavar="RUN", help="A further run of the candidate.")
@click.option("--format", "fmt", type=click.Choice(["text", "markdown", "json", "html"]), default="text",
              show_default=True)  # fmt: skip
@click.option("--gate", "gates", multiple=True, metavar="EXPR", help="A limit, such as 'decode.ms_per_token<=+3%'.")
@click.option("--gate-file", type=click.Path(path_type=Path), help="Limits in a TOML file.")
@click.option("--floor", type=click.FloatRange(0, 1), default=0.02, show_default=True,
              help="Differences below this share are never called a change.")  # fmt: skip
@click.option("--window", default=None, metavar="all|gpu|steady|START:END", help="What to look at, in both.")
@click.option("--every-line", is_flag=True, help="Show lines of no importance too.")
@click.option("--bench", is_flag=True, help="BASE is a run of llama-bench, CANDIDATE one of llama-server: its tax.")
@click.option("--anyway", is_flag=True, help="Compare what would be refused, and mark it.")
@click.option("--db", type=click.Path(path_type=Path), envvar="NSYSKIT_DB", help="The history for history:TAG.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write there instead of to stdout.")
@force_option
@nsys_option
@no_cache_option
@quiet_option
@click.pass_context
def command(
    ctx: click.Context, *, base: str, candidate: str, more_base: tuple[str, ...], more_candidate: tuple[str, ...],
    fmt: str, gates: tuple[str, ...], gate_file: Path | None, floor: float, window: str | None, every_line: bool,
    bench: bool, anyway: bool, db: Path | None, output: Path | None, force: bool, nsys: Path | None, quiet: bool,
) -> None:  # fmt: skip
    """Tell what differs per token between BASE and CANDIDATE, how surely, and why.

    Both are traces, run folders, or history:TAG. Exit code 1: a gate is violated beyond noise. 2: not comparable.
    """
    if output is not None:
        check_output(output, force=force)
    if bench:
        emit(_server_tax(Path(base), Path(candidate), fmt=fmt), output=output, force=force)
        return
    from nsyskit.compare.compare import compare
    from nsyskit.compare.gate import check, exit_code, parse_gate, read_gates
    from nsyskit.compare.noise import NoiseModel

    limits = [*(parse_gate(one) for one in gates), *(read_gates(gate_file) if gate_file else ())]
    opener = Opener(db=db, nsys=nsys, quiet=quiet, window=window, refuse=True)
    sides = opener.sides((base, *more_base), (candidate, *more_candidate))
    found = compare(sides[0], sides[1], noise=NoiseModel(floor=floor), anyway=anyway)
    results = check(found, limits)
    rendered = _render(found, results, fmt=fmt, every=every_line, to_file=output is not None)
    emit(rendered, output=output, force=force)
    ctx.exit(2 if found.comparable == "no" else exit_code(results))


class Opener:
    """Turns what the user names into samples: traces, run folders with all their repetitions, tags of the history."""

    def __init__(
        self, *, db: Path | None, nsys: Path | None, quiet: bool, window: str | None, refuse: bool = False
    ) -> None:
        """``refuse``: a trace without steps becomes a side that ``compare`` refuses, instead of an error."""
        self._db, self._nsys, self._quiet, self._window, self._refuse = db, nsys, quiet, window, refuse

    def sides(self, base: Sequence[str], candidate: Sequence[str]) -> tuple[list[RunSample], list[RunSample]]:
        """Both sides; traces of one file name are told apart by the folder they lie in."""
        one, other = self.side(base), self.side(candidate)
        if {run.name for run in one} & {run.name for run in other}:
            one, other = self._with_folders(base, one), self._with_folders(candidate, other)
        return one, other

    def _with_folders(self, named: Sequence[str], runs: list[RunSample]) -> list[RunSample]:
        from dataclasses import replace

        if len(named) != len(runs) or any(one.startswith(_HISTORY) for one in named):
            return runs
        folders = [Path(one).absolute().parent.name for one in named]
        return [replace(run, name=f"{folder}/{run.name}") for run, folder in zip(runs, folders, strict=True)]

    def side(self, named: Sequence[str]) -> list[RunSample]:
        return [sample for one in named for sample in self._open(one)]

    def _open(self, named: str) -> list[RunSample]:
        if named.startswith(_HISTORY):
            from nsyskit.cli.history import tagged_samples

            return tagged_samples(named.removeprefix(_HISTORY), db=self._db)
        return [self._sample(path) for path in run_paths(Path(named))]

    def _sample(self, path: Path) -> RunSample:
        from nsyskit.analysis.windows import parse_window
        from nsyskit.compare.sample import sample_run, stepless_run
        from nsyskit.errors import MissingTableError
        from nsyskit.runfolder import is_run_folder, load_run

        trace = open_with_progress(path, nsys=self._nsys, quiet=self._quiet)
        facts = load_run(path).facts if is_run_folder(path) else None
        try:
            window = parse_window(self._window, trace) if self._window else None
            return sample_run(trace, window=window, run=facts)
        except MissingTableError as error:
            if not self._refuse:
                raise
            return stepless_run(trace, error, run=facts)


def run_paths(path: Path) -> list[Path]:
    """The path, or the repetitions inside a run folder of ``capture --repeat``."""
    from nsyskit.runfolder import is_run_folder, load_run

    if not is_run_folder(path):
        return [path]
    folder = load_run(path)
    has_own = folder.sqlite.exists() or folder.rep.exists()
    repeated = [arm.path for arm in folder.arms if arm.path.name.startswith("run-")]
    return [path] if has_own or not repeated else repeated


def _server_tax(bench: Path, server: Path, *, fmt: str) -> str:
    from nsyskit.compare.server_tax import server_tax
    from nsyskit.report import server_tax as rendering

    found = server_tax(bench, server)
    if fmt == "html":
        from nsyskit.report.server_tax_html import render_html

        return render_html(found)
    render = {"json": rendering.render_json, "markdown": rendering.render_markdown, "text": rendering.render_text}[fmt]
    return render(found)


def _render(found: Comparison, results: Sequence[GateResult], *, fmt: str, every: bool, to_file: bool) -> str:
    if fmt == "json":
        from nsyskit.report.compare_json import render_json

        return render_json(found, results)
    if fmt == "markdown":
        from nsyskit.report.compare_markdown import render_markdown

        return render_markdown(found, results, every=every)
    if fmt == "html":
        from nsyskit.report.compare_html import render_html

        return render_html(found, results)
    from nsyskit.report.compare_text import render_text

    return render_text(found, results, every=every, width=120 if to_file else None, color=False if to_file else None)
