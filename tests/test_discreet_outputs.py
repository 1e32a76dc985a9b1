"""No output carries a secret of its trace: text, JSON, CSV, HTML, Markdown, Perfetto, Parquet, history, comparisons."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zlib
from base64 import b64decode
from contextlib import closing, suppress
from pathlib import Path
from re import compile as pattern

import polars as pl
import pytest
from click.testing import CliRunner
from planted_secrets import ARGUMENTS, PLANTED, VARIABLES, environment, plant
from tiny_trace import global_tid

from nsyskit.cli import cli
from nsyskit.ingest import columns
from nsyskit.recipes.tables import RECIPES, tables_of, write_tables

DEMO = Path(__file__).parents[1] / "traces" / "demo" / "trace.sqlite"
PACKED = pattern(rb"[A-Za-z0-9+/]{200,}={0,2}")
BY_NATURE = frozenset({"mallory", "secondhost"})
"""A thread may be called after a person; names of threads are shown."""


def with_secrets(path: Path) -> Path:
    """The demo trace with secrets in every table that can hold text."""
    shutil.copy(DEMO, path)
    path.chmod(0o644)
    with closing(sqlite3.connect(path)) as connection:
        run = connection.execute
        (last,) = run("SELECT max(id) FROM StringIds").fetchone()
        run("INSERT INTO StringIds VALUES (?, ?)", (last + 1, environment()))
        run("INSERT INTO StringIds VALUES (?, 'uid=1017 2001:db8::17')", (last + 2,))
        run("INSERT INTO META_DATA_CAPTURE VALUES ('PROCESS_0:WORKING_DIR', '/data/acme-merger')")
        run("DELETE FROM META_DATA_CAPTURE WHERE name LIKE 'PROCESS_0:ARGUMENT%'")
        run("UPDATE META_DATA_CAPTURE SET value = '/home/mallory/bin/' || value WHERE name LIKE 'PROCESS_0:COMMAND'")
        for at, word in enumerate(ARGUMENTS):
            run("INSERT INTO META_DATA_CAPTURE VALUES (?, ?)", (f"PROCESS_0:ARGUMENT_{at}", word))
        for name, value in VARIABLES.items():
            row = ("PROCESS_0:ENVIRONMENT_VARIABLE", f"{name}={value}")
            run("INSERT INTO META_DATA_CAPTURE VALUES (?, ?)", row)
        for name, value in (("EXPORT_HOST", "gpubox17"), ("EXPORT_USER", "mallory")):
            run("INSERT INTO META_DATA_EXPORT VALUES (?, ?)", (name, value))
        run("UPDATE PROCESSES SET name = '/home/mallory/llama.cpp/build/bin/' || name")
        run("CREATE TABLE IF NOT EXISTS TARGET_INFO_SYSTEM_ENV (globalVid, devStateName, name, nameEnum, value)")
        for name, value in (("DeviceEnvironment", environment()), ("Hostname", "gpubox17.corp.example.com")):
            run("INSERT INTO TARGET_INFO_SYSTEM_ENV VALUES (0, 'Local (CLI)', ?, 0, ?)", (name, value))
        run("INSERT INTO StringIds VALUES (?, '/data/acme-merger/quarterly/libllama.so')", (last + 3,))
        run("UPDATE OSRT_CALLCHAINS SET module = ?", (last + 3,))
        run("UPDATE SAMPLING_CALLCHAINS SET module = ?", (last + 3,))
        spoken = "/home/mallory/models/acme-private.gguf printed by the program: 203.0.113.9 swordfish\n"
        model = '"model_filename": "'
        run("UPDATE StringIds SET value = ? || replace(value, ?, ?) "
            "WHERE id IN (SELECT contentId FROM ProcessStreams)",
            (spoken, model, f"{model}/home/mallory/"))  # fmt: skip
        run(
            "INSERT INTO DIAGNOSTIC_EVENT (timestamp, timestampType, source, severity, text, globalPid) "
            "VALUES (1, 1, 1, 2, 'dropped on gpubox17: password diagnosticsecret', ?)",
            (global_tid(10, 0),),
        )
        connection.commit()
    return path


@pytest.fixture(params=["demo", "tiny"])
def secretive(tmp_path, request) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return (with_secrets if request.param == "demo" else plant)(folder / "trace.sqlite")


def run(*arguments: object, codes: tuple[int, ...] = (0,)) -> bytes:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in codes, result.output
    return result.output.encode()


def found(content: bytes) -> list[str]:
    """Secrets in an output, also in what it packs."""
    contents = [content]
    for block in PACKED.findall(content):
        with suppress(ValueError):
            packed = b64decode(block + b"=" * (-len(block) % 4))
            contents.append(packed)
            for bits in (15, 31, -15):
                with suppress(zlib.error):
                    contents.append(zlib.decompress(packed, bits))
    return sorted(
        secret for secret in PLANTED - BY_NATURE if any(secret.encode() in part for part in contents)
    )  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        ["analyze"], ["analyze", "--format", "json"], ["analyze", "--format", "csv"], ["info"], ["info", "--secrets"],
        ["info", "--format", "json"], ["report", "--format", "markdown"], ["analyze", "--top", "1000"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_printed(secretive, command):
    output = run(command[0], secretive, *command[1:], codes=(0, 4))
    assert found(output) == []
    assert b"/home/mallory" not in output


def test_several_reports_and_recipes(secretive):
    output = run("ranks", secretive, secretive, codes=(0, 2, 4))
    output += run("ranks", secretive, secretive, "--format", "json", codes=(0, 2, 4))
    for recipe in RECIPES:
        output += str(tables_of(str(secretive), "t", recipe=recipe)).encode()
    assert found(output) == []
    assert b"/home/mallory" not in output


def test_pages(secretive, tmp_path):
    run("report", secretive, "-o", tmp_path / "report.html", "--around", "+1us")
    run("analyze", secretive, "--html", tmp_path / "analysis.html")
    run("timeline", secretive, "--from", "+0us", "--to", "+20us", "-o", tmp_path / "timeline.html")
    for name in ("report", "analysis", "timeline"):
        page = (tmp_path / f"{name}.html").read_bytes()
        assert found(page) == []
        assert b"/home/mallory" not in page


def test_exports(secretive, tmp_path):
    run("export", secretive, "--to", "perfetto", "-o", tmp_path / "t.pftrace")
    assert found((tmp_path / "t.pftrace").read_bytes()) == []
    run("export", secretive, "--to", "parquet", "-o", tmp_path / "tables")
    for file in (tmp_path / "tables").iterdir():
        content = str(pl.read_parquet(file).to_dicts()).encode() + file.read_bytes()
        assert found(content) == []
        assert b"/home/mallory" not in content


def test_history_and_comparisons(secretive, tmp_path):
    database = tmp_path / "history.sqlite"
    said = run("history", "add", secretive, "--tag", "main", "--db", database, codes=(0, 2, 4))
    said += run("history", "list", "--db", database, codes=(0, 2)) + database.read_bytes()
    said += run("history", "show", "1", "--db", database, codes=(0, 2))
    options = ("--anyway", "--every-line")
    for form in ("text", "markdown", "json", "html"):
        said += run("compare", secretive, secretive, "--format", form, *options, codes=(0, 1, 2, 3, 4))
    assert found(said) == []
    assert b"/home/mallory" not in said


def test_sweeps(tmp_path):
    """What llama-bench prints of a model is its whole path."""
    record = {
        "build_commit": "x", "model_filename": "/home/mallory/models/tiny.gguf", "model_type": "llama 1B Q4_0",
        "n_prompt": 512, "n_gen": 0, "avg_ts": 5.0, "stddev_ts": 1.0, "avg_ns": 5, "samples_ts": [5.0],
        "env": "HF_TOKEN=hf_PlantedTokenAbc", "host": "gpubox17",
    }  # fmt: skip
    file, db = tmp_path / "results.jsonl", tmp_path / "h.sqlite"
    file.write_text(f"{json.dumps(record)}\n{json.dumps(record | {'n_prompt': 0, 'n_gen': 8})}\n")
    said = run("sweep", "--read", file, "--db", db, "--html", tmp_path / "sweep.html", "--name", "s")
    said += run("sweep", "--read", file, "--db", db, "--format", "json", "--name", "s")
    said += db.read_bytes() + (tmp_path / "sweep.html").read_bytes()
    assert b"tiny.gguf" in said
    assert found(said) == []
    assert b"/home/mallory" not in said


def test_tables_of_recipes(secretive, tmp_path):
    for recipe in RECIPES:
        write_tables(tables_of(str(secretive), "t", recipe=recipe), lambda name: str(tmp_path / name), csv=True)
    written = [*tmp_path.glob("*.csv"), *tmp_path.glob("*.parquet")]
    assert written
    for file in written:
        content = file.read_bytes() + (
            str(pl.read_parquet(file).to_dicts()).encode() if file.suffix == ".parquet" else b""
        )
        assert found(content) == []
        assert b"/home/mallory" not in content


def test_kept_columns(secretive, tmp_path, monkeypatch):
    """The same file is looked at twice with a cache that takes any size and age: it keeps numbers only."""
    monkeypatch.setenv("NSYSKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(columns, "SMALLEST_BYTES", 1)
    monkeypatch.setattr(columns, "_SETTLED_NS", 0)
    for _ in range(3):
        run("analyze", secretive, codes=(0, 4))
        columns._writer().submit(int).result(timeout=60)
    kept = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert [file for file in kept if file.name.startswith("kernels-")]
    for file in kept:
        content = file.read_bytes() + file.name.encode()
        if file.suffix == ".parquet":
            content += str(pl.read_parquet(file).to_dicts()).encode()
        assert found(content) == []


def test_refusals_quote_no_secret(secretive):
    with closing(sqlite3.connect(secretive)) as connection:
        connection.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = 'hf_PlantedTokenAbc'")
        connection.commit()
    assert found(run("analyze", secretive, codes=(3,))) == []
