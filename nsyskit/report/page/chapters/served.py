"""The requests of a served load, and the GPUs' counters, as pieces of the page."""

from __future__ import annotations

from typing import Final

from nsyskit.analysis.served import GpuSamplesResult, ServedResult, Spread
from nsyskit.report.figures import drawing
from nsyskit.report.page.elements import Html, join, note, tag, text
from nsyskit.report.page.sections import Sections, block
from nsyskit.report.page.tables import Column, count, ns, share, size, table, words
from nsyskit.units import human_bytes, human_count, human_ns, human_share

SPREAD_WORDS: Final = {
    "first token": "from sending the request to its first text",
    "between tokens": "from one piece of text to the next",
    "request": "from sending it to its last byte",
    "server tax": "of a request, beyond the prefill and decode that the server reports",
}
PART_WORDS: Final = {
    "accept": "HTTP, tokenizing, waiting for a slot",
    "prepare": "from the slot to the first upload",
    "prefill": "the prompt",
    "deliver": "the first token on its way to the client",
    "decode": "the tokens after the first",
    "stream": "the tokens, with the end of the response",
    "finish": "after the last sync",
    "close": "end of the response",
    "unattributed": "between no named timestamps",
}


@block.register
def _served(result: ServedResult, made: Sections, name: str) -> Html:
    failed = f", {human_count(result.failed)} failed" if result.failed else ""
    rate = "" if result.tokens_per_s is None else f": {result.tokens_per_s:,.1f} tokens/s in all"
    told = (
        f"{human_count(result.requests.height)} whole requests{failed}, {human_count(result.tokens)} tokens in "
        f"{human_ns(result.dur_ns)}{rate}."
    )
    plot = made.drawn(name, drawing(result), "What clients waited for, request by request")
    return join([tag("p", text(told)), _spreads(result.spreads), plot, _parts(result), _slowest(result)])


def _spreads(spreads: dict[str, Spread]) -> Html:
    rows = [
        {"what": what, "means": SPREAD_WORDS[what], "p50": one.p50, "p95": one.p95, "p99": one.p99, "max": one.max,
         "count": one.count}
        for what, one in spreads.items()
    ]  # fmt: skip
    marks = [ns(mark, mark) for mark in ("p50", "p95", "p99", "max")]
    return table(
        "What clients saw",
        rows,
        [
            words("time", lambda row: row["what"]),
            *marks,
            count("values", "count"),
            words("is", lambda row: row["means"]),
        ],
    )


def _parts(result: ServedResult) -> Html:
    requests = result.requests.height
    return table(
        "Where requests' time went",
        result.parts,
        [
            words("part", lambda row: row["part"]),
            share("of all requests' time", "share"),
            Column("a request", lambda row: row["total_ns"] / requests, human_ns, hint="mean"),
            ns("total", "total_ns"),
            words("is", lambda row: PART_WORDS.get(row["part"], "")),
        ],
    )


def _slowest(result: ServedResult) -> Html:
    return table(
        "Requests whose first token came last",
        result.slowest,
        [
            count("request", "index"),
            Column("sent at", lambda row: row["at_ns"], human_ns, hint="from the first request"),
            ns("first token", "ttft_ns"),
            ns("whole request", "total_ns"),
            ns("between tokens p50", "itl_p50_ns"),
            ns("p99", "itl_p99_ns"),
            count("prompt tokens", "prompt_n"),
            count("cached", "cache_n"),
            count("generated", "predicted_n"),
        ],
    )


@block.register
def _gpu_samples(result: GpuSamplesResult, made: Sections, name: str) -> Html:
    told = "By NVML, of the whole GPU with every process on it; times count from the first sample."
    columns = [
        words("GPU", lambda row: f"{row['gpu']} {row['name'] or ''}".strip()),
        size("largest memory", "peak_bytes"),
        Column("of", lambda row: row["memory_bytes"], human_bytes),
        Column("SM use, mean", lambda row: row["sm_share"], human_share),
        Column("power, mean", lambda row: row["power_w"], lambda value: f"{value:.0f} W"),
        Column("hottest", lambda row: row["temperature_c"], lambda value: f"{value} °C"),
        Column("held down", lambda row: row["throttled_share"], human_share,
               hint="share of samples with clocks held down, idleness apart"),
        count("samples", "samples"),
    ]  # fmt: skip
    plot = made.drawn(name, drawing(result), "The GPUs' counters over time")
    return join([note(told), table("GPUs during the capture", result.peaks, columns), plot])
