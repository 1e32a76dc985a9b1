"""The first screen: what bounds this run, the numbers that prove it, what would help, and how far to trust it."""

from __future__ import annotations

from typing import Final

from nsyskit.analysis.analyze import Report
from nsyskit.analysis.devices import DeviceLedger, DevicesResult
from nsyskit.analysis.step_costs import StepsResult
from nsyskit.analysis.threads import ThreadsResult
from nsyskit.analysis.trust import TrustNote
from nsyskit.analysis.verdict import Verdict
from nsyskit.report.page.bars import device_bar, thread_bar
from nsyskit.report.page.elements import NOTHING, Html, tag, text
from nsyskit.report.palette import PART_COLORS
from nsyskit.report.words import ADVICE, HEADLINES, waiting
from nsyskit.units import human_ns, human_share

_MAX_DEVICES: Final = 8
_MAX_THREADS: Final = 2
_MAX_BOUNDS: Final = 4
_WORTH_SAYING: Final = 1.005


def overview(report: Report) -> Html:
    """The first screen of a report."""
    return tag(
        "section",
        _verdict(report.verdict),
        _tiles(report),
        tag("div", _ledgers(report), tag("div", _bounds(report.verdict), _trust(report.trust)), class_="columns"),
        id="overview",
        aria_label="Verdict",
    )


def _verdict(verdict: Verdict | None) -> Html:
    if verdict is None:
        return NOTHING
    label = verdict.bottleneck
    sentence = verdict.sentence.removeprefix(f"{label}: ").removeprefix("No verdict: ")
    badge = NOTHING if label == "none" else tag("span", text(label), class_="badge")
    return tag(
        "div",
        tag("p", text("What bounds this run"), class_="eyebrow"),
        tag("h1", text(HEADLINES.get(label, label)), text(" "), badge),
        tag("p", text(_capital(sentence)), class_="sentence"),
        tag("p", text(ADVICE.get(label, "")), class_="muted"),
        class_="verdict",
        data_bottleneck=label,
    )


def _judged(report: Report) -> DeviceLedger | None:
    """The ledger that the verdict rests on: inside steps where there are any."""
    devices: DevicesResult | None = report.sections.get("devices")
    return _inside_steps(report) or (next(iter(devices.devices), None) if devices is not None else None)


def _tiles(report: Report) -> Html:
    ledger = _judged(report)
    if ledger is None:
        return NOTHING
    where = " inside steps" if report.sections.get("steps") is not None else ""
    # what ran in unexplained time was not recorded: it may have been work
    at_least, at_most = ("≥ ", "≤ ") if ledger.idle["unknown"] else ("", "")
    tiles = [
        *_step_tiles(report.sections.get("steps")),
        _tile("GPU busy", f"{at_least}{human_share(ledger.busy_share)}", f"of {human_ns(ledger.window_ns)}{where}"),
        _tile("GPU idle", f"{at_most}{human_ns(ledger.idle_ns)}", f"{at_most}{human_share(1 - ledger.busy_share)}"),
    ]
    cause, most = max(ledger.idle.items(), key=lambda item: item[1])
    if most:
        share = human_share(most / ledger.idle_ns)
        tiles.append(_tile("Largest idle cause", cause, f"{share} of idle: {waiting(cause)}"))
    bounds = report.verdict.bounds if report.verdict else ()
    best = next((bound.max_speedup for bound in bounds if bound.max_speedup), None)
    if best is not None:
        tiles.append(_tile("At most, without it", f"{best:.2f}×", "faster, if nothing else changed"))
    return tag("div", *tiles, class_="tiles")


def _step_tiles(steps: StepsResult | None) -> list[Html]:
    """Milliseconds a token, by phase."""
    tiles = []
    for phase, cost in (steps.by_phase if steps else {}).items():
        quantiles = cost.ms_per_token
        if quantiles["p50"] is not None:
            p50, p95, p99 = (_milliseconds(quantiles[name]) for name in ("p50", "p95", "p99"))
            tiles.append(_tile(f"{phase.capitalize()}, ms per token", p50, f"p50; p95 {p95}, p99 {p99}"))
    return tiles


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _tile(label: str, value: str, note: str) -> Html:
    return tag(
        "div",
        tag("p", text(label), class_="muted"),
        tag("p", text(value), class_="value"),
        tag("p", text(note), class_="muted"),
        class_="tile",
    )


def _ledgers(report: Report) -> Html:
    devices: DevicesResult | None = report.sections.get("devices")
    threads: ThreadsResult | None = report.sections.get("threads")
    pieces = []
    if devices is not None and devices.devices:
        shown = devices.devices[:_MAX_DEVICES]
        pieces.append(tag("h2", text("Where each GPU's time went")))
        inside = _inside_steps(report)
        pieces += [device_bar(inside, where=" inside steps")] if inside else []
        pieces += [device_bar(ledger) for ledger in shown if not (inside and len(devices.devices) == 1)]
        pieces += _more(len(devices.devices) - len(shown), "GPUs")
    if threads is not None and threads.threads:
        shown_threads = threads.threads[:_MAX_THREADS]
        pieces.append(tag("h2", text("Where the driving threads' time went")))
        pieces += [thread_bar(thread) for thread in shown_threads]
        pieces += _more(len(threads.threads) - len(shown_threads), "driver threads, under Host")
    return tag("div", *pieces) if pieces else NOTHING


def _inside_steps(report: Report) -> DeviceLedger | None:
    steps: StepsResult | None = report.sections.get("steps")
    return steps.ledger if steps is not None else None


def _more(hidden: int, what: str) -> list[Html]:
    return [tag("p", text(f"… and {hidden} more {what}"), class_="note")] if hidden > 0 else []


def _bounds(verdict: Verdict | None) -> Html:
    gains = [(bound.part, bound.max_speedup or 1.0) for bound in (verdict.bounds if verdict else ())]
    known = [(part, times) for part, times in gains if times >= _WORTH_SAYING]
    if not known:
        return NOTHING
    most = max(times for _, times in known) - 1
    items = [
        tag(
            "li",
            tag("span", text(waiting(part)), class_="what"),
            tag("span", class_="track", style=f"--part:{PART_COLORS[part]};--share:{(times - 1) / most:.4f}"),
            tag("b", text(f"{times:.2f}×")),
        )
        for part, times in known[:_MAX_BOUNDS]
    ]
    return tag("div", tag("h2", text("At most this much faster without")), tag("ul", *items, class_="bounds"))


def _trust(notes: tuple[TrustNote, ...]) -> Html:
    items = [tag("li", tag("b", text(note.level)), text(f" {note.message}"), class_=note.level) for note in notes]
    return tag("div", tag("h2", text("How far to trust this")), tag("ul", *items, class_="trust")) if items else NOTHING


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
