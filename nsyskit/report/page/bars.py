"""Ledger bars in plain HTML: there before any script has run, in print, and without colour (idle is hatched)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.devices import BUSY_PARTS, DeviceLedger
from nsyskit.analysis.step_costs import PhaseCost
from nsyskit.analysis.threads import PARTS, ThreadLedger
from nsyskit.report.figures import device_name
from nsyskit.report.page.elements import NOTHING, Html, tag, text
from nsyskit.report.palette import PART_COLORS
from nsyskit.report.words import PARTS as PART_WORDS
from nsyskit.report.words import THREAD_PARTS
from nsyskit.units import human_ns, human_share

_SMALL = 0.002
_LABELLED = 0.08


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a bar: ``key`` chooses the colour, idle pieces are hatched."""

    key: str
    words: str
    ns: int
    idle: bool


def device_bar(ledger: DeviceLedger, *, where: str = "") -> Html:
    """What one GPU did and why it idled; ``where`` says of which time, if not of the whole window."""
    parts = {part: int(getattr(ledger, f"{part}_ns")) for part in BUSY_PARTS} | dict(ledger.idle)
    head = f"busy {human_share(ledger.busy_share)} of {human_ns(ledger.window_ns)}{where}"
    return _bar(device_name(ledger), head, _gpu_pieces(parts), ledger.window_ns)


def phase_bar(cost: PhaseCost) -> Html:
    """What the GPU did in the mean time that a token of one phase took."""
    parts = {part: round(ns) for part, ns in cost.ledger.items()}
    total = sum(parts.values())
    return _bar(cost.phase, f"{human_ns(total)} per token, mean", _gpu_pieces(parts), total)


def _gpu_pieces(parts: Mapping[str, int]) -> list[Piece]:
    busy = [Piece(part, PART_WORDS[part], parts[part], idle=False) for part in BUSY_PARTS]
    return [*busy, *_largest_first([Piece(cause, PART_WORDS[cause], parts[cause], idle=True) for cause in CAUSES])]


def thread_bar(ledger: ThreadLedger) -> Html:
    """What one driver thread did, while a GPU that it feeds worked (solid) and while none did (hatched)."""
    pieces = [
        Piece(part, f"{THREAD_PARTS[part]}, GPU {half}", values[part], idle=half == "idle")
        for half, values in (("busy", ledger.busy), ("idle", ledger.idle))
        for part in PARTS
    ]
    idle = sum(ledger.idle.values())
    head = f"GPU idle {human_share(idle / ledger.window.dur_ns if ledger.window.dur_ns else None)} of its time"
    return _bar(f"{ledger.name or 'thread'} {ledger.tid}", head, pieces, ledger.window.dur_ns)


def _largest_first(pieces: Sequence[Piece]) -> list[Piece]:
    return sorted(pieces, key=lambda piece: -piece.ns)


def _bar(name: str, head: str, pieces: Sequence[Piece], total: int) -> Html:
    shown = [piece for piece in pieces if piece.ns]
    title = tag("figcaption", tag("strong", text(name)), text(" "), tag("span", text(head), class_="muted"))
    segments = (_segment(piece, total) for piece in shown)
    described = ", ".join(f"{piece.words} {human_share(piece.ns / total)}" for piece in _largest_first(shown))
    bar = tag("div", *segments, class_="bar", role="img", aria_label=f"{name}: {described}")
    entries = [_entry(piece, total) for piece in _largest_first(shown) if piece.ns >= _SMALL * total]
    small = sum(piece.ns for piece in shown if piece.ns < _SMALL * total)
    rest = tag("li", text(f"the rest {human_ns(small)}")) if small else NOTHING
    return tag("figure", title, bar, tag("ul", *entries, rest, class_="legend"), class_="ledger")


def _segment(piece: Piece, total: int) -> Html:
    share = piece.ns / total if total else 0.0
    label = text(human_share(share)) if share >= _LABELLED else NOTHING
    style = f"flex-grow:{piece.ns};{_swatch(piece)}"
    return tag(
        "span",
        label,
        class_="idle" if piece.idle else None,
        style=style,
        title=f"{piece.words}: {human_ns(piece.ns)} ({human_share(share)})",
    )


def _entry(piece: Piece, total: int) -> Html:
    swatch = tag("i", class_="idle" if piece.idle else None, style=_swatch(piece))
    figures = f"{human_share(piece.ns / total)} · {human_ns(piece.ns)}"
    return tag("li", swatch, text(f"{piece.words} "), tag("b", text(figures)))


def _swatch(piece: Piece) -> str:
    color = PART_COLORS[piece.key]
    return f"--part:{color};--on-part:{text_color(color)}"


def text_color(background: str) -> str:
    """Black or white, whichever is easier to read on ``background`` (#rrggbb): one of them always exceeds 4.5:1."""
    light = _luminance(background)
    return "#000" if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "#fff"


def _luminance(color: str) -> float:
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def legend_entry(key: str, words: str, colors: Mapping[str, str] = PART_COLORS) -> Html:
    """A swatch with its meaning, for figures that a script draws."""
    return tag("li", tag("i", style=f"--part:{colors[key]}"), text(words))
