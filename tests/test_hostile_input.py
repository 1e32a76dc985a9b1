"""A little of the fuzzing in every run, and the inputs that once crashed: refused in one line, or analysed."""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_trace import api, fact, kernel, memcpy, string, write_parquet, write_sqlite

from nsyskit.cli import cli
from tests.fuzz.hostile import FORMULAS, IMAGE, SCRIPT
from tests.fuzz.runner import outcome_of, targets
from tests.fuzz.traces import assert_no_formula, assert_no_script, assert_printable, outside_code

CORPUS = sorted((Path(__file__).parent / "fuzz" / "corpus").glob("*.gz"))
SHARE = {"sqlite-bytes": 12, "sqlite-rows": 12, "sqlite-many": 2, "parquet": 8, "gguf": 150, "logs": 100, "rules": 60}


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
    if path.suffix == ".gguf":
        said("model", path)
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
