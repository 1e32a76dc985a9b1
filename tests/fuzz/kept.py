"""Targets that are neither traces nor logs: what nsyskit itself left earlier, and lists of traces.

Run folders, histories, kept columns and parts of a fleet may be damaged, old, or somebody else's; manifests and folders
are whatever a person names; a recipe's tables come from NVIDIA's Python.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from hashlib import sha256
from io import BytesIO, StringIO
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any
from unittest.mock import patch

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1]))

from served_run import served_run
from tiny_trace import write_sqlite

from nsyskit.analysis.analyze import analyze
from nsyskit.analysis.served import gpu_samples, served
from nsyskit.cli.analyze import program_texts
from nsyskit.cli.compare import run_paths
from nsyskit.cli.fleet import write as write_fleet
from nsyskit.cli.history import stored
from nsyskit.compare.compare import compare
from nsyskit.compare.sample import STEP_TIME, sample_run
from nsyskit.compare.server_tax import server_tax
from nsyskit.compare.store import load_sample
from nsyskit.fleet.content import UNKNOWN, fingerprint, stamp
from nsyskit.fleet.fleet import Options, run_fleet
from nsyskit.fleet.inputs import find_items
from nsyskit.fleet.task import Task, run_task
from nsyskit.history.history import Cell, History
from nsyskit.ingest import columns, open_shares, open_trace
from nsyskit.ingest.beside import read_beside
from nsyskit.ingest.cache import cache_info, clear_cache, make_room
from nsyskit.recipes.run import RecipeRun, read_tables
from nsyskit.recipes.show import render_csv, render_json, render_text
from nsyskit.redact import redact
from nsyskit.report.compare_text import render_text as render_comparison
from nsyskit.report.fleet_text import render_text as render_fleet
from nsyskit.report.history_html import render_trend as render_page
from nsyskit.report.history_text import render_run, render_runs, render_trend
from nsyskit.report.sweep_html import render_html as render_sweep
from nsyskit.report.sweep_text import render_table
from nsyskit.report.text import render_text as render_analysis
from nsyskit.sweep.ledgers import cell_ledgers
from nsyskit.sweep.table import tabulate
from tests.fuzz.hostile import damaged, number, text, value
from tests.fuzz.traces import (
    _CHANGES,
    _changed_frame,
    assert_no_formula,
    assert_no_script,
    assert_printable,
    refuse_constant,
    rows,
)

DEMO = Path(__file__).parents[2] / "traces" / "demo" / "trace.sqlite"
_LOG = "prompt eval time =     100.00 ms /    50 tokens (    2.00 ms per token,   500.00 tokens per second)\n"
_BENCH = '{"build_commit": "x", "model_filename": "m.gguf", "n_prompt": 8, "n_gen": 0, "avg_ts": 5.0, "avg_ns": 5}\n'


def tree(rng: Random, depth: int = 0) -> Any:
    """A value of JSON, nested or an edge."""
    kind = rng.randrange(8)
    if kind <= 1 and depth < 4:
        return {text(rng, longest=500): tree(rng, depth + 1) for _ in range(rng.randrange(4))}
    if kind == 2 and depth < 4:
        return [tree(rng, depth + 1) for _ in range(rng.randrange(4))]
    return rng.choice((number(rng), text(rng, longest=500), None, True, 1.5, float("nan"), float("-inf"), 10**400))


def changed(rng: Random, document: Any) -> Any:
    """A document of JSON with one value somewhere in it replaced, removed or added."""
    if not isinstance(document, dict | list) or not document or rng.random() < 0.2:
        return tree(rng)
    if isinstance(document, list):
        at = rng.randrange(len(document))
        return [*document[:at], changed(rng, document[at]), *document[at + 1 :]]
    name = rng.choice(list(document))
    if rng.random() < 0.15:
        return {key: one for key, one in document.items() if key != name}
    if rng.random() < 0.15:
        return document | {text(rng, longest=500): tree(rng)}
    return document | {name: changed(rng, document[name])}


def json_bytes(rng: Random, document: Any) -> bytes:
    """The document as a file would hold it, now and then as bytes that are none."""
    content = json.dumps(document).encode()
    kind = rng.random()
    if kind < 0.15:
        return damaged(rng, content, block=16)
    if kind < 0.18:
        return rng.choice((b"", b"[" * 100_000, b"\xff\xfe", b"1" * 5_000, b"null", b'"\\ud800"'))
    return content


def damage_database(rng: Random, path: Path) -> None:
    """An SQLite file with its bytes, its rows or its tables changed."""
    if rng.random() < 0.3:
        path.write_bytes(damaged(rng, path.read_bytes(), block=rng.choice((512, 4096))))
        return
    with closing(sqlite3.connect(path)) as connection:
        for _ in range(rng.choice((1, 1, 2, 4))):
            change = rng.choice([one for one in _CHANGES if one.__name__ not in _OF_TRACES])
            with suppress(sqlite3.Error, IndexError):
                change(rng, connection)
        connection.commit()


_OF_TRACES = frozenset({"_set_time", "_set_name", "_many_of_a_kind"})


def trap(rng: Random, folder: Path) -> None:
    """Something that is no plain file where one is looked for: a link out, a loop, a folder, a pipe."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.is_symlink()]
    if not files:
        return
    file = rng.choice(files)
    file.unlink()
    kind = rng.randrange(6)
    if kind == 0:
        file.symlink_to(file)
    elif kind == 1:
        file.mkdir()
    elif kind == 2:
        os.mkfifo(file)
    elif kind == 3:
        file.symlink_to(rng.choice(("/etc/passwd", "/dev/zero", "/dev/null", "/nowhere", "/usr/share/zoneinfo")))
    elif kind == 4:
        file.write_bytes(b"")


# --- run folders


@cache
def _run_folder() -> Path:
    folder = Path(mkdtemp(prefix="nsyskit-fuzz-run-")) / "run"
    served_run(folder)
    trace = write_sqlite(folder / "trace.sqlite", *rows())
    for arm in ("graph", "node", "run-1", "run-2"):
        (folder / arm).mkdir()
        (folder / arm / "run.json").write_bytes((folder / "run.json").read_bytes())
        (folder / arm / "trace.sqlite").write_bytes(trace.read_bytes())
    (folder / "program.out").write_text(_LOG)
    (folder / "program.err").write_text(_LOG)
    (folder / "results.jsonl").write_text(_BENCH)
    return folder


_FACTS: Mapping[str, Any] = {
    "schema": "nsyskit.run/1", "kind": "fused", "command": ["/x/llama-server", "-m", "m.gguf", "-ngl", "99"],
    "environment": {"GGML_CUDA_FORCE_MMQ": "1"}, "model": {"model": "m.gguf", "size_bytes": 5},
    "llama": {"build_number": 5, "build_commit": "abc"}, "nsys": {"version": "2023.4"}, "profile": "graph",
    "driver": {"driver_version": "535"}, "gpus": [{"gpu": 0, "name": "x"}], "load": {"concurrency": 2, "rate": None},
    "times": {"begin_ns": 5}, "arms": ["graph", "node", "run-1"], "outcome": {"state": "complete", "exit_code": 0},
    "summary": {"load": {"requests": 3}},
}  # fmt: skip
_ARMS = ("../outside", "/etc", ".", "..", "graph/../..", "a\0b", "x" * 5_000, "graph\n", "\ud800", "", "~")


def runs(rng: Random, folder: Path) -> None:
    """A run folder, as every command that takes one looks at it."""
    place = folder / "run"
    shutil.copytree(_run_folder(), place)
    if rng.random() < 0.3:
        (place / "trace.sqlite").unlink()
    document: Any = dict(_FACTS)
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        document = changed(rng, document)
    if isinstance(document, dict):
        document["schema"] = _FACTS["schema"]
        if rng.random() < 0.3:
            document["arms"] = [rng.choice((*_ARMS, "graph", "run-1", "run-2")) for _ in range(rng.randrange(4))]
    (place / "run.json").write_bytes(json_bytes(rng, document))
    if rng.random() < 0.4:
        damage_database(
            rng, place / rng.choice(("requests.sqlite", "nvml.sqlite", "requests.sqlite", "run-1/trace.sqlite"))
        )
    if rng.random() < 0.2:
        log = place / rng.choice(("program.out", "program.err", "results.jsonl"))
        log.write_bytes(damaged(rng, log.read_bytes(), block=16) + text(rng).encode(errors="replace"))
    if rng.random() < 0.15:
        trap(rng, place)
    outside = _outside(folder)
    rng.choice((_analyzed_run, _analyzed_run, _compared_run, _taxed_run, _fleet_of_a_run, _redacted_run))(place)
    assert _outside(folder) == outside


def _outside(folder: Path) -> list[str]:
    """What lies beside the place of a case."""
    return sorted(entry.name for entry in folder.iterdir() if entry.name != "run")


def _analyzed_run(place: Path) -> None:
    opened = open_trace(place)
    shares = open_shares(place)
    program_texts(opened, place, ())
    beside = read_beside(place)
    served(beside)
    gpu_samples(beside)
    assert_printable(render_analysis(analyze(opened, only=["sync", "program"], shares=shares), width=100, color=False))


def _compared_run(place: Path) -> None:
    from nsyskit.runfolder import load_run

    for path in run_paths(place):
        found = sample_run(open_trace(path), run=load_run(path).facts)
        json.dumps(dict(found.setup))


def _taxed_run(place: Path) -> None:
    server_tax(place, place)


def _fleet_of_a_run(place: Path) -> None:
    scratch = place / ".scratch"
    scratch.mkdir()
    outcome = run_task(Task("run", str(place)), scratch)
    assert not outcome.fault, outcome.error
    scratch.rmdir()


def _redacted_run(place: Path) -> None:
    redact(place, place / "clean.sqlite")


# --- histories


@cache
def _history() -> bytes:
    folder = Path(mkdtemp(prefix="nsyskit-fuzz-history-"))
    sample = sample_run(open_trace(DEMO))
    results = ({"label": "tg8", "phase": "decode", "tokens_per_s": 5.0, "n_gen": 8, "model_type": "llama 7B Q4_0"},)
    with History(folder / "h.sqlite") as history:
        for _ in range(2):
            history.add(stored(sample, ("main",)))
        for at in range(2):
            settings = {"model": f"m{at}.gguf", "n_threads": str(at)}
            history.put_cell(Cell("s", f"k{at}", settings, "done", "2026-01-01T00:00:00Z", None, None, results))
        history.put_cell(Cell("s", "k9", {"model": "x"}, "failed", "2026-01-01T00:00:00Z", "killed", "/nowhere/x"))
        history.database.conn.execute("PRAGMA journal_mode = DELETE")
    return (folder / "h.sqlite").read_bytes()


def history(rng: Random, folder: Path) -> None:
    """A history, as its commands, ``compare history:`` and ``sweep`` read it."""
    path = folder / "h.sqlite"
    path.write_bytes(_history())
    kind = rng.random()
    if kind < 0.5:
        damage_database(rng, path)
    else:
        with closing(sqlite3.connect(path)) as connection:
            for _ in range(rng.choice((1, 1, 2))):
                _spoil_history(rng, connection)
            connection.commit()
    with History(path) as opened:
        look = rng.choice((_listed, _shown, _trended, _compared, _swept, _swept, _added))
        look(opened)


def _spoil_history(rng: Random, connection: sqlite3.Connection) -> None:
    """Facts and settings that are other JSON, steps that are other Parquet, numbers and names of every kind."""
    table, column = rng.choice((("runs", "facts"), ("cells", "settings"), ("results", "facts")))
    (kept,) = connection.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone()
    kind = rng.randrange(5)
    with suppress(sqlite3.Error):
        if kind <= 1:
            told = json_bytes(rng, changed(rng, _plain_or_nothing(kept)))
            connection.execute(f"UPDATE {table} SET {column} = ?", (rng.choice((told, told.decode(errors="replace"))),))
        elif kind == 2:
            (steps,) = connection.execute("SELECT parquet FROM steps LIMIT 1").fetchone()
            connection.execute("UPDATE steps SET parquet = ?", (_other_steps(rng, steps),))
        elif kind == 3:
            connection.execute("UPDATE metrics SET value = ?, unit = ?", (value(rng), text(rng, longest=500)))
        else:
            name = rng.choice(("name", "added", "build", "model", "gpu", "nsys"))
            connection.execute(f"UPDATE runs SET {name} = ?", (value(rng),))


def _other_steps(rng: Random, kept: bytes) -> bytes:
    if rng.random() < 0.3:
        return damaged(rng, kept)
    try:
        frame = pl.read_parquet(BytesIO(kept))
    except pl.exceptions.PolarsError:
        return kept  # damaged before
    out = BytesIO()
    with suppress(pl.exceptions.PolarsError, OverflowError, TypeError, ValueError):
        _changed_frame(rng, frame).write_parquet(out)
    return out.getvalue()


def _listed(opened: History) -> None:
    assert_printable(render_runs(opened.runs()))


def _shown(opened: History) -> None:
    assert_printable(render_run(opened.run("main")))


def _trended(opened: History) -> None:
    metric = f"decode.{STEP_TIME}"
    points = opened.trend(metric)
    assert_printable(render_trend(metric, points))
    assert_no_script(render_page(metric, points, plotly="directory"))


def _compared(opened: History) -> None:
    samples = [load_sample(run.facts, run.steps) for run in map(opened.whole, [run.id for run in opened.runs()])]
    found = compare(samples[:1], samples[1:] or samples, anyway=True)
    assert_printable(render_comparison(found, (), width=100, color=False))


def _swept(opened: History) -> None:
    table = tabulate(opened.cells("s"))
    ledgers = cell_ledgers(table)
    assert_printable(render_table("s", table, ledgers))
    assert_no_script(render_sweep("s", table, ledgers))


def _added(opened: History) -> None:
    run = opened.run("main")
    opened.add(run)
    opened.tag("other", [run.id], move=True)


def _plain_or_nothing(kept: str | bytes) -> Any:
    """JSON; nothing where it was damaged before."""
    try:
        return json.loads(kept)
    except (ValueError, RecursionError, TypeError):
        return {}


# --- kept columns


@cache
def _kept() -> tuple[Path, Path, dict[str, Any]]:
    """A trace, the cache of its columns, and what it holds."""
    folder = Path(mkdtemp(prefix="nsyskit-fuzz-columns-"))
    trace = write_sqlite(folder / "t.sqlite", *rows())
    with _small_files_too(folder / "cache"):
        held = _everything(trace)
    assert list((folder / "cache" / "columns").glob("*/kernels-*")), "the cache is warm"
    return trace, folder / "cache", held


@contextmanager
def _small_files_too(place: Path) -> Iterator[None]:
    """The cache of tests: of any size and age, at the first look."""
    rules = patch.multiple(columns, SMALLEST_BYTES=1, _SETTLED_NS=0, _AT_SECOND_LOOK=False)
    with rules, patch.dict(os.environ, {"NSYSKIT_CACHE": str(place), "NSYSKIT_CACHE_BYTES": "100000000"}):
        yield


def _everything(trace: Path) -> dict[str, Any]:
    opened = open_trace(trace)
    found: dict[str, Any] = {name: frame.collect().to_dict(as_series=False) for name, frame in opened.tables.items()}
    columns._writer().submit(int).result(timeout=60)
    return found | {"": opened.meta}


def kept_columns(rng: Random, folder: Path) -> None:
    """A cache that somebody damaged: the answers are the trace's, whatever lies there."""
    trace, cache_folder, held = _kept()
    place = folder / "cache"
    shutil.copytree(cache_folder, place)
    forged = False
    for _ in range(rng.choice((1, 1, 2, 5))):
        files = sorted(file for file in (place / "columns").rglob("*.parquet") if file.is_file())
        if not files:
            break
        forged |= _spoil_kept(rng, rng.choice(files))
    if rng.random() < 0.2:
        trap(rng, place)
    if rng.random() < 0.1:
        entry = next(iter((place / "columns").iterdir()))
        shutil.rmtree(entry)
        rng.choice((entry.touch, lambda: entry.symlink_to("/"), lambda: entry.symlink_to(entry), entry.mkdir))()
    victim = folder / "victim"
    victim.write_text("unharmed")
    if rng.random() < 0.1:
        (place / "columns" / "out").symlink_to(folder)
    with _small_files_too(place):
        told = _everything(trace)
        assert forged or told == held
        cache_info()
        make_room(rng.choice((0, 10**9)), keep=place / "columns")
        clear_cache()
    assert victim.read_text() == "unharmed"


def _spoil_kept(rng: Random, file: Path) -> bool:
    """Whether what the file holds now cannot be told from what was kept: other rows of the same shape, sum and all."""
    content = file.read_bytes()
    kind = rng.randrange(5)
    if kind == 0:
        file.write_bytes(damaged(rng, content))
        return False
    if kind == 1:
        file.with_name(rng.choice(("kernels-00000000.parquet", "rows-zzzzzzzz.parquet", ".kernels.new"))).write_bytes(
            content
        )
        return False
    try:
        frame = pl.read_parquet(file)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return False  # damaged before
    if kind == 2 or not frame.width:
        content = damaged(rng, content)
    else:
        with suppress(pl.exceptions.PolarsError, OverflowError, TypeError, ValueError):
            made = _changed_frame(rng, frame)
            if made.schema != frame.schema:  # other rows of the same shape could not be told from what was kept
                made.write_parquet(file, compression="uncompressed")
                content = file.read_bytes()
    file.write_bytes(content)
    file.rename(file.with_name(f"{file.stem[:-8]}{columns._crc(file):08x}.parquet"))
    return True


# --- fleets


_NAMES = (
    "a.sqlite", "../a.sqlite", "/etc/passwd", "a\0b.sqlite", "~nobody-at-all/x.sqlite", "~/x.sqlite", "http://[/x", "s3://u:p@h/x",
    "file:///etc/passwd", "file://../x", "memory://a/../../b.sqlite", "x" * 5_000, "\ud800.sqlite", "\u202egnp.sqlite", "=1+1.sqlite",
    "nosuch://x", "file://" + "y" * 300, "*", "[", "a.sqlite\r", "sub", "sub/../a.sqlite", "-rf", "loop", "://",
)  # fmt: skip


def fleet_inputs(rng: Random, folder: Path) -> None:
    """Manifests, folders and patterns, up to the point where their traces are looked at."""
    place = folder / "in"
    place.mkdir()
    for name in ("a.sqlite", "sub/b.sqlite", "sub/run.json", "sub/trace.sqlite", "p/StringIds.parquet"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(b"x")
    with suppress(OSError, ValueError):
        (place / f"{text(rng, longest=50)}.sqlite").write_bytes(b"y")
    if rng.random() < 0.3:
        trap(rng, place)
    if rng.random() < 0.2:
        (place / "loop").symlink_to(place)
    kind = rng.randrange(8)
    if kind <= 5:
        ending = rng.choice((".txt", ".csv", ".tsv", ".jsonl"))
        manifest = place / f"list{ending}"
        manifest.write_bytes(_manifest(rng, ending))
        named = [str(manifest)]
    elif kind == 6:
        named = [str(place), rng.choice((str(place / "*"), str(place / "**"), str(place)))]
    else:
        named = [rng.choice([name for name in _NAMES if "\0" not in name and name.isascii()])]
    for item in find_items(named):
        assert_printable(item.name + "".join(item.labels) + "".join(item.labels.values()))
        known = stamp(item.location)
        if known is not UNKNOWN:
            fingerprint(item.location, known)


def _manifest(rng: Random, ending: str) -> bytes:
    def cell() -> Any:
        return rng.choice((rng.choice(_NAMES), "a.sqlite", "sub", text(rng, longest=1_000)))

    if ending == ".jsonl":
        lines = [json.dumps({"path": cell()} | ({"host": tree(rng)} if rng.random() < 0.5 else {})) for _ in range(3)]
        lines += [json_bytes(rng, tree(rng)).decode(errors="replace")] if rng.random() < 0.3 else []
    elif ending == ".txt":
        lines = [str(cell()) for _ in range(rng.randrange(5))]
    else:
        out = StringIO()
        writer = csv.writer(out, delimiter="\t" if ending == ".tsv" else ",")
        head = ["path", rng.choice(("host", "rank", "path", "", text(rng, longest=200)))]
        with suppress(csv.Error):
            writer.writerows([head, *([cell(), text(rng, longest=200_000)] for _ in range(rng.randrange(4)))])
        lines = [out.getvalue()]
    content = "\n".join(lines).encode(errors=rng.choice(("replace", "surrogatepass")))
    return damaged(rng, content, block=16) if rng.random() < 0.2 else content


@cache
def _fleet() -> tuple[Path, Path]:
    """Traces, and the output of a fleet over them."""
    folder = Path(mkdtemp(prefix="nsyskit-fuzz-fleet-"))
    (folder / "in" / "b").mkdir(parents=True)
    shutil.copyfile(DEMO, folder / "in" / "a.sqlite")
    write_sqlite(folder / "in" / "b" / "c.sqlite", *rows())
    with patch.dict(os.environ, {"NSYSKIT_FLEET_KEY": str(folder / "key")}):
        run_fleet([str(folder / "in")], folder / "out", options=Options(scheduler="local"))
    return folder / "in", folder / "out"


def fleet_parts(rng: Random, folder: Path) -> None:
    """An output folder of an earlier fleet that was damaged, or handed over by somebody: continued and shown."""
    source, made = _fleet()
    out = folder / "out"
    shutil.copytree(made, out)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _spoil_part(rng, out / "parts")
    victim = folder / "victim"
    victim.write_text("unharmed")
    if rng.random() < 0.2:
        _linked(rng, out, victim)
    with patch.dict(os.environ, {"NSYSKIT_FLEET_KEY": str(source.parent / "key")}):
        result = run_fleet([str(source)], out, options=Options(scheduler="local"))
    assert not any(one.fault for one in result.failed), result.failed
    assert victim.read_text() == "unharmed"
    assert sorted(entry.name for entry in folder.iterdir()) == ["out", "victim"]
    write_fleet(result, out)
    assert_no_script((out / "fleet.html").read_text())
    json.loads((out / "fleet.json").read_text(), parse_constant=refuse_constant)
    assert_printable(render_fleet(result))


def _spoil_part(rng: Random, parts: Path) -> None:
    facts = sorted(file for file in parts.glob("??/*.json") if file.is_file())
    facts = [file for file in facts if file.with_suffix(".parquet").is_file()]
    if not facts:
        return
    file = rng.choice(facts)
    rows_file = file.with_suffix(".parquet")
    kind = rng.randrange(6)
    if kind <= 2:
        document = _read_json(file)
        for _ in range(rng.choice((1, 1, 3))):
            document = changed(rng, document)
        if isinstance(document, dict) and "rows_sha256" in document and rows_file.is_file():
            document["rows_sha256"] = sha256(rows_file.read_bytes()).hexdigest()
        file.write_bytes(json_bytes(rng, document))
    elif kind == 3:
        _spoil_rows(rng, file, rows_file)
    elif kind == 4:
        index = parts / "index.jsonl"
        if not index.is_file():
            return
        lines = [json.dumps(changed(rng, document)) for document in map(_read_json, [index])]
        content = "\n".join([*lines, json.dumps(tree(rng))]).encode()
        index.write_bytes(damaged(rng, content, block=16) if rng.random() < 0.3 else content)
    else:
        trap(rng, parts)


def _spoil_rows(rng: Random, file: Path, rows_file: Path) -> None:
    """Other rows, of which the facts know the hash."""
    if rng.random() < 0.3:
        rows_file.write_bytes(damaged(rng, rows_file.read_bytes()))
    else:
        with suppress(pl.exceptions.PolarsError, OverflowError, TypeError, ValueError):
            _changed_frame(rng, pl.read_parquet(rows_file)).write_parquet(rows_file)
    document = _read_json(file)
    if isinstance(document, dict):
        document["rows_sha256"] = sha256(rows_file.read_bytes()).hexdigest()
        file.write_text(json.dumps(document))


def _read_json(file: Path) -> Any:
    """What a file holds, or its first line."""
    return _plain_or_nothing(file.read_bytes().split(b"\n{")[0]) if file.is_file() else {}


def _linked(rng: Random, out: Path, victim: Path) -> None:
    """Links out of the folder, under names that will be written to."""
    parts = out / "parts"
    place = rng.choice((parts / "index.jsonl", out / "fleet.html", out / "traces.parquet", parts / "FORMAT"))
    if place.is_dir():
        place.rmdir()
    place.unlink(missing_ok=True)
    place.symlink_to(victim)


# --- tables of recipes


def recipes(rng: Random, folder: Path) -> None:
    """A folder of Parquet files that a recipe left: nsyskit's, NVIDIA's, or something in their place."""
    out = folder / "llama_gpu_gaps"
    out.mkdir()
    frames = {
        "trust": pl.DataFrame({"file": ["a"], "level": ["error"], "code": ["left_out"], "message": ["why"]}),
        "devices": pl.DataFrame({"file": ["a", "b"], "busy_ns": [5, 2**62], "share": [0.5, None], "name": ["x", None]}),
        "stats": pl.DataFrame({"Time": [0.5, float("nan")], "=cmd": ["@x", "\u202ey"], "n": [[1], [2]], "s": [{"a": 1.0}] * 2}),
    }  # fmt: skip
    for name, frame in frames.items():
        kind = rng.randrange(6)
        made = frame
        for _ in range(rng.choice((0, 1, 1, 3))):
            with suppress(pl.exceptions.PolarsError, OverflowError, TypeError, ValueError):
                made = _changed_frame(rng, made)
        if rng.random() < 0.1 and made.estimated_size() < 10_000:
            made = pl.concat([made] * rng.choice((1, 300, 1_000)))
        content = BytesIO()
        made.write_parquet(content)
        with suppress(OSError, ValueError):
            (out / f"{rng.choice((name, name, text(rng, longest=50)))}.parquet").write_bytes(content.getvalue())
        if kind == 0:
            for file in out.glob("*.parquet"):
                file.write_bytes(damaged(rng, file.read_bytes()))
    if rng.random() < 0.2:
        trap(rng, out)
    run = RecipeRun("llama_gpu_gaps", read_tables(out), "")
    assert_printable(render_text(run, top=rng.choice((1, 10, 10_000)), width=rng.choice((1, 20, 100))))
    assert_no_formula(render_csv(run))
    json.loads(render_json(run), parse_constant=refuse_constant)
