"""What a sweep measures beside speed, and what its traced cells say; programs stand in for llama.cpp's."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from page_figures import figures_of

from nsyskit.cli import cli
from nsyskit.history.history import Cell as KeptCell
from nsyskit.history.history import History
from nsyskit.report.sweep_html import axis_figure, render_html, speed_figure, trade_figure
from nsyskit.report.sweep_text import render_table
from nsyskit.sweep.grid import Cell, Tests
from nsyskit.sweep.ledgers import cell_ledgers
from nsyskit.sweep.table import quantisations, tabulate
from nsyskit.sweep.ttft import run_ttft, server_argv
from traces.synth.build import lay_out
from traces.synth.presets import PRESETS
from traces.synth.writer import write

Tests.__test__ = False

BENCH = f"""#!{sys.executable}
import json, sys
words = [word for word in sys.argv[1:] if word != "-v"]
given = dict(zip(words[::2], words[1::2]))
quant, size, rate = (("Q8_0", 2000, 10.0) if "q8" in given["-m"] else ("Q4_K - Medium", 1000, 16.0))
rate *= int(given.get("-t", "1"))
for name, test in (("n_prompt", "-p"), ("n_gen", "-n")):
    record = dict(build_commit="abc1234", build_number=7, model_filename=given["-m"], model_type="llama 1B " + quant,
                  model_size=size, model_n_params=2000, n_prompt=0, n_gen=0, n_depth=0, avg_ns=1000, stddev_ns=1,
                  avg_ts=rate * (10 if test == "-p" else 1), stddev_ts=0.5, samples_ts=[rate])
    print(json.dumps(record | {{name: int(given[test])}}))
    if "-v" in sys.argv:
        if test == "-p":
            print(f"load_tensors: CUDA0 model buffer size = {{size}}.00 MiB", file=sys.stderr)
        print("llama_context: n_ctx = 256\\nllama_kv_cache: CUDA0 KV buffer size = 4.00 MiB", file=sys.stderr)
"""
PERPLEXITY = f"""#!{sys.executable}
import os, sys
seen = sys.argv[0] + ".seen"
if os.path.exists(seen):  # the first time its log is lost, as of the real one
    print("Final estimate: PPL = " + ("5.9 +/- 0.1" if "q8" in sys.argv[2] else "6.1 +/- 0.1"))
open(seen, "w").close()
"""
SERVER = f"""#!{sys.executable}
import http.server, json, os, sys, time
words = sys.argv[1:]
if "-ngl" in words:
    sys.exit("error: unable to allocate CUDA0 buffer")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{{}}")
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        open(sys.argv[0] + ".log", "a").write(json.dumps([len(asked["prompt"]), asked["cache_prompt"]]) + "\\n")
        time.sleep(0.03)
        self.send_response(200); self.end_headers()
        for body in ({{"content": "", "tokens": [7]}}, {{"stop": True, "timings": {{"prompt_n": 8}}}}):
            self.wfile.write(b"data: " + json.dumps(body).encode() + b"\\n\\n")
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(words[words.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def build(tmp_path):
    folder = tmp_path / "build" / "bin"
    folder.mkdir(parents=True)
    for name, text in (("bench", BENCH), ("perplexity", PERPLEXITY), ("server", SERVER)):
        (folder / f"llama-{name}").write_text(text)
        (folder / f"llama-{name}").chmod(0o755)
    for name in ("q4.gguf", "q8.gguf", "text.txt"):
        (tmp_path / name).write_bytes(b"")
    return folder.parent


def sweep(build, *more: object, code: int = 0):
    here = build.parent
    words = ["sweep", "--model", here / "q4.gguf", "--model", here / "q8.gguf", "--build", build, "-p", "8", "-n", "4",
             "-r", "2", "--db", here / "h.sqlite", *more]  # fmt: skip
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done


def test_quantisations_with_memory_first_token_and_perplexity(build, tmp_path):
    extras = ("--memory", "--ttft", "--ppl", tmp_path / "text.txt")
    done = sweep(build, "-t", "1,2", *extras, "--format", "json", "--html", tmp_path / "s.html")
    small, large = json.loads(done.stdout)["quantisations"]
    assert (small["name"], small["settings"], small["bits_per_weight"]) == ("Q4_K - Medium", "n_threads=2", 4.0)
    assert (large["name"], large["size_bytes"], large["vram_bytes"]) == ("Q8_0", 2000, 2004 << 20)
    assert [one["results"]["tg4"]["tokens_per_s"] for one in (small, large)] == [32, 20]
    assert [one["results"]["ppl"]["ppl"] for one in (small, large)] == [6.1, 5.9]
    first = small["results"]["ttft8"]
    assert first["samples"] == 2
    assert 30 <= first["ttft_ms"] < 2000
    page = (tmp_path / "s.html").read_text()
    assert {"quants-speed", "quants-ppl", "ttft8-0", "tg4-1"} <= figures_of(page).keys()
    text = sweep(build, "-t", "1,2", *extras).stdout
    assert "Quantisations side by side" in text
    assert "2.101 GB" in text


def test_what_is_asked_for_later_is_measured_then(build):
    assert "2 ran" in sweep(build).stderr
    assert "2 ran, 0 failed, 0 known" in sweep(build, "--memory").stderr
    assert "0 ran, 0 failed, 2 known" in sweep(build, "--memory").stderr
    assert "0 ran, 0 failed, 2 known" in sweep(build).stderr


def test_a_server_that_fails_leaves_the_speeds(build):
    done = sweep(build, "-ngl", "9", "--ttft", "--format", "json")
    for cell in json.loads(done.stdout)["cells"]:
        assert cell["error"] == "llama-server: exit code 1: error: unable to allocate CUDA0 buffer"
        assert set(cell["results"]) == {"pp8", "tg4"}


def test_memory_without_buffers_in_the_log_is_said(build):
    bench = build / "bin" / "llama-bench"
    bench.write_text(bench.read_text().replace("llama_context: n_ctx", "nothing"))
    done = sweep(build, "--memory", "--format", "json")
    assert json.loads(done.stdout)["cells"][0]["error"] == "memory: its log names buffers of 0 contexts for 2 tests"


def test_a_depth_stands_in_the_cache_first(build):
    cell = Cell(build.parent / "q4.gguf", build, {"-d": "32"}, tests=Tests(("8",), ("4",), 1))
    outcome = run_ttft(cell, [str(build / "bin" / "llama-server")])
    assert (outcome.error, outcome.results[0]["label"], outcome.results[0]["prompt_n"]) == (None, "ttft8@d32", 8)
    log = (build / "bin" / "llama-server.log").read_text().splitlines()
    assert [json.loads(line) for line in log] == [[32, True], [40, True], [40, True]]
    nothing = replace(cell, tests=Tests(("0",), ("4",), 1))
    assert "no prompt test" in run_ttft(nothing, ["llama-server"]).error


def test_the_servers_command_line():
    flags = {"-t": "4", "-fa": "1", "-ts": "3/1", "-nkvo": "1", "-d": "64", "-ctk": "q8_0"}
    argv = server_argv(["llama-server"], Cell(Path("m.gguf"), flags=flags, rpc="a:1"), 99, n_ctx=100)
    assert argv == ["llama-server", "-m", "m.gguf", "-c", "100", "-np", "1", "--host", "127.0.0.1", "--port", "99",
                    "-t", "4", "-fa", "on", "-ts", "3,1", "-nkvo", "-ctk", "q8_0", "--rpc", "a:1"]  # fmt: skip


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Three cells: as it is, with 40 µs more of the host a step, and one whose trace is gone."""
    folder = tmp_path_factory.mktemp("cells")
    preset = replace(PRESETS["launch-bound"], steps=24)
    busier = replace(preset, host=replace(preset.host, prepare_ns=preset.host.prepare_ns + 400_000))
    for name, one, seed in (("8", preset, 1), ("4", busier, 2)):
        write(lay_out(one, seed), folder / f"{name}.sqlite", name=name, seed=seed)
    cells = [
        KeptCell("s", threads, {"n_threads": threads}, "done", "t", None, str(folder / f"{threads}.sqlite"),
                 ({"label": "tg32", "phase": "decode", "tokens_per_s": float(threads)},))
        for threads in ("8", "4", "2")
    ]  # fmt: skip
    return tabulate(cells)


def test_a_traced_cell_tells_which_part_grew(traced):
    first, slower, gone = cell_ledgers(traced)
    assert (first.against, first.grew, first.sentence) == (None, {}, "what the others are compared with")
    assert slower.against == "n_threads=8"
    assert slower.grew["decode"].startswith("the program's own code on the CPU +")
    assert slower.phases["decode"]["host"] - first.phases["decode"]["host"] == pytest.approx(400_000, rel=0.1)
    assert (gone.phases, gone.sentence.startswith("no ledger: ")) == ({}, True)


def test_cells_link_to_their_ledgers(traced):
    ledgers = cell_ledgers(traced)
    page = render_html("s", traced, ledgers)
    for at in range(3):
        assert f'href="#cell-{at}"' in page
        assert f'<section id="cell-{at}">' in page
    assert page.count('class="ledger"') >= 2
    assert "the program&#x27;s own code on the CPU +" in page
    folder = Path(traced.rows[0]["trace"]).parent
    assert f"trace: {folder.name}/8.sqlite" in page
    assert str(folder) not in page
    text = render_table("s", traced, ledgers)
    assert "Traced cells" in text
    assert "decode: the program's own code on the CPU +" in " ".join(text.split())


def test_figures_of_a_sweep(traced):
    (line,) = axis_figure(traced, "n_threads", "tg32")["data"]
    assert (line["type"], line["x"], line["y"]) == ("scatter", ["2", "4", "8"], [2.0, 4.0, 8.0])  # a quantity
    kinds = tabulate([
        KeptCell("s", kind, {"model": f"{kind}.gguf"}, "done", "t", None, None,
                 ({"label": "tg32", "phase": "decode", "tokens_per_s": rate, "model_type": f"llama 1B {kind}"},
                  {"label": "ppl", "ppl": ppl}))
        for kind, rate, ppl in (("Q4_0", 20.0, 6.5), ("F16", 5.0, 6.0))
    ])  # fmt: skip
    assert axis_figure(kinds, "model", "tg32")["data"][0]["type"] == "bar"
    sides = quantisations(kinds)
    assert {one.name for one in sides} == {"Q4_0", "F16"}
    bars = speed_figure(sides, kinds.labels)["data"][0]
    assert sorted(bars["y"]) == [0.25, 1.0]
    (points,) = trade_figure(sides, kinds.labels)["data"]
    assert sorted(zip(points["x"], points["y"], strict=True)) == [(5.0, 6.0), (20.0, 6.5)]
    assert quantisations(traced) == ()


def test_a_trace_made_before_is_kept_when_a_cell_is_run_again(build):
    sweep(build, "--name", "s")
    with History(build.parent / "h.sqlite") as history:
        cell = history.cells("s")[0]
        history.put_cell(replace(cell, trace="somewhere"))
    sweep(build, "--name", "s", "--memory")
    with History(build.parent / "h.sqlite") as history:
        assert "somewhere" in {one.trace for one in history.cells("s")}
