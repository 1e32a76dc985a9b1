"""`nsyskit compare` and `nsyskit history` as they are typed."""

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from page_figures import figures_of

sys.path.insert(0, str(Path(__file__).parents[2]))

from nsyskit.cli import cli
from traces.synth.build import lay_out
from traces.synth.presets import PRESETS
from traces.synth.writer import write


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """A baseline and one without CUDA graphs."""
    folder = tmp_path_factory.mktemp("traces")
    preset = replace(PRESETS["bench-node"], steps=16)
    eager = replace(preset, options=replace(preset.options, graph="eager"))
    for name, one, seed in (("base", preset, 1), ("again", preset, 2), ("eager", eager, 3)):
        write(lay_out(one, seed), folder / f"{name}.sqlite", name=name, seed=seed)
    other = replace(PRESETS["host-bound"], steps=12)
    write(lay_out(other, 4), folder / "other.sqlite", name="other", seed=4)
    return folder


def run(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == code, done.output + done.stderr
    return done.stdout


def test_text_says_verdict_setup_and_parts(traces):
    text = " ".join(run("compare", traces / "base.sqlite", traces / "eager.sqlite").split())
    assert "base.sqlite → eager.sqlite" in text
    assert "CUDA graphs replayed per token: 0.969 to 0" in text
    assert "graph_trace node" in text
    assert "fewer than 3 runs a side (1 and 1)" in text


def test_json_sums_exactly(traces):
    document = json.loads(run("compare", traces / "base.sqlite", traces / "eager.sqlite", "--format", "json"))
    assert document["schema"] == "nsyskit.comparison/1"
    decode = document["phases"]["decode"]
    assert decode["cause"] == "graphs"
    assert sum(decode["parts"]["rounded_ns"].values()) == decode["parts"]["sum_ns"]
    assert document["enough_runs"] is False
    assert {item["name"] for item in document["setup"]["different"]} == {"graph_trace"}


def test_gates_set_the_exit_code(traces):
    pair = ("compare", traces / "base.sqlite", traces / "eager.sqlite")
    same = ("compare", traces / "base.sqlite", traces / "again.sqlite")
    assert "VIOLATED" in run(*pair, "--gate", "decode.graph_launches_per_token>=+0", code=1)
    assert "passed" in run(*same, "--gate", "decode.kernels_per_token<=+0")
    run(*same, "--gate", "decode.ms_per_token<=+3%")
    run(*same, "--gate", "prefill.ms_per_token<=+3%", code=2)  # too few steps
    run(*same, "--gate", "nonsense", code=2)


def test_a_gate_file(traces, tmp_path):
    gates = tmp_path / "gates.toml"
    gates.write_text('gates = ["decode.graph_launches_per_token>=+0"]')
    run("compare", traces / "base.sqlite", traces / "eager.sqlite", "--gate-file", gates, code=1)


def test_what_is_not_comparable_exits_2(traces):
    text = run("compare", traces / "base.sqlite", traces / "other.sqlite", code=2)
    assert "Not comparable: another model: vocabularies of 32000 and 151936." in text


REAL = Path(__file__).parents[3] / "shared" / "traces"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real exports lie in ../shared/traces")
def test_real_exports_that_hold_no_steps_are_refused_with_the_reason(traces):
    """Pairs as somebody might bring them: each with itself, each with the next, each with a llama.cpp run."""
    paths = sorted(REAL.glob("*/trace.sqlite"))
    pairs = [*zip(paths, paths, strict=True), *pairwise(paths), *((path, traces / "base.sqlite") for path in paths)]
    for base, candidate in pairs:
        document = json.loads(run("compare", "-q", base, candidate, "--format", "json", "--gate",
                                  "decode.ms_per_token<=+3%", code=2))  # fmt: skip
        assert document["comparable"] == "no"
        refused = [reason for reason in document["reasons"] if reason["level"] == "refused"]
        assert {reason["code"] for reason in refused} <= {"no_steps", "other_model"}
        assert refused[0]["code"] == "no_steps"
        assert refused[0]["message"].startswith(f"{document['base'][0]}: this trace holds no llama.cpp steps")
        assert [gate["outcome"] for gate in document["gates"]] == ["undecided"]


@pytest.mark.parametrize("name", ["bench-graph", "cpu-experts", "damaged", "demo", "two-gpus-layer-split"])
def test_a_trace_does_not_differ_from_itself(name):
    trace = Path(__file__).parents[2] / "traces" / name / "trace.sqlite"
    gates = [f"{metric}<=+0" for metric in ("launches_per_token", "syncs_per_token", "bytes_per_token")]
    document = json.loads(run("compare", trace, trace, "--format", "json", *(w for g in gates for w in ("--gate", g)),
                              code=2 if name == "two-gpus-layer-split" else 0))  # fmt: skip  # six steps are too few
    assert document["verdict"] == "no change"
    assert not any(line["verdict"] in {"slower", "faster", "more", "fewer"}
                   for phase in document["phases"].values() for line in phase["lines"])  # fmt: skip


def test_html_is_deterministic_and_self_contained(traces, tmp_path):
    for name in ("one.html", "two.html"):
        run("compare", traces / "base.sqlite", traces / "eager.sqlite", "--format", "html", "-o", tmp_path / name)
    page = (tmp_path / "one.html").read_text()
    assert page == (tmp_path / "two.html").read_text()
    assert "decode-waterfall" in figures_of(page)
    assert page.count('class="ledger"') == 4  # two ledgers for each of two phases
    assert 'src="http' not in page


def test_markdown_cells_cannot_break_the_table(traces):
    text = run("compare", traces / "base.sqlite", traces / "eager.sqlite", "--format", "markdown")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.count(" | ") in {1, 2, 5} for line in rows)


def test_repeated_runs_and_history(traces, tmp_path):
    db = tmp_path / "h.sqlite"
    added = run("history", "add", traces / "base.sqlite", traces / "again.sqlite", "--tag", "main", "--db", db)
    assert added == "run 1: base.sqlite tagged main\nrun 2: again.sqlite tagged main\n"
    kept = json.loads(run("compare", "history:main", traces / "eager.sqlite", "--db", db, "--format", "json"))
    direct = json.loads(run("compare", traces / "base.sqlite", traces / "eager.sqlite", "--base",
                            traces / "again.sqlite", "--format", "json"))  # fmt: skip
    assert kept == direct
    assert kept["base"] == ["base.sqlite", "again.sqlite"]
    listed = json.loads(run("history", "list", "--db", db, "--format", "json"))
    assert [one["tags"] for one in listed] == [["main"], ["main"]]
    run("history", "tag", "best", "2", "--db", db)
    assert "4." in run("history", "show", "best", "--db", db)
    points = json.loads(run("history", "trend", "decode.ms_per_token", "--db", db, "--format", "json"))
    assert [point["run"] for point in points] == [1, 2]
    assert "decode.ms_per_token" in run(
        "history", "trend", "decode.ms_per_token", "--db", db, "--html", tmp_path / "t.html"
    )
    assert list(figures_of((tmp_path / "t.html").read_text())) == ["trend"]
    run("compare", "history:nope", traces / "eager.sqlite", "--db", db, code=2)


def test_the_history_keeps_no_paths_or_command_lines(traces, tmp_path):
    db = tmp_path / "h.sqlite"
    run("history", "add", traces / "base.sqlite", "--db", db)
    content = db.read_bytes() + b"".join(path.read_bytes() for path in tmp_path.glob("h.sqlite-*"))
    assert str(tmp_path.parent).encode() not in content
    assert b"-ngl" not in content


def test_every_command_has_help_with_an_example():
    for words in (["compare"], ["history"], *(["history", name] for name in ("add", "list", "show", "trend", "tag"))):
        assert "Examples:" in run(*words, "--help")


def test_the_repetitions_of_a_run_folder_are_runs(traces, tmp_path):
    folder = tmp_path / "twice"
    for number, name in enumerate(("base", "again"), 1):
        arm = folder / f"run-{number}"
        arm.mkdir(parents=True)
        (arm / "trace.sqlite").write_bytes((traces / f"{name}.sqlite").read_bytes())
        (arm / "run.json").write_text('{"schema": "nsyskit.run/1"}')
    (folder / "run.json").write_text('{"schema": "nsyskit.run/1", "arms": ["run-1", "run-2"]}')
    document = json.loads(run("compare", folder, traces / "eager.sqlite", "--format", "json"))
    assert document["base"] == ["run-1", "run-2"]
