"""The timeline chapter: the whole window, then the landmarks event by event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.devices import BUSY_PARTS
from nsyskit.analysis.timeline import DensityResult, EventsResult, Lane, Timelines
from nsyskit.report.figures import Drawing
from nsyskit.report.figures.base import over
from nsyskit.report.figures.timelines import AXIS_PX, hull
from nsyskit.report.page.bars import legend_entry
from nsyskit.report.page.elements import NOTHING, Html, join, tag, text
from nsyskit.report.page.lod import density_packet, events_packet
from nsyskit.report.page.payload import packed
from nsyskit.report.page.sections import Sections
from nsyskit.report.words import PARTS, waiting
from nsyskit.units import human_count, human_ns

_ACTIONS = (("in", "Zoom in"), ("out", "Zoom out"), ("left", "Earlier"), ("right", "Later"), ("reset", "Reset"))


@dataclass(slots=True)
class Drawn:
    """Makes the chapter, and keeps the packed data of its figures for the end of the page."""

    made: Sections
    packets: list[Html] = field(default_factory=list)

    def chapter(self, told: Timelines) -> Html:
        """All timelines of a report; nothing when no GPU and no driver thread was traced."""
        if not told.density.lanes:
            return NOTHING
        shown = [self._density(told.density), *(self._events(index, exact) for index, exact in enumerate(told.exact))]
        return join(shown)

    def only(self, exact: EventsResult) -> Html:
        """One window's events."""
        return self._events(0, exact)

    def _density(self, result: DensityResult) -> Html:
        lead = (
            "Every column of time is split into what was done in it. Drag to zoom: finer columns are then drawn, "
            "down to the finest level."
        )
        title = tag("h3", text(f"The whole window: {human_ns(result.window.dur_ns)}"))
        plot = self._plot("timeline", hull(result), density_packet(result), "Timeline of the whole window")
        return tag("div", title, tag("p", text(lead), class_="lead"), plot, _legend(result.lanes))

    def _events(self, index: int, exact: EventsResult) -> Html:
        title = tag("h3", text(exact.title[:1].upper() + exact.title[1:]))
        told = f"{human_count(exact.total)} events in {human_ns(exact.window.dur_ns)}"
        if exact.aggregated:
            told += ": too many for one figure, so neighbours are put together"
        plot = self._plot(f"events-{index}", hull(exact), events_packet(exact), f"Timeline: {exact.title}")
        return tag("div", title, tag("p", text(f"{told}."), class_="lead"), plot, _legend(exact.lanes))

    def _plot(self, identifier: str, drawn: Drawing, packet: bytes, described: str) -> Html:
        """A figure whose data the script fills in, by its zoom."""
        packet_id = f"lod-{identifier}"
        self.packets.append(packed(packet_id, packet))
        buttons = (tag("button", text(label), type="button", data_zoom=action) for action, label in _ACTIONS)
        tools = tag("div", *buttons, class_="timeline-tools", role="group", aria_label=f"{described}: zoom")
        status = tag("p", class_="timeline-status", role="status", id=f"status-{identifier}")
        return tag(
            "div",
            tools,
            self.made.drawn(identifier, _without_legend(drawn), described),
            status,
            class_="timeline",
            data_lod=packet_id,
        )


def _legend(lanes: Sequence[Lane]) -> Html:
    there = {part for lane in lanes for part in lane.parts}
    busy = [legend_entry(part, PARTS[part]) for part in BUSY_PARTS if part in there]
    causes = [legend_entry(cause, waiting(cause)) for cause in CAUSES if cause in there]
    return tag("ul", *busy, *causes, class_="legend")


def _without_legend(drawn: Drawing) -> Drawing:
    """The page's own legend wraps on narrow screens; plotly's does not."""
    height = drawn["layout"]["height"] - drawn["layout"]["margin"]["b"] + AXIS_PX
    return over(drawn, showlegend=False, height=height, margin={"b": AXIS_PX})
