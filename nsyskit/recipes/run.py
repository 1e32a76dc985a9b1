"""Run a recipe of nsys, nsyskit's or NVIDIA's own, and read back the Parquet that it leaves.

nsys runs the first ``python3`` on its PATH. That Python must have what nsys asks for, and nsyskit for its recipes; a
folder is put in front of the PATH for the one that has.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import polars as pl

from nsyskit.errors import MissingTableError, NsysError, OutputError, TraceFormatError, UsageError
from nsyskit.nsys import ENVIRONMENT as NSYSKIT_NSYS
from nsyskit.nsys import Nsys, all_nsys, find_nsys, has_recipes, run_watched
from nsyskit.recipes import ENVIRONMENT, own_recipes, recipe_folder
from nsyskit.recipes.tables import input_files
from nsyskit.runfolder import is_run_folder, load_run

Mode = Literal["none", "concurrent", "dask-futures"]
MODES: Final[tuple[Mode, ...]] = ("none", "concurrent", "dask-futures")
NEEDED: Final = ("numpy", "pandas", "psutil", "pyarrow")
"""What nsys asks of its Python before it runs any recipe."""

_PACKAGE_OF: Final = {"asyncore": "pyasyncore"}
"""Modules that Python 3.12 dropped and recipes of 2023 still import -> the package that brings them back."""

_LISTED: Final = re.compile(r"^\s+(\w+) -- (.+?)\s*$", re.MULTILINE)
_PROBE: Final = (
    "import importlib.util, json, sys; print(json.dumps([n for n in sys.argv[1:] if not importlib.util.find_spec(n)]))"
)
_PROBE_TIMEOUT_S: Final = 60


@dataclass(frozen=True, slots=True)
class RecipeRun:
    """What a recipe wrote: one frame a Parquet file, by the file's name, trust first; and what it said on the way."""

    recipe: str
    tables: Mapping[str, pl.DataFrame]
    said: str


def nsys_with_recipes(explicit: Path | None = None) -> Nsys:
    """The nsys named or in ``NSYSKIT_NSYS``, else the first on PATH that has recipes.

    Raises:
        NsysError: there is none, or the one that was named has no recipes.
    """
    if explicit is None and not os.environ.get(NSYSKIT_NSYS):
        found = next((nsys for nsys in all_nsys() if has_recipes(nsys)), None)
        if found is not None:
            return found
    nsys = find_nsys(explicit)
    if not has_recipes(nsys):
        raise NsysError(
            f"nsys {nsys.version_text} at {nsys.path} has no recipes",
            hint=f"install 2023.4 or later, or name one with --nsys or {NSYSKIT_NSYS}",
        )
    return nsys


def builtin_recipes(nsys: Nsys) -> dict[str, str]:
    """NVIDIA's recipes in this nsys: name -> title."""
    _, said = run_watched([str(nsys.path), "recipe", "--help"])
    return dict(_LISTED.findall(said))


def missing_modules(python: Path, modules: Sequence[str]) -> list[str] | None:
    """Which modules a Python lacks; None when it does not run."""
    # In a folder of its own: a file beside the user's traces must not pass for a module.
    argv = [str(python), "-I", "-c", _PROBE, *modules]
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True)
        missing = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return [str(name) for name in missing]


def python_for(modules: Sequence[str]) -> Path:
    """The ``python3`` that nsys is to run: that of nsyskit's own environment, else the one on PATH.

    Raises:
        NsysError: neither has the modules; the message names the command that mends it.
    """
    beside = Path(sys.executable).parent / "python3"
    on_path = shutil.which("python3")
    candidates = dict.fromkeys(path for path in (beside, Path(on_path) if on_path else None) if path is not None)
    told: list[tuple[Path, list[str]]] = []
    for candidate in candidates:
        missing = missing_modules(candidate, modules)
        if missing == []:
            return candidate
        if missing:
            told.append((candidate, missing))
    if not told:
        raise NsysError("nsys's recipes need a python3, and none runs here", hint="put one on PATH")
    python, missing = told[0]
    raise NsysError(
        f"the Python for nsys's recipes, {python}, lacks {', '.join(missing)}",
        hint=f"mend it with: {_install(python, missing)}",
    )


def run_recipe(
    name: str,
    traces: Sequence[Path],
    *,
    nsys: Nsys,
    mode: Mode = "none",
    extra: Sequence[str] = (),
    keep: Path | None = None,
) -> RecipeRun:
    """Run one recipe over traces; its folder of results is read and thrown away, or kept as ``keep``.

    Args:
        name: one of ``own_recipes`` or ``builtin_recipes``.
        traces: rep files, folders of them and run folders; for nsyskit's recipes whatever ``open_trace`` takes.
        nsys: one that has recipes.
        mode: how nsys spreads the traces over processes.
        extra: more options for the recipe.
        keep: a folder that does not exist yet.

    Raises:
        UsageError: there is no such recipe, or a trace is not for it.
        NsysError: nsys or its Python cannot run it.
        MissingTableError: the traces hold nothing that it tells.
        OutputError: ``keep`` exists.
    """
    own = name in own_recipes()
    if not own and name not in builtin_recipes(nsys):
        raise UsageError(
            f"there is no recipe {name!r}, neither nsyskit's nor of this nsys", hint="list them: nsyskit recipes"
        )
    if keep is not None and (keep.exists() or not keep.absolute().parent.is_dir()):
        raise OutputError(f"{keep} exists, or its folder does not", hint="name a new folder")
    files = [Path(path).absolute() for path in (_checked(traces) if own else _rep_files(traces))]
    modules = [*NEEDED, *(["nsyskit"] if own else []), *(["distributed"] if mode == "dask-futures" else [])]
    python = python_for(modules)
    with tempfile.TemporaryDirectory(prefix="nsyskit-recipe-") as folder:
        out = Path(folder) / name
        given = map(str, files if own else _linked(files, Path(folder)))
        argv = [str(nsys.path), "recipe", name, "--mode", mode, "--output", str(out), *extra, "--input", *given]
        code, said = run_watched(argv, environment=_environment(nsys, python))
        if code or not out.is_dir():
            raise _failure(name, code, said, python)
        tables = read_tables(out)
        if keep is not None:
            shutil.copytree(out, keep)
    return RecipeRun(name, tables, said)


def read_tables(folder: Path) -> dict[str, pl.DataFrame]:
    """What a recipe left, one table a Parquet file, trust first.

    Raises:
        NsysError: a file is damaged.
    """
    written = [path for path in folder.glob("*.parquet") if path.is_file()]
    return {path.stem: _table(path) for path in sorted(written, key=lambda path: (path.stem != "trust", path.stem))}


def _table(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, glob=False, hive_partitioning=False)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise NsysError(f"{path.name} of the recipe cannot be read", hint="run it again") from error


def _environment(nsys: Nsys, python: Path) -> dict[str, str]:
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, ENVIRONMENT: str(recipe_folder()), NSYSKIT_NSYS: str(nsys.path)}


def _checked(traces: Sequence[Path]) -> list[str]:
    for path in traces:
        if not path.exists():
            raise TraceFormatError(f"{path} does not exist", hint="check the path")
    return input_files(map(str, traces))


def _rep_files(traces: Sequence[Path]) -> list[str]:
    """NVIDIA's recipes read rep files only; a run folder has one inside."""
    files: list[str] = []
    for path in _checked(traces):
        rep = load_run(Path(path)).rep if is_run_folder(Path(path)) else Path(path)
        if rep.suffix not in {".nsys-rep", ".qdrep"} or not rep.is_file():
            raise UsageError(f"NVIDIA's recipes read rep files, and {Path(path).name} is none", hint="name a .nsys-rep")
        files.append(str(rep))
    return files


def _linked(files: Sequence[Path], folder: Path) -> list[Path]:
    """Links to the rep files: NVIDIA's recipes write an export beside what they are given."""
    links = []
    for number, file in enumerate(files):
        link = folder / str(number) / file.name
        link.parent.mkdir()
        link.symlink_to(file)
        links.append(link)
    return links


def _failure(name: str, code: int, said: str, python: Path) -> Exception:
    """What nsys's words mean."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    module = re.search(r"No module named '(\w+)", said)
    if module:
        return NsysError(
            f"the recipe {name} needs {module[1]}, which {python} lacks",
            hint=f"mend it with: {_install(python, [module[1]])}",
        )
    ours = [line.removeprefix("nsyskit: ") for line in lines if line.startswith("nsyskit: ")]
    if ours:
        return MissingTableError(f"rows for the recipe {name} ({ours[0]})", hint="name traces that do")
    if not code:  # nsys calls it a success to have found nothing
        return MissingTableError(f"rows for the recipe {name}", hint="name traces that do")
    if "no such function" in said:  # Debian's package goes without NVIDIA's own SQLite library
        return NsysError(f"nsys recipe {name} failed ({lines[-1]})", hint="use Nsight Systems as NVIDIA packs it")
    last = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else f"exit code {code}")
    command = f"{ENVIRONMENT}={recipe_folder()} nsys recipe {name} --help"
    return NsysError(f"nsys recipe {name} failed ({last})", hint=f"its options: {command}")


def _install(python: Path, modules: Sequence[str]) -> str:
    return f"{python} -m pip install {' '.join(_PACKAGE_OF.get(name, name) for name in modules)}"
