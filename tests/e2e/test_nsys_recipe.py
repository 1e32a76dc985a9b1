"""The real ``nsys recipe`` of 2023.4 runs nsyskit's recipes; their Parquet equals what ``analyze`` says."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

REPO = Path(__file__).parents[2]
VENV = "/opt/nsyskit-e2e-recipes"


@pytest.fixture(scope="module")
def with_python(root):
    """A Python with what nsys needs, from the root's system, and nsyskit; two traces, and a rep file without CUDA."""
    wheel = next(root.work.glob("nsyskit-*.whl")).name
    shutil.rmtree(root.path / VENV.lstrip("/"), ignore_errors=True)
    for words in (
        ["python3", "-m", "venv", "--system-site-packages", VENV],
        [f"{VENV}/bin/pip", "install", "-q", wheel],
        ["nsys", "profile", "-t", "osrt", "-s", "none", "--cpuctxsw=none", "-f", "true", "-o", "cpu", "sleep", "0.1"],
    ):
        done = root.run(*words, timeout=600)
        assert done.code == 0, done.err
    for name, folder in (("rank0", "demo"), ("rank1", "two-gpus-layer-split")):
        shutil.copy(REPO / "traces" / folder / "trace.sqlite", root.work / f"{name}.sqlite")
    return {"PATH": f"{VENV}/bin:/usr/bin:/bin"}


def flat(row, prefix=""):
    cells = {}
    for name, value in row.items():
        if isinstance(value, dict):
            cells.update(flat(value, f"{prefix}{name}."))
        elif not isinstance(value, list):
            cells[f"{prefix}{name}"] = value
    return cells


@pytest.mark.parametrize("mode", ["none", "dask-futures"])
def test_parquet_equals_json(root, with_python, mode):
    names = ["rank0.sqlite", "rank1.sqlite"]
    documents = {}
    for name in names:
        told = [json.loads(root.run("nsyskit", "analyze", name, "--format", "json", *more, env=with_python).out)
                for more in ([], ["--analysis=steps"])]  # fmt: skip
        documents[name] = told[0] | {"steps": told[1]["steps"]}  # every step is told where steps are asked for
    where = root.run("nsyskit", "recipes", "--path", env=with_python).out.strip()
    assert where.startswith(VENV), "from the wheel, not from a checkout"
    expected = {
        "llama_hotspot_sum": {"kernel_sum": lambda document: document["kernel_sum"]},
        "llama_sync_sum": {"sync_by_api": lambda document: document["sync"]["by_api"]},
        "llama_gpu_gaps": {"devices": lambda document: [flat(row) for row in document["devices"]]},
        "llama_step_pace": {"steps": lambda document: document["steps"]["steps"]},
    }
    for recipe, tables in expected.items():
        out = f"{recipe}-{mode}"
        words = ["nsys", "recipe", recipe, "--mode", mode, "--output", out, "--input", *names]
        done = root.run(*words, env=with_python | {"NSYS_RECIPE_PATH": where})
        assert done.code == 0, done.out + done.err
        for table, of in tables.items():
            written = pl.read_parquet(root.work / out / f"{table}.parquet").to_dicts()
            rows = [{"file": name} | row for name in names for row in of(documents[name])]
            columns = {name for row in rows for name in row}
            assert written == [{name: row.get(name) for name in written[0]} for row in rows]
            assert set(written[0]) == columns
        facts = json.loads((root.work / out / f"{out}.nsys-analysis").read_text())
        assert (facts["RecipeName"], facts["Mode"], facts["InputFiles"]) == (recipe, mode, names)


def test_through_nsyskit(root, with_python):
    words = ["nsyskit", "recipes", "run", "llama_gpu_gaps", "rank0.sqlite", "rank1.sqlite", "--format", "json"]
    told = json.loads(root.run(*words, env=with_python).out)["tables"]
    document = json.loads(root.run("nsyskit", "analyze", "rank1.sqlite", "--format", "json", env=with_python).out)
    devices = [row for row in told["devices"] if row["file"] == "rank1.sqlite"]
    assert [row["busy_ns"] for row in devices] == [row["busy_ns"] for row in document["devices"]]
    listed = root.run("nsyskit", "recipes", env=with_python).out
    assert "llama_step_pace" in listed
    assert "cuda_gpu_kern_sum" in listed


def test_nvidias_own_gaps_are_the_same(root, with_python):
    """NVIDIA's recipe and nsyskit's over the same rows: every gap of a GPU between its operations.

    A rep file with CUDA takes a GPU to make. NVIDIA's recipe takes an export that lies beside a rep file and is newer
    for that file's; so it reads the rows of a synthetic trace.
    """
    assert root.run(f"{VENV}/bin/pip", "install", "-q", "pyasyncore", timeout=300).code == 0
    shutil.copy(root.work / "cpu.nsys-rep", root.work / "rows.nsys-rep")
    shutil.copyfile(REPO / "traces" / "demo" / "trace.sqlite", root.work / "rows.sqlite")
    words = ["nsys", "recipe", "gpu_gaps", "--gap", "0", "--mode", "none", "--input", "rows.nsys-rep"]
    done = root.run(*words, "--output", "nvidia", env=with_python)
    assert done.code == 0, done.out + done.err
    theirs = pl.read_parquet(root.work / "nvidia" / "analysis.parquet").sort("Duration", descending=True)
    words = ["nsyskit", "recipes", "run", "llama_gpu_gaps", "rows.sqlite", "--option=--window=gpu", "--format", "json"]
    ours = json.loads(root.run(*words, env=with_python).out)["tables"]
    assert theirs.height == sum(row["count"] for row in ours["gap_hist"]) > 1_000
    assert theirs["Duration"].sum() == sum(row["total_ns"] for row in ours["gap_hist"])
    longest = [(row["Start"], row["Duration"]) for row in theirs.head(10).to_dicts()]
    assert longest == [(row["start_ns"], row["dur_ns"]) for row in ours["gaps"]]


def test_a_rep_file_without_cuda(root, with_python):
    """Exported by the same nsys on the way; NVIDIA's recipe finds nothing in it either."""
    for recipe, said in (("llama_gpu_gaps", "cpu.nsys-rep is left out"), ("gpu_gaps", "no rows for the recipe")):
        done = root.run("nsyskit", "recipes", "run", recipe, "cpu.nsys-rep", env=with_python)
        assert done.code in {4, 5}, done.err
        assert said in done.err or "pip install pyasyncore" in done.err
    assert not (root.work / "cpu.sqlite").exists()


def test_what_its_python_lacks_and_the_command_that_mends_it(root):
    """The environment of the other tests holds nsyskit and nothing that nsys asks for."""
    done = root.run("nsyskit", "recipes", "run", "llama_gpu_gaps", "nosuch.sqlite")
    assert done.code == 3
    shutil.copy(REPO / "traces" / "demo" / "trace.sqlite", root.work / "demo.sqlite")
    words = ["nsyskit", "recipes", "run", "llama_gpu_gaps", "demo.sqlite", "--format", "csv"]
    done = root.run(*words)
    assert done.code == 5
    said, mend = done.err.strip().split("; mend it with: ")
    assert "lacks" in said
    assert "pandas" in said
    assert root.run(*mend.split(), timeout=600).code == 0
    again = root.run(*words)
    assert again.code == 0, again.err
    assert again.out.splitlines()[0].startswith("# trust")
