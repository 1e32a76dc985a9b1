"""The server's tax on requests that can be added up in the head."""

import json
import sqlite3
from fractions import Fraction

import pytest
from click.testing import CliRunner
from page_figures import figures_of

from nsyskit.cli import cli
from nsyskit.compare.server_tax import server_tax
from nsyskit.errors import TraceFormatError, UsageError
from nsyskit.report.server_tax_html import waterfall

BENCH = {"build_commit": "abc1234", "build_number": 7, "model_filename": "/x/m.gguf", "n_threads": 4, "n_depth": 0,
         "avg_ns": 1, "stddev_ts": 0}  # fmt: skip


@pytest.fixture
def bench(tmp_path):
    """A prompt token takes 1 ms, a generated one 10 ms."""
    rows = [
        BENCH | {"n_prompt": 512, "n_gen": 0, "avg_ts": 1000.0},
        BENCH | {"n_prompt": 0, "n_gen": 8, "avg_ts": 100.0},
    ]
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def server(tmp_path, *, model="m.gguf", parts=("accept", "prefill", "decode"), concurrency=1):
    """Two requests of 20 prompt and 5 generated tokens, and a warm-up that does not count."""
    folder = tmp_path / "server"
    folder.mkdir()
    facts = {"schema": "nsyskit.run/1", "command": ["llama-server", "-m", f"/y/{model}", "-t", "8"],
             "load": {"concurrency": concurrency}}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(facts))
    database = sqlite3.connect(folder / "requests.sqlite")
    database.execute('CREATE TABLE requests ("index", warmup, error, total_ns, prompt_n, predicted_n)')
    database.execute('CREATE TABLE parts ("index", part, dur_ns)')
    lasted = {"accept": 3_000_000, "prefill": 25_000_000, "decode": 44_000_000}
    for index, warmup in ((0, 1), (1, 0), (2, 0)):
        database.execute("INSERT INTO requests VALUES (?, ?, NULL, 72000000, 20, 5)", (index, warmup))
        database.executemany("INSERT INTO parts VALUES (?, ?, ?)", [(index, part, lasted[part]) for part in parts])
    database.commit()
    database.close()
    return folder


def test_each_part_beyond_what_llama_bench_needs(bench, tmp_path):
    found = server_tax(bench, server(tmp_path))
    # 2 requests: 40 prompt tokens of 1 ms, and 4 tokens each after the first of 10 ms, over 10 tokens
    assert (found.requests, found.tokens, found.prompt_tokens) == (2, 10, 40)
    assert {part.name: (part.server, part.bench) for part in found.parts} == {
        "accept": (600_000, 0), "prefill": (5_000_000, 4_000_000), "decode": (8_800_000, 8_000_000),
    }  # fmt: skip
    assert found.tax_ns == Fraction(2 * 72_000_000, 10) - 12_000_000 == sum(part.tax for part in found.parts)
    assert [(item.name, item.base, item.candidate) for item in found.setup] == [("n_threads", "4", "8")]


def test_what_no_timestamps_bound_is_unattributed(bench, tmp_path):
    found = server_tax(bench, server(tmp_path, parts=("accept",)))
    assert {part.name: (part.server, part.bench) for part in found.parts} == {
        "accept": (600_000, 0), "unattributed": (13_800_000, 12_000_000),
    }  # fmt: skip


def test_requests_at_once_are_marked(bench, tmp_path):
    assert [reason.code for reason in server_tax(bench, server(tmp_path, concurrency=2)).reasons] == ["concurrent"]


def test_another_model_is_refused(bench, tmp_path):
    with pytest.raises(UsageError, match=r"different models: m\.gguf and n\.gguf"):
        server_tax(bench, server(tmp_path, model="n.gguf"))


def test_what_is_missing_is_named(bench, tmp_path):
    with pytest.raises(TraceFormatError, match="no run folder"):
        server_tax(bench, bench)
    run = server(tmp_path)
    bench.write_text(bench.read_text().splitlines()[0])
    with pytest.raises(TraceFormatError, match="no decode test"):
        server_tax(bench, run)


def test_on_the_command_line(bench, tmp_path):
    run = str(server(tmp_path))
    text = CliRunner().invoke(cli, ["compare", "--bench", str(bench), run]).stdout
    assert "sum 14.40 ms 12.00 ms +2.400 ms" in " ".join(text.split())
    document = json.loads(CliRunner().invoke(cli, ["compare", "--bench", str(bench), run, "--format", "json"]).stdout)
    assert document["tax_ns"] == sum(part["tax_ns"] for part in document["parts"]) == 2_400_000
    markdown = CliRunner().invoke(cli, ["compare", "--bench", str(bench), run, "--format", "markdown"]).stdout
    assert "| accept | 600.0 µs | 0 ns | +600.0 µs | HTTP, tokenizing, waiting for a slot |" in markdown
    assert "| sum | 14.40 ms | 12.00 ms | +2.400 ms |  |" in markdown
    assert "- differs: n\\_threads: 4 and 8" in markdown
    assert "most of the tax: prefill +1.000 ms a token" in markdown
    pages = [CliRunner().invoke(cli, ["compare", "--bench", str(bench), run, "--format", "html"]).stdout for _ in "ab"]
    assert pages[0] == pages[1]
    assert list(figures_of(pages[0])) == ["tax"]
    assert "14.40 ms − 12.00 ms = +2.400 ms" in pages[0]


def test_the_waterfall_leads_from_one_to_the_other(bench, tmp_path):
    (bars,) = waterfall(server_tax(bench, server(tmp_path)))["data"]
    assert bars["y"] == ["llama-bench", "accept", "prefill", "decode", "llama-server"]
    assert bars["x"] == [12_000, 600, 1_000, 800, 0]
    assert bars["text"][-1] == "14.40 ms"
