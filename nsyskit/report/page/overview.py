"""The first screen: what bounds this run, the numbers that prove it, what would help, and how far to trust it."""

from __future__ import annotations

from statistics import median
from typing import Final

from nsyskit.analysis.advice import AdviceResult
from nsyskit.analysis.analyze import Report
from nsyskit.analysis.devices import DeviceLedger, DevicesResult
from nsyskit.analysis.hotspots import HotspotResult
from nsyskit.analysis.program import ProgramResult
from nsyskit.analysis.served import ServedResult
from nsyskit.analysis.step_costs import StepsResult
from nsyskit.analysis.sums import SumResult
from nsyskit.analysis.threads import ThreadsResult
from nsyskit.analysis.trust import TrustNote
from nsyskit.analysis.verdict import GPU_BOUND_SHARE, Verdict
from nsyskit.report.names import shortened
from nsyskit.report.page.bars import device_bar, thread_bar
from nsyskit.report.page.elements import NOTHING, Html, tag, text
from nsyskit.report.palette import PART_COLORS
from nsyskit.report.words import ADVICE, HEADLINES, waiting
from nsyskit.units import human_ns, human_share

_MAX_DEVICES: Final = 8
_MAX_THREADS: Final = 2
_MAX_BOUNDS: Final = 4
_WORTH_SAYING: Final = 1.005
_NEAR: Final = 0.03
_TWO_VIEWS: Final = (
    "The GPU's bar gives each idle instant to the first cause that holds, work that is handed over before what the CPU "
    "did meanwhile; this one tells what the thread itself did."
)
_MAX_KERNELS: Final = 4
_KERNEL_CHARACTERS: Final = 30


def overview(report: Report) -> Html:
    """The first screen of a report."""
    return tag(
        "section",
        _verdict(report.verdict, _judged(report)),
        _tiles(report),
        tag("div", _ledgers(report), tag("div", *_aside(report)), class_="columns"),
        id="overview",
        aria_label="Verdict",
    )


def _aside(report: Report) -> list[Html]:
    return [_bounds(report.verdict), _first_experiment(report), _kernels(report), _trust(report.trust)]


def _verdict(verdict: Verdict | None, ledger: DeviceLedger | None) -> Html:
    if verdict is None:
        return NOTHING
    label = verdict.bottleneck
    sentence = verdict.sentence.removeprefix(f"{label}: ").removeprefix("No verdict: ")
    badge = NOTHING if label == "none" else tag("span", text(label), class_="badge")
    return tag(
        "div",
        tag("p", text("What bounds this run"), class_="eyebrow"),
        tag("h1", text(HEADLINES.get(label, label)), text(" "), badge),
        tag("p", text(_capital(sentence)), class_="sentence") if label != "idle" else NOTHING,
        tag("p", text(" ".join([ADVICE.get(label, ""), *_border(label, ledger)])), class_="muted"),
        class_="verdict",
        data_bottleneck=label,
    )


def _border(label: str, ledger: DeviceLedger | None) -> list[str]:
    """A verdict that a little more work would have turned says so."""
    if label in {"none", "idle"} or ledger is None or abs(ledger.busy_share - GPU_BOUND_SHARE) > _NEAR:
        return []
    return [f"This is near the border: from {human_share(GPU_BOUND_SHARE)} busy on a run counts as gpu-bound."]


def _judged(report: Report) -> DeviceLedger | None:
    """The ledger that the verdict rests on: inside steps where there are any."""
    devices: DevicesResult | None = report.sections.get("devices")
    return _inside_steps(report) or (next(iter(devices.devices), None) if devices is not None else None)


def _tiles(report: Report) -> Html:
    ledger = _judged(report)
    if ledger is None or not ledger.window_ns:
        printed = _request_tiles(report.sections.get("requests")) + _printed_tiles(report.sections.get("program"))
        return tag("div", *printed, class_="tiles") if printed else NOTHING
    where = " inside steps" if report.sections.get("steps") is not None else ""
    # what ran in unexplained time was not recorded: it may have been work
    at_least, at_most = ("≥ ", "≤ ") if ledger.idle["unknown"] else ("", "")
    tiles = [
        *_request_tiles(report.sections.get("requests")),
        *(_step_tiles(report.sections.get("steps")) or _printed_tiles(report.sections.get("program"))),
        _tile("GPU busy", f"{at_least}{human_share(ledger.busy_share)}", f"of {human_ns(ledger.window_ns)}{where}"),
        _tile("GPU idle", f"{at_most}{human_ns(ledger.idle_ns)}", f"{at_most}{human_share(1 - ledger.busy_share)}"),
    ]
    cause, most = max(ledger.idle.items(), key=lambda item: item[1])
    if most:
        tiles.append(_tile("Most of it idle because", human_ns(most), f"{cause}: {waiting(cause)}"))
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
            rate = "" if cost.tokens_per_s is None else f"{cost.tokens_per_s:,.0f} tokens/s"
            p50, p95, p99 = (_milliseconds(quantiles[name]) for name in ("p50", "p95", "p99"))
            tiles.append(_tile(f"{phase.capitalize()}, ms per token", p50, f"p50; p95 {p95}, p99 {p99}", rate))
    return tiles


def _request_tiles(result: ServedResult | None) -> list[Html]:
    """What clients waited for, where a load was captured."""
    named = {"first token": "Time to first token", "between tokens": "Between tokens"}
    return [
        _tile(label, human_ns(one.p50), f"p50; p95 {human_ns(one.p95)}, p99 {human_ns(one.p99)}", "as clients saw it")
        for name, label in named.items()
        if result is not None and (one := result.spreads.get(name)) is not None
    ]


def _printed_tiles(result: ProgramResult | None) -> list[Html]:
    """Milliseconds a token by the program's own clock, where the trace shows no steps."""
    tiles = []
    for phase in ("prefill", "decode", "mixed"):
        rows = [row.numbers for row in result.rows if row.numbers.phase == phase] if result else []
        times = [1000 / row.tokens_per_s for row in rows if row.tokens_per_s]
        if times:
            middle, slowest = _milliseconds(median(times)), _milliseconds(max(times))
            many = f"median of {len(times)} printed means, slowest {slowest}" if len(times) > 1 else "a printed mean"
            tiles.append(_tile(f"{phase.capitalize()}, ms per token", middle, many, "by the program's own clock"))
    return tiles


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _tile(label: str, value: str, *notes: str) -> Html:
    return tag(
        "div",
        tag("p", text(label), class_="muted"),
        tag("p", text(value), class_="value"),
        *(tag("p", text(note), class_="muted") for note in notes if note),
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
        pieces += [device_bar(ledger) for ledger in shown if not _told_already(ledger, inside, len(devices.devices))]
        pieces += _more(len(devices.devices) - len(shown), "GPUs")
    if threads is not None and threads.threads:
        shown_threads = threads.threads[:_MAX_THREADS]
        pieces.append(tag("h2", text("Where the driving threads' time went")))
        pieces += [thread_bar(thread) for thread in shown_threads]
        pieces.append(tag("p", text(_TWO_VIEWS), class_="note"))
        pieces += _more(len(threads.threads) - len(shown_threads), "driver threads, under Host")
    return tag("div", *pieces) if pieces else NOTHING


def _told_already(ledger: DeviceLedger, inside: DeviceLedger | None, devices: int) -> bool:
    """Whether the bar inside steps says it all: of the only GPU, or when nothing of the window lies outside."""
    return inside is not None and (devices == 1 or (ledger.use, ledger.window_ns) == (inside.use, inside.window_ns))


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
        _track(waiting(part), PART_COLORS[part], (times - 1) / most, f"{times:.2f}×")
        for part, times in known[:_MAX_BOUNDS]
    ]
    return tag("div", tag("h2", text("At most this much faster without")), tag("ul", *items, class_="bounds"))


def _track(what: str, color: str, share: float, said: str, *, title: str | None = None) -> Html:
    return tag(
        "li",
        tag("span", text(what), class_="what", title=title),
        tag("span", class_="track", style=f"--part:{color};--share:{share:.4f}"),
        tag("b", text(said)),
    )


def _first_experiment(report: Report) -> Html:
    found: AdviceResult | None = report.sections.get("advice")
    if found is None or not found.items:
        return NOTHING
    first = found.items[0]
    most = "" if first.max_speedup is None else f", at most {first.max_speedup:.2f}× in {first.phase} steps alone"
    said = tag("p", tag("code", text(first.change)), text(f"{most} ("), _link("advice", "why"), text(")"), class_="try")
    return tag("div", tag("h2", text("Worth trying first")), said)


def _link(anchor: str, said: str) -> Html:
    return tag("a", text(said), href=f"#{anchor}")


def _kernels(report: Report) -> Html:
    """What the GPU's kernels are: by category where the catalogue knows them, else by name."""
    categories: HotspotResult | None = report.sections.get("category_sum")
    named: SumResult | None = report.sections.get("kernel_sum")
    if categories is not None and not set(categories.rows["category"]) <= {"other", "none"}:
        shares = list(categories.rows.select("category", "share").iter_rows())
    elif named is not None:
        shares = list(named.rows.select("name", "time_share").iter_rows())
    else:
        shares = []
    items = [
        _track(_short(name or "?"), PART_COLORS["kernel"], share, human_share(share), title=str(name))
        for name, share in shares[:_MAX_KERNELS]
    ]
    if not items:
        return NOTHING
    others = sum(share for _, share in shares[_MAX_KERNELS:])
    items += [_track("all others", PART_COLORS["kernel"], others, human_share(others))] if others > 0 else []
    return tag("div", tag("h2", text("Kernel time is spent in")), tag("ul", *items, class_="bounds"))


def _short(name: str) -> str:
    short = shortened(name)
    return short if len(short) <= _KERNEL_CHARACTERS else f"{short[: _KERNEL_CHARACTERS - 1]}…"


def _trust(notes: tuple[TrustNote, ...]) -> Html:
    items = [tag("li", tag("b", text(note.level)), text(f" {note.message}"), class_=note.level) for note in notes]
    return tag("div", tag("h2", text("How far to trust this")), tag("ul", *items, class_="trust")) if items else NOTHING


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
