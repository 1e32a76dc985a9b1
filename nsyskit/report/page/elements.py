"""HTML that cannot be forgotten to be escaped: only ``text`` and ``tag`` make ``Html``, and both escape."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final, NewType

from nsyskit.units import printable

Html = NewType("Html", str)

NOTHING: Final = Html("")
_VOID: Final = frozenset({"meta", "link", "input", "br"})


def text(value: object) -> Html:
    """Any text, escaped and without control characters."""
    return Html(escape(printable(str(value))))


def tag(name: str, /, *children: Html, **attributes: str | int | bool | None) -> Html:
    """An element. ``class_`` is ``class``, other underscores are hyphens; None and False attributes are left out."""
    shown = "".join(_attribute(key, value) for key, value in attributes.items() if value not in (None, False))
    if name in _VOID:
        return Html(f"<{name}{shown}>")
    return Html(f"<{name}{shown}>{''.join(children)}</{name}>")


def join(parts: Iterable[Html], separator: str = "") -> Html:
    return Html(separator.join(parts))


def note(line: str) -> Html:
    """A paragraph that stands back."""
    return tag("p", text(line), class_="note")


def _attribute(key: str, value: str | int | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(printable(str(value)))}"'
