"""Ctrl-C, SIGTERM and SIGHUP at any stage of a capture."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A capture was asked to end. Like KeyboardInterrupt it passes handlers of ``Exception``."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interrupts:
    """Signals raise ``Interrupted``, except while things are being put away: there they only ask for haste."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.first: int | None = None
        self._deferred = 0
        self._hurry = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self._NUMBERS:
                self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hurry(self) -> bool:
        """Whether somebody asked to end while things were being put away: stop waiting politely."""
        return self._hurry

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Nothing in here is cut short."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1

    def forget(self) -> None:
        """The signal was the agreed way to end a window, not an interruption."""
        self.first = None

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self.first is None:
            self.first = number
        if self._deferred:
            self._hurry = True
        else:
            raise Interrupted(number)
