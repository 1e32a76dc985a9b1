"""The server's tax: what a token costs behind llama-server beyond what llama-bench needs for the same work.

Parts come from named timestamps of each request, as the capture took them; what llama-bench needs for the prompt and
for the tokens is taken off the prefill and decode parts. The parts sum exactly.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from nsyskit.compare.result import Reason, SetupDifference
from nsyskit.compare.setup import command_facts, printed_facts
from nsyskit.errors import TraceFormatError, UsageError
from nsyskit.ggml.outputs import ProgramNumbers, parse_output
from nsyskit.runfolder import is_run_folder, load_run

_ORDER: Final = ("accept", "prepare", "prefill", "deliver", "decode", "stream", "finish", "close", "unattributed")
_DECODES: Final = frozenset({"decode", "stream"})
_COLUMNS: Final = "total_ns, prompt_n, predicted_n"


@dataclass(frozen=True, slots=True)
class TaxPart:
    """A part of the tax, ns per generated token: ``server`` as measured, ``bench`` what llama-bench needs of it."""

    name: str
    server: Fraction
    bench: Fraction

    @property
    def tax(self) -> Fraction:
        return self.server - self.bench


@dataclass(frozen=True, slots=True)
class ServerTax:
    """llama-bench against llama-server, per generated token, in ns.

    Attributes:
        requests: whole requests of the load, warm-up left out.
        tokens: tokens they generated.
        prompt_tokens: prompt tokens they computed; cached ones cost nothing.
        bench_prefill_ns, bench_decode_ns: what llama-bench needs per prompt token and per generated token.
        parts: their server sides sum to ``total_ns`` per token, exactly.
    """

    requests: int
    tokens: int
    prompt_tokens: int
    bench_prefill_ns: Fraction
    bench_decode_ns: Fraction
    parts: tuple[TaxPart, ...]
    reasons: tuple[Reason, ...]
    setup: tuple[SetupDifference, ...]

    @property
    def server_ns(self) -> Fraction:
        return sum((part.server for part in self.parts), Fraction())

    @property
    def bench_ns(self) -> Fraction:
        return sum((part.bench for part in self.parts), Fraction())

    @property
    def tax_ns(self) -> Fraction:
        return self.server_ns - self.bench_ns


def server_tax(bench: Path, server: Path) -> ServerTax:
    """Compare a run of llama-bench (run folder or result file) with a server's run folder.

    Raises:
        UsageError: they measure different models.
        TraceFormatError: one of them lacks what is needed.
    """
    printed = _bench_numbers(bench)
    prefill, decode = (_ns_per_token(printed, phase, bench) for phase in ("prefill", "decode"))
    if not is_run_folder(server):
        raise TraceFormatError(f"{server} is no run folder", hint="name one that `nsyskit capture … llama-server` left")
    run = load_run(server)
    rows, times = _requests(run.requests)
    facts = {**command_facts(run.facts.get("command") or ()), **_build(run.facts)}
    setup = _differences({name: str(value) for name, value in printed_facts(printed).items()} | _file(printed), facts)
    tokens, prompts = (sum(row[name] for row in rows) for name in ("predicted_n", "prompt_n"))
    if not tokens:
        raise TraceFormatError(f"{server} holds no request that generated tokens", hint="capture it with a load")
    later = sum(max(0, row["predicted_n"] - 1) for row in rows)  # the first token comes from the prompt
    return ServerTax(
        requests=len(rows),
        tokens=tokens,
        prompt_tokens=prompts,
        bench_prefill_ns=prefill,
        bench_decode_ns=decode,
        parts=_parts(times, tokens, prefill * prompts, decode * later),
        reasons=_reasons(run.facts),
        setup=setup,
    )


def _bench_numbers(path: Path) -> Sequence[ProgramNumbers]:
    files = [path]
    if is_run_folder(path):
        folder = load_run(path)
        files = [one for one in (folder.results, folder.program_out) if one.is_file()]
    for file in files:
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            if found := [one for one in parse_output(text) if one.tool == "llama-bench"]:
                return found
    raise TraceFormatError(f"{path} holds no results of llama-bench", hint="name its run folder or its -o jsonl output")


def _ns_per_token(printed: Sequence[ProgramNumbers], phase: str, path: Path) -> Fraction:
    rates = [one.tokens_per_s for one in printed if one.phase == phase and not one.n_depth and one.tokens_per_s]
    if not rates:
        test = "-p" if phase == "prefill" else "-n"
        raise TraceFormatError(f"{path} holds no {phase} test", hint=f"run llama-bench with {test} too")
    return Fraction(10**9) / Fraction(rates[0])


def _requests(path: Path) -> tuple[list[dict[str, int]], dict[str, int]]:
    if not path.is_file():
        raise TraceFormatError(f"{path.parent} holds no requests", hint="capture the server with a load")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.row_factory = sqlite3.Row
            if database.execute("SELECT 1 FROM sqlite_master WHERE type = 'view'").fetchone():
                raise sqlite3.DatabaseError("it holds views")  # which may have no end
            rows = database.execute(f"SELECT {_COLUMNS} FROM requests WHERE NOT warmup AND error IS NULL").fetchall()
            whole = 'SELECT "index" FROM requests WHERE NOT warmup AND error IS NULL'
            sums = database.execute(
                f'SELECT part, SUM(dur_ns) FROM parts WHERE "index" IN ({whole}) GROUP BY part'
            ).fetchall()
        numbers = [{name: int(row[name] or 0) for name in row.keys()} for row in rows]  # noqa: SIM118 - a row is none
        times = {str(part): int(ns) for part, ns in sums}
    except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:
        raise TraceFormatError(f"{path} cannot be read: {error}", hint="capture again") from error
    missing = sum(row["total_ns"] for row in numbers) - sum(times.values())
    if missing:
        times["unattributed"] = times.get("unattributed", 0) + missing
    return numbers, times


def _parts(times: Mapping[str, int], tokens: int, prefill: Fraction, decode: Fraction) -> tuple[TaxPart, ...]:
    """llama-bench's time stands in the part that does the same work; without that part, in what is unattributed."""
    bench = dict.fromkeys((*times, "unattributed"), Fraction())
    bench["prefill" if "prefill" in times else "unattributed"] += prefill
    bench[next((name for name in times if name in _DECODES), "unattributed")] += decode
    names = sorted(bench, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    found = (TaxPart(name, Fraction(times.get(name, 0), tokens), bench[name] / tokens) for name in names)
    return tuple(part for part in found if part.server or part.bench)


def _build(facts: Mapping[str, Any]) -> dict[str, str]:
    llama = facts.get("llama") or {}
    if not llama.get("build_commit"):
        return {}
    return {"build": f"{llama.get('build_number')} ({llama['build_commit']})"}


def _file(printed: Sequence[ProgramNumbers]) -> dict[str, str]:
    name = printed[0].extra.get("model_filename")
    return {"model": str(name)} if name else {}


def _differences(bench: Mapping[str, str], server: Mapping[str, str]) -> tuple[SetupDifference, ...]:
    """Facts that both tell and that differ; another model is refused."""
    both = [name for name in sorted({*bench} & {*server}) if bench[name] != server[name] and name != "program"]
    if "model" in both:
        raise UsageError(f"different models: {bench['model']} and {server['model']}", hint="compare runs of one model")
    return tuple(SetupDifference(name, bench[name], server[name]) for name in both)


def _reasons(facts: Mapping[str, Any]) -> tuple[Reason, ...]:
    load = facts.get("load") or {}
    found = []
    if load.get("concurrency") not in (None, 0, 1) or load.get("rate"):
        text = "requests ran at once: they wait for one another and are decoded together, which llama-bench does not do"
        found.append(Reason("marked", "concurrent", text))
    return tuple(found)
