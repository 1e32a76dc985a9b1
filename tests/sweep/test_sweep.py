"""Sweeps: the cross product, resumed after a kill, failures recorded, results of files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from page_figures import figures_of

from nsyskit.cli import cli
from nsyskit.errors import UsageError
from nsyskit.history.history import History
from nsyskit.sweep.bench import environment, find_bench, read_results, run_program
from nsyskit.sweep.grid import Axes, Cell, Tests, cells, one_at_a_time, parse_env, parse_values, sweep_name

Tests.__test__ = False

BENCH = f"""#!{sys.executable}
import json, os, sys, time
words = sys.argv[1:]
given = dict(zip(words[::2], words[1::2]))
with open(os.path.join(os.path.dirname(__file__), "calls"), "a") as log:
    log.write(" ".join(words) + "\\n")
threads = int(given.get("-t", "1"))
if threads == 3:
    sys.exit("error: failed to create context with 3 threads")
time.sleep(float(os.environ.get("SLOW", "0")))
off = os.environ.get("GGML_CUDA_DISABLE_GRAPHS") == "1"
for name, test in (("n_prompt", "-p"), ("n_gen", "-n")):
    for value in given[test].split(","):
        rate = threads * (100 if name == "n_prompt" else 10) / (2 if off else 1)
        record = dict(build_commit="abc1234", build_number=7, model_filename=given["-m"], model_type="llama 1B Q4_0",
                      model_size=1000, n_threads=threads, n_prompt=0, n_gen=0, n_depth=int(given.get("-d", 0)),
                      avg_ns=1000, stddev_ns=1, avg_ts=rate, stddev_ts=0.5, samples_ts=[rate, rate])
        print(json.dumps(record | {{name: int(value)}}))
"""


@pytest.fixture
def build(tmp_path):
    """A build folder whose llama-bench notes its calls."""
    folder = tmp_path / "build" / "bin"
    folder.mkdir(parents=True)
    (folder / "llama-bench").write_text(BENCH)
    (folder / "llama-bench").chmod(0o755)
    (tmp_path / "m.gguf").write_bytes(b"")
    return folder.parent


def words(build, *more: str) -> list[str]:
    here = build.parent
    return ["sweep", "--model", str(here / "m.gguf"), "--build", str(build), "-p", "8", "-n", "4",
            "--db", str(here / "h.sqlite"), *more]  # fmt: skip


def run(build, *more: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, words(build, *more))
    assert done.exit_code == code, done.output
    return done


def calls(build):
    log = build / "bin" / "calls"
    return log.read_text().splitlines() if log.exists() else []


def test_the_cross_product_in_a_fixed_order():
    axes = Axes((Path("a"), Path("b")), flags={"-fa": ("0", "1"), "-t": ("1", "2")}, env={"X": ("", "1")})
    found = cells(axes)
    assert len(found) == 16
    assert [(c.model.name, c.env["X"], c.flags["-t"], c.flags["-fa"]) for c in found[:3]] == [
        ("a", "", "1", "0"), ("a", "", "1", "1"), ("a", "", "2", "0"),
    ]  # fmt: skip
    assert len({cell.key() for cell in found}) == 16
    assert sweep_name(found) == sweep_name(found[::-1])


def test_a_build_is_told_without_the_folders_above():
    one, other = (Cell(Path("m.gguf"), Path(f"/home/{who}/llama/build")) for who in ("me", "you"))
    assert one.settings()["build"] == "llama/build"
    assert one.key() != other.key()
    assert Cell(Path("m.gguf"), Path("build")).settings()["build"] == "build"


def test_a_cells_command_line():
    cell = Cell(Path("m.gguf"), flags={"-t": "4", "-fa": "1"}, rpc="a:1", tests=Tests(("512",), ("128",), 2))
    assert cell.argv(["llama-bench"]) == [
        "llama-bench", "-m", "m.gguf", "-t", "4", "-fa", "1", "--rpc", "a:1", "-p", "512", "-n", "128", "-r", "2",
        "-o", "jsonl",
    ]  # fmt: skip


def test_values_as_llama_bench_writes_them():
    assert parse_values("1,2,4") == ("1", "2", "4")
    assert parse_values("1-3") == ("1", "2", "3")
    assert parse_values("16-64*2") == ("16", "32", "64")
    assert parse_values("0-8+4,q8_0") == ("0", "4", "8", "q8_0")
    for text in ("1,,2", "4-1", "1-9*1"):
        with pytest.raises(UsageError):
            parse_values(text)


def test_variables():
    assert parse_env("A=0,1") == ("A", ("0", "1"))
    assert parse_env("A=,1") == ("A", ("", "1"))
    assert "HOME" not in environment({"HOME": ""})
    for text in ("A", "=1", "HF_TOKEN=x"):
        with pytest.raises(UsageError):
            parse_env(text)


def test_experiments_one_at_a_time():
    axes = Axes((Path("m"),), flags={"-ngl": ("99",)})
    found, lacking = one_at_a_time(
        axes, [{"-ctk": ("f16", "q8_0"), "-ctv": ("f16", "q8_0")}, {"env G": ("1",)}, {"--backend-sampling": ("1",)}]
    )
    assert lacking == ["--backend-sampling"]
    assert [(dict(cell.flags), dict(cell.env)) for cell in found] == [
        ({"-ngl": "99"}, {}),
        ({"-ngl": "99", "-ctk": "f16", "-ctv": "f16"}, {}),
        ({"-ngl": "99", "-ctk": "q8_0", "-ctv": "q8_0"}, {}),
        ({"-ngl": "99"}, {"G": "1"}),
    ]


def test_results_are_kept_and_tabulated(build):
    done = run(build, "-t", "1,2", "--env", "GGML_CUDA_DISABLE_GRAPHS=,1", "--format", "json")
    document = json.loads(done.stdout)
    assert document["axes"] == ["n_threads", "env GGML_CUDA_DISABLE_GRAPHS"]  # in the order of the settings
    rates = [[cell["results"][label]["tokens_per_s"] for label in ("pp8", "tg4")] for cell in document["cells"]]
    assert rates == [[100, 10], [200, 20], [50, 5], [100, 10]]
    assert document["cells"][0]["results"]["tg4"]["samples"] == 2
    text = run(build, "-t", "1,2", "--env", "GGML_CUDA_DISABLE_GRAPHS=,1").stdout
    assert "best tg4: 20.00 tokens/s with n_threads=2, env GGML_CUDA_DISABLE_GRAPHS=unset" in text


def test_failures_are_recorded_and_skipped(build):
    done = run(build, "-t", "2,3,4")
    assert "failed: n_threads=3: exit code 1: error: failed to create context with 3 threads" in done.stdout
    assert "2 ran, 1 failed, 0 known before" in done.stderr
    assert len(calls(build)) == 3
    assert "0 ran, 0 failed, 3 known before" in run(build, "-t", "2,3,4").stderr
    assert len(calls(build)) == 3
    run(build, "-t", "2,3,4", "--retry-failed")
    assert len(calls(build)) == 4


def test_killed_half_way_it_goes_on_where_it_stopped(build):
    """SIGKILL in the third cell: two are kept, the third is run again, nothing is run twice that was done."""
    argv = [sys.executable, "-m", "nsyskit", *words(build, "-t", "1,2,4,8", "--name", "s")]
    process = subprocess.Popen(argv, env=os.environ | {"SLOW": "0.4"}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while len(calls(build)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with History(build.parent / "h.sqlite") as history:
        assert [cell.settings["n_threads"] for cell in history.cells("s")] == ["1", "2"]
    assert "2 ran, 0 failed, 2 known before" in run(build, "-t", "1,2,4,8", "--name", "s").stderr
    threads = [line.split("-t ")[1].split()[0] for line in calls(build)]
    assert threads == ["1", "2", "4", "4", "8"]


def test_a_cell_that_takes_too_long_is_ended(build, monkeypatch):
    monkeypatch.setenv("SLOW", "30")
    begun = time.monotonic()
    assert "not done after 0.3 s" in run(build, "-t", "1", "--timeout", "0.3").stdout
    assert time.monotonic() - begun < 10


def test_a_program_with_programs_of_its_own_may_end_them(tmp_path):
    script = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended mine')); time.sleep(60)"
    )
    code, _, said = run_program([sys.executable, "-c", script], os.environ, timeout_s=4.0, grace_s=30)
    assert (code, said) == (None, "ended mine\n")
    deaf = script.replace("sys.exit('ended mine')", "None")
    begun = time.monotonic()
    assert run_program([sys.executable, "-c", deaf], os.environ, timeout_s=1.0, grace_s=0.3)[0] is None
    assert time.monotonic() - begun < 20


def test_dry_run_shows_command_lines(build):
    text = run(build, "-t", "1", "--env", "A=1", "--dry-run").stdout
    assert text == f"env A=1 {build}/bin/llama-bench -m {build.parent}/m.gguf -t 1 -p 8 -n 4 -r 3 -o jsonl\n"
    assert calls(build) == []


def test_a_build_without_llama_bench_is_told_first(build, tmp_path):
    done = run(build, "--build", str(tmp_path / "nothing"), code=7)
    assert "holds no llama-bench" in done.stderr
    assert calls(build) == []
    assert find_bench(None) == ["llama-bench"]


def test_nothing_to_sweep():
    done = CliRunner().invoke(cli, ["sweep"])
    assert done.exit_code == 2
    assert "nothing to sweep" in done.stderr


def test_the_page_has_a_plot_for_each_test_and_axis(build, tmp_path):
    run(build, "-t", "1,2", "--html", str(tmp_path / "one.html"))
    run(build, "-t", "1,2", "--html", str(tmp_path / "two.html"))
    page = (tmp_path / "one.html").read_text()
    assert page == (tmp_path / "two.html").read_text()
    assert {"pp8-0", "tg4-0"} <= figures_of(page).keys()


JSONL = (
    '{"build_commit": "abc1234", "build_number": 7, "model_filename": "/x/m.gguf", "n_threads": 2, "n_prompt": 0, '
    '"n_gen": 4, "n_depth": 0, "avg_ns": 1000, "avg_ts": 5.5, "stddev_ts": 0.1, "samples_ts": [5.5]}\n'
)


def test_files_of_llama_bench(tmp_path):
    path = tmp_path / "old.jsonl"
    path.write_text(JSONL + JSONL.replace('"n_threads": 2', '"n_threads": 4').replace("5.5", "7.5"))
    assert [one["tokens_per_s"] for one in read_results(path)] == [5.5, 7.5]
    done = CliRunner().invoke(
        cli, ["sweep", "--read", str(path), "--db", str(tmp_path / "h.sqlite"), "--format", "json"]
    )
    document = json.loads(done.stdout)
    assert document["axes"] == ["n_threads"]
    assert [cell["results"]["tg4"]["tokens_per_s"] for cell in document["cells"]] == [5.5, 7.5]
    path.write_text("nothing of the kind")
    assert CliRunner().invoke(cli, ["sweep", "--read", str(path), "--db", str(tmp_path / "h.sqlite")]).exit_code == 3


def test_experiments_of_a_trace_are_run(build, tmp_path):
    """Without graphs the advice is to turn them on: the sweep runs both."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from dataclasses import replace

    from traces.synth.build import lay_out
    from traces.synth.presets import PRESETS
    from traces.synth.writer import write

    trace = tmp_path / "trace.sqlite"
    write(lay_out(replace(PRESETS["launch-bound"], steps=16), 1), trace, name="t", seed=1)
    document = json.loads(run(build, "--from-advice", str(trace), "--format", "json").stdout)
    seen = [(cell["settings"].get("env GGML_CUDA_DISABLE_GRAPHS"), cell["results"]["tg4"]["tokens_per_s"])
            for cell in document["cells"]]  # fmt: skip
    assert ("1", 5) in seen
    assert ("", 10) in seen


def test_depth_is_an_axis_of_one_test(build):
    document = json.loads(run(build, "-d", "0,64", "--format", "json").stdout)
    assert document["axes"] == ["n_depth"]
    assert [set(cell["results"]) for cell in document["cells"]] == [{"pp8", "tg4"}] * 2
