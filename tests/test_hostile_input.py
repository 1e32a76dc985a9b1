"""A little of the fuzzing in every run, and the inputs that once crashed: refused in one line, or analysed."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import shutil
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from served_run import served_run
from tiny_trace import api, fact, kernel, memcpy, string, write_parquet, write_sqlite

from nsyskit.capture.config import default_folder
from nsyskit.cli import cli
from nsyskit.errors import NsysError, TraceFormatError
from nsyskit.fleet.remote import fetch
from nsyskit.fleet.store import Store
from nsyskit.recipes.run import RecipeRun, read_tables
from nsyskit.recipes.show import render_csv, render_text
from nsyskit.runfolder import load_run
from tests.fuzz.hostile import FORMULAS, IMAGE, SCRIPT
from tests.fuzz.runner import outcome_of, targets
from tests.fuzz.traces import assert_no_formula, assert_no_script, assert_printable, outside_code

DEMO = Path(__file__).parents[1] / "traces" / "demo" / "trace.sqlite"
CORPUS = sorted((Path(__file__).parent / "fuzz" / "corpus").glob("*.gz"))
SHARE = {"sqlite-bytes": 12, "sqlite-rows": 12, "sqlite-many": 2, "parquet": 8, "gguf": 150, "logs": 100, "rules": 60,
         "runs": 10, "history": 25, "columns": 10, "fleet-inputs": 40, "fleet-parts": 6, "recipes": 15,
         "pages": 60}  # fmt: skip


def said(*arguments: object) -> tuple[int, str]:
    """Exit code and output of a command that either works or says one clear line."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 0 or (result.exit_code >= 2 and result.stderr.count("\n") == 1)
    assert_printable(result.stderr)
    return result.exit_code, result.output


@pytest.mark.parametrize("name", list(SHARE))
def test_a_few_cases(tmp_path, name):
    for case in range(SHARE[name]):
        folder = tmp_path / str(case)
        folder.mkdir()
        assert outcome_of(targets()[name], 7, case, folder)[0] != "crash", (
            f"python -m tests.fuzz {name} --seed 7 --case {case}"
        )


@pytest.mark.parametrize("packed", CORPUS, ids=lambda path: path.name)
def test_what_once_crashed(tmp_path, packed):
    path = tmp_path / packed.stem
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    kind = packed.name.partition("-")[0]
    if path.suffix == ".gguf":
        said("model", path)
    elif kind == "history":
        for command in (["list"], ["show", "main"], ["trend", "decode.ms_per_token"]):
            said("history", *command, "--db", path)
        said("compare", "history:main", "history:main", "--anyway", "--db", path)
    elif kind == "runs":
        path.rename(tmp_path / "run.json")
        write_sqlite(tmp_path / "trace.sqlite", kernel("k", 5, 8, corr=1))
        for command in ("analyze", "info", "compare --anyway"):
            said(*command.split(), *[tmp_path] * (2 if command.startswith("compare") else 1))
    elif kind == "fleet":
        said("fleet", path, "-o", tmp_path / "out", "--scheduler", "local")
    elif kind == "recipes":
        with suppress(NsysError):
            run = RecipeRun("x", read_tables(tmp_path), "")
            assert_printable(render_text(run))
            assert_no_formula(render_csv(run))
    else:
        for command in (["analyze"], ["info"], ["info", "--secrets"], ["analyze", "--format", "json"]):
            said(command[0], path, *command[1:])


@pytest.mark.parametrize("name", ["sqlite", "parquet"])
def test_times_that_cannot_be(tmp_path, name):
    """Left out, counted and named; above one in a hundred rows of a table there is no verdict."""
    rows = [api("cudaLaunchKernel", at, at + 2, corr=at) for at in range(0, 900, 3)]
    rows += [kernel("k", at, at + 3, corr=at) for at in range(0, 900, 3)]
    bad = [kernel("k", 2**61 + 1, 2**61 + 2), kernel("k", 9, 8), kernel("k", -(2**63), 2**63 - 1)]
    write = write_sqlite if name == "sqlite" else write_parquet
    few, many = write(tmp_path / "few", *rows, *bad), write(tmp_path / "many", *rows, *bad, *bad)
    few = few.rename(few.with_suffix(".sqlite")) if name == "sqlite" else few
    many = many.rename(many.with_suffix(".sqlite")) if name == "sqlite" else many
    code, text = said("analyze", few)
    assert (code, "3 of 303 rows of kernels end before they begin" in text) == (0, True)
    assert "gpu-bound" in text
    assert "gpu-bound" not in said("analyze", many)[1]


def test_sums_that_would_wrap_around(tmp_path):
    rows = [memcpy("HtoD", 0, 5, 2**62 - 1, corr=1) for _ in range(4)]
    code, text = said("analyze", write_sqlite(tmp_path / "t.sqlite", *rows))
    assert code == 3
    assert "add up to more than 2^62" in text


def test_fractions_are_not_cut(tmp_path):
    path = write_sqlite(tmp_path / "t.sqlite", api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 5, 8, corr=1))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET end = 8.5")
        connection.commit()
    assert said("analyze", path)[0] == 3


def test_one_id_for_two_strings(tmp_path):
    path = write_sqlite(
        tmp_path / "t.sqlite", string(5, "first"), string(5, "second"), kernel("", 0, 3, demangledName=5, shortName=5)
    )  # fmt: skip
    code, text = said("analyze", path, "-a", "kernel_sum")
    assert (code, "first" in text, "second" in text) == (0, True, False)


def test_every_place_where_a_file_ends(tmp_path):
    whole = write_sqlite(tmp_path / "t.sqlite", *(kernel(f"k{at}", at, at + 3, corr=at) for at in range(500)))
    content = whole.read_bytes()
    for end in range(0, len(content), 4096):
        whole.write_bytes(content[:end])
        assert said("analyze", whole)[0] == 3


def test_names_that_attack(tmp_path):
    names = [SCRIPT, IMAGE, "\u202egnp.exe", "\x1b[2J", *FORMULAS, "x" * 1_000_000]
    rows = [kernel(name, 10 * at, 10 * at + 9, corr=at) for at, name in enumerate(names)]
    calls = [api(name, 10 * at, 10 * at + 1, corr=at) for at, name in enumerate(names)]
    path = write_sqlite(tmp_path / "t.sqlite", *rows, *calls, fact("PROCESS_0:COMMAND", SCRIPT))
    assert_printable(said("analyze", path)[1])
    assert_no_formula(said("analyze", path, "--format", "csv", "-a", "kernel_sum")[1])
    assert_no_script(outside_code(said("report", path, "--format", "markdown")[1]))
    assert said("report", path, "-o", tmp_path / "r.html")[0] == 0
    assert_no_script((tmp_path / "r.html").read_text())


def attacked(path: Path) -> Path:
    """The demo trace with attacks in everything that has a name."""
    shutil.copyfile(DEMO, path)
    with closing(sqlite3.connect(path)) as connection:
        (last,) = connection.execute("SELECT max(id) FROM StringIds").fetchone()
        attacks = [*FORMULAS, SCRIPT, IMAGE, "\u202egnp.exe\u2066", "\x1b[2J\x07", "](javascript:x)|`", "{{7*7}}"]
        kernels = connection.execute("SELECT DISTINCT demangledName FROM CUPTI_ACTIVITY_KIND_KERNEL").fetchall()
        for attack, (number,) in zip(itertools.cycle(attacks), kernels, strict=False):
            connection.execute("UPDATE StringIds SET value = ? || value WHERE id = ?", (attack, number))
        connection.execute("UPDATE TARGET_INFO_GPU SET name = ?", (f"{SCRIPT}\u202eGPU\x1b[2J",))
        connection.execute("UPDATE ThreadNames SET nameId = ?", (last,))
        connection.execute("UPDATE PROCESSES SET name = ?", (f"/x/{IMAGE}\x1b[2J",))
        connection.execute(
            "UPDATE META_DATA_CAPTURE SET value = '/x/llama-\x1b\u202e' || value WHERE name LIKE '%COMMAND'"
        )
        connection.commit()
    return path


def test_names_that_attack_every_output(tmp_path):
    path, db = attacked(tmp_path / "trace.sqlite"), ["--db", tmp_path / "h.sqlite"]
    printed = [
        ["analyze", path], ["info", path], ["ranks", path, path], ["compare", path, path, "--anyway", "--every-line"],
        ["history", "add", path, "--tag", "t\u202e\x1b", *db], ["history", "list", *db], ["history", "show", "1", *db],
        ["history", "trend", "decode.ms_per_token", *db, "--html", tmp_path / "trend.html"],
        ["fleet", path, "-o", tmp_path / "fleet", "--scheduler", "local"],
    ]  # fmt: skip
    for command in printed:
        code, told = said(*command)
        assert code in {0, 2}, told
        assert_printable(told)
    for markdown in (
        ["report", path, "--format", "markdown"],
        ["compare", path, path, "--anyway", "--format", "markdown"],
    ):
        assert_no_script(outside_code(said(*markdown)[1]))
    assert_no_formula(said("analyze", path, "--format", "csv", "-a", "kernel_sum")[1])
    said("report", path, "-o", tmp_path / "report.html")
    said("timeline", path, "--from", "+0us", "--to", "+900us", "-o", tmp_path / "timeline.html")
    said("compare", path, path, "--anyway", "--format", "html", "-o", tmp_path / "compare.html")
    for page in [*tmp_path.glob("*.html"), tmp_path / "fleet" / "fleet.html"]:
        assert_no_script(page.read_text().partition("<script>/**")[0])
    assert {page.name for page in tmp_path.glob("*.html")} == {f"{name}.html" for name in (
        "report", "timeline", "compare", "trend")}  # fmt: skip


def test_a_file_name_that_attacks(tmp_path):
    path = write_sqlite(tmp_path / "t.sqlite", api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 5, 8, corr=1))
    path = path.rename(tmp_path / f"{IMAGE}\x1b[2J\u202e.sqlite")
    assert_printable(said("analyze", path)[1])
    assert said("report", path, "-o", tmp_path / "r.html")[0] == 0
    assert_no_script((tmp_path / "r.html").read_text())


def test_links_out_of_a_parquet_directory_write_nothing(tmp_path):
    folder = write_parquet(tmp_path / "t", kernel("k", 5, 8, corr=1), api("cudaLaunchKernel", 0, 3, corr=1))
    victim = tmp_path / "victim"
    victim.write_text("unharmed")
    (folder / "OSRT_API.parquet").symlink_to(victim)
    (folder / "NVTX_EVENTS.parquet").symlink_to(folder)
    assert said("analyze", folder)[0] == 3
    assert victim.read_text() == "unharmed"


def test_arms_of_a_run_lie_inside_of_it(tmp_path):
    outside = served_run(tmp_path / "outside")
    write_sqlite(outside / "trace.sqlite", kernel("k", 5, 8, corr=1))
    run = tmp_path / "run"
    run.mkdir()
    for arm in ("../outside", str(outside), "..", ".", "", "a/../../outside", "x\0", "x" * 300, 5, None):
        (run / "run.json").write_text(json.dumps({"schema": "nsyskit.run/1", "arms": [arm]}))
        with pytest.raises(TraceFormatError):
            load_run(run)


@pytest.mark.parametrize("member", ["../escaped.parquet", "a/../../escaped.parquet", ".."])
def test_names_in_a_bucket_lead_nowhere_else(tmp_path, member):
    files = pytest.importorskip("fsspec").filesystem("memory")
    files.store["/bucket/t/../escaped.parquet"] = files.store["/bucket/t/x"] = object()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(TraceFormatError, match="leads outside"):
        fetch("memory://bucket/t", [member], scratch)
    files.store.clear()
    assert [entry.name for entry in tmp_path.rglob("*")] == ["scratch"]


def test_links_in_an_output_are_replaced_and_not_followed(tmp_path):
    path = write_sqlite(tmp_path / "trace.sqlite", api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 5, 8, corr=1))
    victim = tmp_path / "victim"
    victim.write_text("unharmed")
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("kernels.parquet", ".kernels.parquet", "strings.parquet"):
        (tables / name).symlink_to(victim)
    for name in ("r.html", "c.sqlite", "t.pftrace"):
        (tmp_path / name).symlink_to(victim)
    commands = (
        ["report", "-o", tmp_path / "r.html"], ["redact", "-o", tmp_path / "c.sqlite"],
        ["export", "--to", "perfetto", "-o", tmp_path / "t.pftrace"], ["export", "--to", "parquet", "-o", tables],
    )  # fmt: skip
    for command in commands:
        assert said(command[0], path, *command[1:], "--force")[0] == 0
        assert victim.read_text() == "unharmed"
    out = tmp_path / "fleet"
    Store(out).close()
    index = out / "parts" / "index.jsonl"
    index.unlink()
    index.symlink_to(victim)
    assert said("fleet", path, "-o", out, "--scheduler", "local")[0] == 6
    assert victim.read_text() == "unharmed"


@pytest.mark.parametrize(
    "program", ["../../../llama-cli", "..", "llama-\n\x1b[2J\u202e", "/bin/a b/llama;rm -rf *", "-o"]
)
def test_names_of_programs_in_the_name_of_a_folder(program):
    """``default_folder`` is one folder inside ``nsyskit-runs``, of letters, digits, dots, dashes and pluses."""
    named = default_folder([program, "-m", "../../m\0.gguf"], datetime(2026, 1, 31, 12, tzinfo=UTC))
    assert named.parent == Path("nsyskit-runs")
    assert re.fullmatch(r"20260131-120000-[\w.+-]*", named.name)


def test_other_databases_are_no_history(tmp_path):
    """Above all no trace: it would be written to."""
    path = write_sqlite(tmp_path / "trace.sqlite", kernel("k", 5, 8, corr=1))
    before = path.read_bytes()
    for command in (["list"], ["add", DEMO], ["tag", "x", "1"]):
        code, told = said("history", *command, "--db", path)
        assert (code, "is no history" in told) == (6, True)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["trace.sqlite"]


def test_what_runs_by_itself_has_no_place_in_a_history(tmp_path):
    db = tmp_path / "h.sqlite"
    assert said("history", "list", "--db", db)[0] == 0
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END")
        connection.commit()
    assert said("history", "add", DEMO, "--db", db)[0] == 6
