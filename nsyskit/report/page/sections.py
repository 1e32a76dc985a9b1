"""What every chapter of the page is made with: a result becomes a sentence, a figure, a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch

from nsyskit.report.figures import Drawing
from nsyskit.report.page.elements import NOTHING, Html, tag


@dataclass(slots=True)
class Sections:
    """Keeps the figures that a script draws later, by their id, and what had nothing to show."""

    figures: dict[str, Drawing] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    def nothing(self, line: str) -> Html:
        """A section that has nothing to show takes no room; ``line`` is told at the end of the page."""
        self.empty.append(line)
        return NOTHING

    def drawn(self, identifier: str, drawn: Drawing, described: str) -> Html:
        """The place where a figure will stand; its height is fixed now, so that nothing jumps."""
        self.figures[identifier] = drawn
        height = int(drawn["layout"]["height"])
        return tag(
            "div",
            class_="plot",
            id=f"figure-{identifier}",
            data_figure=identifier,
            role="group",
            aria_label=described,
            style=f"height:{height}px",
        )


@singledispatch
def block(result: object, made: Sections, name: str) -> Html:
    """One result as a piece of the page; ``name`` is its section's name in the report."""
    raise NotImplementedError(f"{name}: {type(result).__name__}")
