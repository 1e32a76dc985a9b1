"""``nsyskit recipes``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nsyskit.cli.options import check_output, emit, examples, force_option, progress_line, quiet_option
from nsyskit.errors import NsysError

# spelled out: importing the runner here would make every --help wait for polars; a test holds them equal
MODES = ("none", "concurrent", "dask-futures")

recipe_nsys_option = click.option(
    "--nsys", type=click.Path(path_type=Path), help="The nsys to run recipes with.  [default: NSYSKIT_NSYS, then PATH]"
)


@click.group(invoke_without_command=True)
@click.option("--path", "only_path", is_flag=True, help="Print the folder that NSYS_RECIPE_PATH must name, only.")
@click.option("--format", "fmt", type=click.Choice(["text", "json"]), default="text", show_default=True)
@recipe_nsys_option
@click.pass_context
def command(ctx: click.Context, *, only_path: bool, fmt: str, nsys: Path | None) -> None:
    """List recipes of nsys: nsyskit's for llama.cpp, and those of the nsys at hand (2023.4 and later).

    Without nsyskit's help: NSYS_RECIPE_PATH=$(nsyskit recipes --path) nsys recipe llama_gpu_gaps --input …
    """
    if ctx.invoked_subcommand is not None:
        return
    from nsyskit.recipes import own_recipes, recipe_folder

    if only_path:
        click.echo(recipe_folder())
        return
    from nsyskit.recipes.run import builtin_recipes, nsys_with_recipes

    try:
        found = nsys_with_recipes(nsys)
        builtin, why_none = builtin_recipes(found), None
    except NsysError as error:
        if nsys is not None:
            raise
        builtin, why_none = {}, str(error)
    own = dict(own_recipes())
    if fmt == "json":
        click.echo(json.dumps({"schema": "nsyskit.recipes/1", "nsyskit": own, "nsys": builtin}, indent=1))
        return
    width = max(map(len, own | builtin))
    lines = [f"{name:<{width}}  {title}" for name, title in (own | builtin).items()]
    click.echo("\n".join([*lines, *([f"none of NVIDIA's: {why_none}"] if why_none else [])]))


examples("""
nsyskit recipes
nsyskit recipes run llama_gpu_gaps trace.sqlite
nsyskit recipes run cuda_gpu_kern_sum rank0.nsys-rep rank1.nsys-rep --format csv
""")(command)


@examples("nsyskit recipes run llama_step_pace node0/ node1/ --mode dask-futures --format json")
@command.command("run")
@click.argument("name")
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TRACE...")
@click.option("--mode", type=click.Choice(MODES), default="none", show_default=True, help="How nsys spreads the work.")
@click.option("--option", "extra", multiple=True, metavar="--NAME=VALUE", help="An option of the recipe (repeatable).")
@click.option("--format", "fmt", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True)
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Rows a table of the text.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the recipe's own folder of results as this one.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write there instead of to stdout.")
@force_option
@recipe_nsys_option
@quiet_option
def run(
    *, name: str, traces: tuple[Path, ...], mode: str, extra: tuple[str, ...], fmt: str, top: int, keep: Path | None,
    output: Path | None, force: bool, nsys: Path | None, quiet: bool,
) -> None:  # fmt: skip
    """Run the recipe NAME over traces with `nsys recipe`, and show the tables that it wrote.

    nsyskit's own take whatever analyze takes, NVIDIA's take rep files.
    """
    if output is not None:
        check_output(output, force=force)
    import shutil

    from nsyskit.recipes.run import nsys_with_recipes, run_recipe
    from nsyskit.recipes.show import render_csv, render_json, render_text

    found = nsys_with_recipes(nsys)
    with progress_line(quiet=quiet) as progress:
        progress(f"nsys recipe {name}", None)
        told = run_recipe(name, traces, nsys=found, mode=mode, extra=extra, keep=keep)  # type: ignore[arg-type]  # a choice of MODES
    for line in told.said.splitlines():
        if line.startswith("nsyskit: "):
            click.echo(line, err=True)
    if fmt == "text":
        text = render_text(told, top=top, width=100 if output else shutil.get_terminal_size((100, 24)).columns)
    else:
        text = render_csv(told) if fmt == "csv" else render_json(told)
    emit(text, output=output, force=force)
