"""``nsyskit recipes`` with a stand-in for nsys: the real one runs in tests/e2e."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from nsyskit.cli import cli, recipes
from nsyskit.errors import NsysError
from nsyskit.recipes import run as runner

STAND_IN = """#!{python}
import os, sys
import polars as pl
words = sys.argv[1:]
if words == ["--version"]:
    print("NVIDIA Nsight Systems version {version}"); sys.exit()
if words == ["--help"]:
    print("Commands:\\n\\texport  Write\\n" + ("\\trecipe        Run a recipe\\n" if {recipes} else "")); sys.exit()
if words == ["recipe", "--help"]:
    print("\\n  gpu_gaps -- GPU Gaps\\n  osrt_sum -- OS Runtime Summary\\n"); sys.exit()
name, out = words[1], words[words.index("--output") + 1]
given = words[words.index("--input") + 1:]
{body}
"""
WRITES = """os.mkdir(out)
assert os.environ["NSYS_RECIPE_PATH"].endswith("recipes") and os.environ["NSYSKIT_NSYS"] == sys.argv[0]
pl.DataFrame({"File": given, "gap": [1500] * len(given), "share": [float("nan")] * len(given)}).write_parquet(
    out + "/analysis.parquet")
open(os.path.dirname(given[0]) + "/export.sqlite", "w").close()
print("Generated:\\n    " + out)"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Makes an nsys that does as told; every Python is taken to have what nsys needs."""
    monkeypatch.setattr(runner, "missing_modules", lambda _python, _modules: [])
    monkeypatch.delenv("NSYSKIT_NSYS", raising=False)

    def make(body: str = WRITES, version: str = "2023.4.1", *, has_recipes: bool = True) -> Path:
        path = tmp_path / "bin" / f"nsys{len(list(tmp_path.glob('bin/*')))}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(STAND_IN.format(python=sys.executable, version=version, recipes=has_recipes, body=body))
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def rep(tmp_path):
    path = tmp_path / "data" / "rank0.nsys-rep"
    path.parent.mkdir()
    path.write_bytes(b"NVIDIA Tegra Profiler Report 2023@4@1@1-")
    return path


def invoke(*words: object):
    return CliRunner().invoke(cli, ["recipes", *map(str, words)])


def test_the_modes_of_both_modules():
    assert recipes.MODES == runner.MODES


def test_path_is_a_folder_of_recipes():
    folder = Path(invoke("--path").output.strip())
    assert (folder / "llama_gpu_gaps" / "metadata.json").is_file()


def test_the_list(stand_in):
    lines = invoke("--nsys", stand_in()).output.splitlines()
    assert [line.split()[0] for line in lines] == [
        "llama_gpu_gaps", "llama_hotspot_sum", "llama_step_pace", "llama_sync_sum", "gpu_gaps", "osrt_sum",
    ]  # fmt: skip
    told = json.loads(invoke("--nsys", stand_in(), "--format", "json").output)
    assert told["nsys"] == {"gpu_gaps": "GPU Gaps", "osrt_sum": "OS Runtime Summary"}


def test_the_list_without_an_nsys_that_has_recipes(stand_in, monkeypatch):
    old = stand_in(version="2022.4.1", has_recipes=False)
    monkeypatch.setenv("NSYSKIT_NSYS", str(old))
    result = invoke()
    assert result.exit_code == 0
    assert result.output.splitlines()[-1].startswith("none of NVIDIA's: nsys 2022.4.1")
    assert invoke("--nsys", old).exit_code == 5
    assert invoke("run", "llama_gpu_gaps", "x.sqlite").exit_code == 5


def test_a_recipe_of_nvidia(stand_in, rep):
    nsys = stand_in()
    told = json.loads(invoke("run", "gpu_gaps", rep, "--nsys", nsys, "--format", "json").output)
    (row,) = told["tables"]["analysis"]
    assert (row["gap"], row["share"]) == (1500, None)
    assert [path.name for path in rep.parent.iterdir()] == ["rank0.nsys-rep"]
    text = invoke("run", "gpu_gaps", rep, "--nsys", nsys).output
    assert text.splitlines()[0] == "analysis"
    csv = invoke("run", "gpu_gaps", rep, "--nsys", nsys, "--format", "csv").output
    assert csv.splitlines()[0] == "File,gap,share"


def test_results_are_kept_once(stand_in, rep, tmp_path):
    keep = tmp_path / "kept"
    words = ("run", "gpu_gaps", rep, "--nsys", stand_in(), "--keep", keep)
    assert invoke(*words).exit_code == 0
    assert pl.read_parquet(keep / "analysis.parquet")["gap"].to_list() == [1500]
    again = invoke(*words)
    assert again.exit_code == 6
    assert "name a new folder" in again.output


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("print('INFO: No output generated.')", 4, "holds no rows for the recipe gpu_gaps"),
        ("print(\"ERROR: Could not import x: No module named 'asyncore'\"); sys.exit(1)", 5, "pip install pyasyncore"),
        ('print("DatabaseError: sql\\nno such function: stdev"); sys.exit(1)', 5, "as NVIDIA packs it"),
        ('print("gpu_gaps: error: unrecognized arguments: --x"); sys.exit(2)', 5, "nsys recipe gpu_gaps --help"),
        ('print("nsyskit: a.sqlite is left out: too old"); sys.exit(1)', 4, "a.sqlite is left out: too old"),
    ],
)
def test_what_nsys_says_becomes_one_line(stand_in, rep, body, code, said):
    result = invoke("run", "gpu_gaps", rep, "--nsys", stand_in(body))
    assert result.exit_code == code
    assert said in result.output
    assert len(result.output.splitlines()) == 1


def test_what_does_not_fit(stand_in, tmp_path):
    nsys = stand_in()
    shutil.copy(Path(__file__).parents[2] / "traces/demo/trace.sqlite", tmp_path / "trace.sqlite")
    for words, code, said in (
        (("gpu_gaps", tmp_path / "trace.sqlite"), 2, "read rep files"),
        (("nosuch", tmp_path / "trace.sqlite"), 2, "no recipe"),
        (("llama_gpu_gaps", tmp_path / "nosuch"), 3, "does not exist"),
    ):
        result = invoke("run", *words, "--nsys", nsys)
        assert (result.exit_code, said in result.output) == (code, True), result.output


def test_a_python_without_what_nsys_needs(monkeypatch, tmp_path):
    empty = tmp_path / "bin" / "python3"
    empty.parent.mkdir()
    empty.symlink_to(sys.executable)
    assert runner.missing_modules(empty, ["json", "no_such_module_of_anyone"]) == ["no_such_module_of_anyone"]
    assert runner.missing_modules(tmp_path / "nosuch", ["json"]) is None
    monkeypatch.setattr(sys, "executable", str(empty))
    with pytest.raises(NsysError, match=f"{empty} -m pip install no_such_module_of_anyone"):
        runner.python_for(["json", "no_such_module_of_anyone"])
    assert runner.python_for(["json"]) == empty
