"""Options and helpers that several commands share."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from nsyskit.errors import OutputError

if TYPE_CHECKING:
    from nsyskit.trace import Trace

trace_argument = click.argument("trace", type=click.Path(path_type=Path))
nsys_option = click.option(
    "--nsys", type=click.Path(path_type=Path), envvar="NSYSKIT_NSYS", help="The nsys to export rep files with."
)
force_option = click.option("--force", is_flag=True, help="Overwrite an existing output file.")
_NO_CACHE = "nsyskit.no_cache"


def _remember(ctx: click.Context, _option: click.Parameter, no_cache: bool) -> None:  # noqa: FBT001 - click's signature
    ctx.meta[_NO_CACHE] = no_cache


no_cache_option = click.option(
    "--no-cache", is_flag=True, expose_value=False, callback=_remember,
    help="Read the trace itself: no columns from the cache, none into it.",
)  # fmt: skip
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")


def open_with_progress(path: Path, *, nsys: Path | None, quiet: bool = False) -> Trace:
    """``open_trace`` with its progress on stderr, if that is a terminal."""
    from nsyskit.ingest import OpenOptions, open_trace

    ctx = click.get_current_context(silent=True)
    cache = ctx is None or not ctx.meta.get(_NO_CACHE, False)
    with progress_line(quiet=quiet) as report:
        return open_trace(path, options=OpenOptions(nsys=nsys, progress=report, cache=cache))


@contextmanager
def progress_line(*, quiet: bool) -> Iterator[Callable[[str, float | None], None]]:
    """A spinner on stderr that says what is being done; silent when asked to be or when nobody watches."""
    if quiet or not sys.stderr.isatty():
        yield _ignore
        return
    from rich.console import Console

    with Console(stderr=True, markup=False, emoji=False).status("") as status:

        def report(what: str, share: float | None) -> None:
            status.update(what if share is None else f"{what}: {share:.0%}")

        yield report


def _ignore(_what: str, _share: float | None) -> None:
    """Progress for nobody."""


def check_output(path: Path, *, force: bool, source: Path | None = None) -> None:
    """Refuse an output that cannot or must not be written, before any work is done.

    Raises:
        OutputError: it exists and ``force`` is off, it is a directory, its folder is missing, or it is ``source``.
    """
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise OutputError(f"{path} is the input itself", hint="choose another name")
    if path.is_dir():
        raise OutputError(f"{path} is a directory", hint="name a file")
    if path.exists() and not force:
        raise OutputError(f"{path} exists", hint="choose another name or add --force")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist", hint="make it first")


def write_output(path: Path, text: str, *, force: bool) -> None:
    """Write a whole text file or none.

    Raises:
        OutputError: as ``check_output``, or the disk refuses.
    """
    with whole_file(path, force=force) as file:
        file.write(text.encode())


@contextmanager
def whole_file(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """A file that appears under its name only once it is complete: a temporary neighbour, then renamed.

    Raises:
        OutputError: as ``check_output``, or the disk refuses.
    """
    check_output(path, force=force)
    try:
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
            Path(scratch).chmod(0o666 & ~_umask())
            Path(scratch).replace(path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}", hint="check the place and its free space"
        ) from error


def emit(text: str, *, output: Path | None, force: bool) -> None:
    """To the named file, or to stdout."""
    if output is None:
        click.echo(text, nl=False)
    else:
        write_output(output, text, force=force)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def examples(text: str) -> Callable[[Any], Any]:
    """A command's examples, printed at the end of its help as they are typed."""

    def add(command: Any) -> Any:
        command.epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in text.strip().splitlines())
        return command

    return add
