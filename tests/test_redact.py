"""``nsyskit redact``: nothing private stays anywhere in the file, every event does."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner
from planted_secrets import KEPT, PLANTED, plant
from tiny_trace import api, kernel, string, write_parquet, write_sqlite

from nsyskit.cli import cli
from nsyskit.cli.redact import CHOICES
from nsyskit.errors import UsageError
from nsyskit.redact import CLASSES, find_secrets, redact

FACTS = {"META_DATA_CAPTURE", "META_DATA_EXPORT", "TARGET_INFO_SYSTEM_ENV"}


@pytest.fixture
def planted(tmp_path):
    return plant(tmp_path / "trace.sqlite")


def run(*arguments: object):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def numbers(path):
    """Every number of every table but that of strings, in order, as the file holds it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        names = [name.decode() for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names if name != "StringIds"}
    return {
        name: [tuple(value for value in row if isinstance(value, int | float)) for row in rows]
        for name, rows in tables.items()
    }  # fmt: skip


def test_the_secrets_are_there_at_first(planted):
    stored = planted.read_bytes()
    assert len(PLANTED) >= 30
    assert {secret for secret in PLANTED if secret.encode() not in stored} <= {"D:\\\\Users", "\\\\fileserver"}


def test_no_byte_of_a_secret_stays(planted, tmp_path):
    redact(planted, tmp_path / "clean.sqlite")
    clean = (tmp_path / "clean.sqlite").read_bytes()
    assert [secret for secret in sorted(PLANTED) if secret.encode() in clean] == []
    assert [name for name in KEPT if name.encode() not in clean] == []


def test_every_number_stays(planted, tmp_path):
    redact(planted, tmp_path / "clean.sqlite")
    assert numbers(tmp_path / "clean.sqlite") == numbers(planted)


def analysis(path):
    """The JSON document without what is read from the program's output, and floats as far as they are exact."""
    said = json.loads(run("analyze", path, "--format", "json").stdout, parse_float=lambda text: round(float(text), 6))
    said["trace"].pop("tables")
    return said | {"program": None, "startup": None, "limits": None, "depth": None}


def test_the_same_analysis(planted, tmp_path):
    clean = tmp_path / "clean" / "trace.sqlite"
    clean.parent.mkdir()
    redact(planted, clean)
    before = json.dumps(analysis(planted)).replace("mallory@secondhost", "(hidden)")
    assert json.loads(before) == analysis(clean)


def test_real_traces_say_the_same(real_trace, tmp_path):
    redact(real_trace, tmp_path / "trace.sqlite")
    before, after = analysis(real_trace), analysis(tmp_path / "trace.sqlite")
    assert {name for name in before if before[name] != after[name]} == set()
    assert numbers(tmp_path / "trace.sqlite") == numbers(real_trace)


def test_once_is_enough(planted, tmp_path):
    redact(planted, tmp_path / "clean.sqlite")
    assert find_secrets(tmp_path / "clean.sqlite") == {}
    assert redact(tmp_path / "clean.sqlite", tmp_path / "again.sqlite").removed == {}
    with (
        closing(sqlite3.connect(tmp_path / "clean.sqlite")) as one,
        closing(sqlite3.connect(tmp_path / "again.sqlite")) as two,
    ):
        assert list(one.iterdump()) == list(two.iterdump())


def test_what_it_says(planted, tmp_path):
    result = run("redact", planted, "-o", tmp_path / "clean.sqlite")
    assert result.exit_code == 0
    assert result.stdout.startswith("removed:\n")
    assert result.stdout.endswith(f"{tmp_path}/clean.sqlite\n")
    assert {line.split()[1] for line in result.stdout.splitlines()[1:-1]} == set(CLASSES)
    assert not [secret for secret in PLANTED if secret in result.output]


def test_info_secrets_counts_the_same(planted, tmp_path):
    found = run("info", planted, "--secrets")
    assert found.stdout.startswith("found:\n")
    assert not [secret for secret in PLANTED if secret in found.output]
    counted = json.loads(run("info", planted, "--secrets", "--format", "json").stdout)["secrets"]
    assert counted == redact(planted, tmp_path / "clean.sqlite").removed


@pytest.mark.parametrize(
    ("kept", "stays"),
    [
        ("environment", "OPENAI_API_KEY"), ("argument", "projectbluebird"), ("credential", "diagnosticsecret"),
        ("host", "gpubox17"), ("user", "mallory"), ("home", "/home/mallory/build/bin/libggml-cuda.so"),
        ("address", "203.0.113.9"), ("output", "printed by the program"), ("other", "unknownfact77"),
    ],
)  # fmt: skip
def test_a_class_is_kept(planted, tmp_path, kept, stays):
    keep = {kept, "output"} if kept == "credential" else {kept, "user"} if kept == "home" else {kept}
    result = redact(planted, tmp_path / "clean.sqlite", keep=keep)
    assert not result.removed.keys() & keep
    assert stays.encode() in (tmp_path / "clean.sqlite").read_bytes()


def test_the_command_line_knows_the_classes():
    assert tuple(CLASSES) == CHOICES


def test_a_class_that_does_not_exist(planted, tmp_path):
    with pytest.raises(UsageError, match="no class of secrets"):
        redact(planted, tmp_path / "clean.sqlite", keep=["everything"])


def test_a_rep_file_is_refused_and_named(planted, tmp_path):
    report = tmp_path / "trace.nsys-rep"
    report.write_bytes(b"x")
    refused = run("redact", report, "-o", tmp_path / "clean.sqlite")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "cannot be cleaned" in refused.stderr
    done = run("redact", planted, "-o", tmp_path / "clean.sqlite")
    assert f"{report} still holds everything" in done.stderr


def test_other_refusals(planted, tmp_path):
    folder = write_parquet(tmp_path / "tables", kernel("k", 0, 3))
    for trace, code in ((folder, 2), (tmp_path / "gone.sqlite", 3), (tmp_path / "planted_folder", 3)):
        result = run("redact", trace, "-o", tmp_path / "clean.sqlite")
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1)
    assert run("redact", planted, "-o", planted, "--force").exit_code == 6
    assert not (tmp_path / "clean.sqlite").exists()


def test_names_that_only_look_private_stay(tmp_path):
    path = write_sqlite(
        tmp_path / "trace.sqlite",
        api("cudaLaunchKernel", 0, 3, corr=1),
        kernel("void k<int>(a=b)", 5, 8, corr=1),
        kernel("HF_TOKEN=hf_kernelsNameItself", 9, 12, corr=1),
        string(90, "unused"),
    )
    redact(path, tmp_path / "clean.sqlite")
    with closing(sqlite3.connect(tmp_path / "clean.sqlite")) as connection:
        values = {value for (value,) in connection.execute("SELECT value FROM StringIds")}
    assert values == {"cudaLaunchKernel", "void k<int>(a=b)", "HF_TOKEN=hf_kernelsNameItself"}


def test_schema_comments_views_and_free_pages_do_not_travel(tmp_path):
    path = write_sqlite(tmp_path / "trace.sqlite", api("cudaLaunchKernel", 0, 3, corr=1), string(90, "y" * 50_000))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE extra (a INTEGER DEFAULT 'plantedDefault' -- plantedComment\n, b)")
        connection.execute("INSERT INTO extra VALUES (1, x'736b2d706c616e7465646b6579')")
        connection.execute("CREATE VIEW v AS SELECT 'plantedView' AS a")
        connection.execute("DELETE FROM StringIds WHERE id = 90")
        connection.commit()
    redact(path, tmp_path / "clean.sqlite")
    clean = (tmp_path / "clean.sqlite").read_bytes()
    assert not [
        word
        for word in (b"yyyyyyyy", b"plantedDefault", b"plantedComment", b"plantedView", b"sk-planted")
        if word in clean
    ]
