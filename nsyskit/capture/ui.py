"""How a capture tells what it is doing. The library is silent; the command line shows bars on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[float | None, str], None]
"""Called with the share that is done (None: unknown) and a word on it."""


class Ui(Protocol):
    """What a capture needs of whoever watches."""

    def stage(self, title: str) -> AbstractContextManager[Advance]:
        """A wait that may take more than a second."""

    def note(self, text: str) -> None:
        """Something that the user should know and need not act on at once."""


class Silent:
    """Shows nothing."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        del title
        yield lambda _share, _text: None

    def note(self, text: str) -> None:
        del text
