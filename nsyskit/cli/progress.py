"""A capture's waits as bars on stderr."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nsyskit.capture.ui import Advance


class Progress:
    """Bars where somebody watches; one line for each stage where stderr is a file."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        if not self._watched:
            click.echo(f"{title} …", err=True)
            yield lambda _share, _text: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
                   TextColumn("{task.fields[word]}"))  # fmt: skip
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(title, total=None, word="")

            def advance(share: float | None, word: str) -> None:
                if share is None:
                    bars.update(task, word=word)
                else:
                    bars.update(task, total=1.0, completed=min(share, 1.0), word=word)

            yield advance

    def note(self, text: str) -> None:
        click.echo(f"note: {text}", err=True)
