"""``capture --redact``: of a trace only its cleaned export stays, and what has to stay is named."""

import shutil

import pytest
from click.testing import CliRunner
from tiny_trace import kernel, write_sqlite

from nsyskit.capture.clean import clean_trace
from nsyskit.cli import cli
from nsyskit.errors import OutputError
from nsyskit.runfolder import RunFolder

from .conftest import needs_nsys, program

PLANTED = "hunter2-of-the-environment"
QUICK = ["--no-nvml"]


def holding(folder):
    return {path.name for path in folder.iterdir() if path.is_file() and PLANTED.encode() in path.read_bytes()}


@needs_nsys
def test_nothing_of_the_environment_stays(capture):
    words = program("busy_program.py", 0.2)
    plain = capture(QUICK, words, folder="plain", env={"MY_DATABASE": PLANTED})
    assert "trace.sqlite" in holding(plain.folder)
    run = capture([*QUICK, "--redact"], words, env={"MY_DATABASE": PLANTED})
    assert run.code == 0, run.err
    assert not holding(run.folder)
    assert not list(run.folder.glob("*.nsys-rep"))
    assert "trace.nsys-rep cannot be cleaned and was deleted" in run.err
    assert "share trace.sqlite alone" in run.err
    assert any("was deleted" in note for note in run.facts["outcome"]["notes"])
    result = CliRunner().invoke(cli, ["info", str(run.folder), "--secrets"])
    assert "environment" not in result.output
    assert CliRunner().invoke(cli, ["analyze", str(run.folder)]).exit_code == 0
    kept = [CliRunner().invoke(cli, ["analyze", str(one.folder), "-a", "osrt_sum"]).output for one in (plain, run)]
    assert all("OS runtime" in text for text in kept)


@needs_nsys
def test_a_rep_file_that_could_not_be_exported_is_named(capture, tmp_path):
    failing = tmp_path / "nsys"
    failing.write_text(f'#!/bin/sh\ncase $1 in export) exit 1;; esac\nexec {shutil.which("nsys")} "$@"\n')
    failing.chmod(0o755)
    run = capture([*QUICK, "--redact", "--nsys", failing], program("busy_program.py", 0.2))
    assert run.code != 0
    assert (run.folder / "trace.nsys-rep").exists()
    assert "trace.nsys-rep was not exported and so not cleaned: it still holds everything" in run.err


def test_without_an_export_there_is_nothing_to_clean():
    result = CliRunner().invoke(cli, ["capture", "--redact", "--no-export", "--", "true"])
    assert result.exit_code == 2
    assert "a rep file cannot be cleaned; leave out --no-export" in result.stderr


def test_what_cannot_be_cleaned_is_named(tmp_path):
    (tmp_path / "trace.sqlite").write_bytes(b"SQLite format 3\0 and no more")
    (tmp_path / "trace.nsys-rep").write_bytes(b"secrets")
    with pytest.raises(OutputError, match=r"trace\.sqlite, trace\.nsys-rep may hold secrets: delete them"):
        clean_trace(RunFolder(tmp_path))
    assert (tmp_path / "trace.nsys-rep").exists()


def test_every_kind_of_rep_file_goes(tmp_path):
    write_sqlite(tmp_path / "trace.sqlite", kernel("k", 0, 3))
    for name in ("trace.nsys-rep", "trace.qdstrm", "trace.qdrep"):
        (tmp_path / name).touch()
    notes = clean_trace(RunFolder(tmp_path))
    assert "trace.nsys-rep, trace.qdrep, trace.qdstrm cannot be cleaned" in notes[0]
    assert [path.name for path in tmp_path.iterdir()] == ["trace.sqlite"]
