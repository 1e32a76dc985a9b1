"""The real llama-server with two slots under load, under the real nsys 2023.4."""

import json
import sqlite3

import pytest

from .conftest import interrupt

SERVER = ["llama-server", "-m", "tiny.gguf", "-np", "2", "-c", "2048", "--metrics"]


@pytest.fixture(scope="module")
def loaded(root):
    """One capture that several tests look at."""
    done = root.run(
        "nsyskit", "capture", "-o", "server", "--requests", "24", "--concurrency", "2", "--prompt-tokens", "100",
        "--max-tokens", "32", "--", *SERVER, "--api-key", "sk-0123456789",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.out == "server\n"
    return root.facts("server")


def test_the_window_holds_the_load(loaded):
    load = loaded["summary"]["load"]
    assert (load["requests"], load["failed"], load["predicted_n"]) == (24, 0, 24 * 32)
    assert 90 * 24 < load["prompt_n"] < 110 * 24
    assert load["cached_share"] < 0.1  # prompts vary: the prompt cache has nothing to give
    assert loaded["outcome"]["state"] == "complete"
    trace = loaded["summary"]["trace"]
    assert trace["rows"]["os_calls"] > 1000
    window = loaded["times"]["window_end_ns"] - loaded["times"]["window_begin_ns"]
    assert trace["last_ns"] - trace["first_ns"] > 0.8 * window
    assert loaded["llama"]["build_number"] > 1000
    assert loaded["nsys"]["version"].startswith("2023.4")


def test_every_nanosecond_of_a_request_has_a_part(root, loaded):
    with sqlite3.connect(root.work / "server" / "requests.sqlite") as database:
        rows = database.execute(
            'SELECT r."index", r.total_ns, sum(p.dur_ns), r.id_task IS NOT NULL FROM requests r '
            'JOIN parts p ON p."index" = r."index" WHERE NOT r.warmup GROUP BY 1, 2, 4'
        ).fetchall()
        slots = database.execute("SELECT count(DISTINCT id_slot) FROM requests").fetchone()[0]
        metrics = {name for (name,) in database.execute("SELECT DISTINCT name FROM metrics")}
    assert len(rows) == 24
    assert all(total == parts for _, total, parts, _ in rows)
    assert sum(matched for *_, matched in rows) >= 20  # found again in the server's log by its numbers
    assert slots == 2
    assert "llamacpp:n_decode_total" in metrics
    assert loaded["summary"]["load"]["log_clock_error_ns"] < 20_000_000


def test_the_key_is_nowhere(root, loaded):
    assert "sk-0123456789" not in json.dumps(loaded)
    for path in (root.work / "server").iterdir():
        assert b"sk-0123456789" not in path.read_bytes(), path


def test_the_run_folder_is_analyzed(root, loaded):
    done = root.run("nsyskit", "analyze", "server", "--format", "json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert {row["name"] for row in document["osrt_sum"]} >= {"pthread_cond_wait"}
    assert document["trace"]["processes"][0]["program"].endswith("llama-server")
    if "program" not in document:
        pytest.skip("analyze has no program section yet")
    assert {entry["tool"] for entry in document["program"]} == {"llama-server"}


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_the_openai_endpoints_with_an_open_loop(root, endpoint):
    done = root.run(
        "nsyskit", "capture", "-q", "-o", endpoint, "--endpoint", endpoint, "--rate", "10", "--duration", "1",
        "--max-tokens", "8", "--no-export", "--", *SERVER,
    )  # fmt: skip
    assert (done.code, done.out, done.err) == (0, f"{endpoint}\n", "")
    load = root.facts(endpoint)["summary"]["load"]
    assert load["failed"] == 0
    assert load["requests"] > 3
    assert load["predicted_n"] == 8 * load["requests"]


def test_a_model_that_is_missing(root):
    done = root.run("nsyskit", "capture", "-q", "-o", "absent", "--", "llama-server", "-m", "absent.gguf")
    assert done.code == 1
    assert "before it was healthy" in done.err
    assert "failed to load model" in done.err
    assert root.facts("absent")["outcome"]["state"] == "failed"


@pytest.mark.parametrize(("stage", "kept"), [("waiting for the server", False), ("driving the load", True)])
def test_ctrl_c(root, stage, kept):
    folder = stage.split()[0]
    process = root.start("nsyskit", "capture", "-o", folder, "--requests", "100000", "--", *SERVER)
    interrupt(process, stage, after=0.5 if kept else 0.0)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert root.facts(folder)["outcome"]["state"] == "interrupted"
    assert (root.work / folder / "trace.sqlite").exists() is kept


def test_two_captures_at_once(root):
    processes = [
        root.start("nsyskit", "capture", "-q", "-o", name, "--requests", "4", "--no-export", "--", *SERVER)
        for name in ("one", "two")
    ]
    for process, name in zip(processes, ("one", "two"), strict=True):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert root.facts(name)["summary"]["load"]["failed"] == 0
