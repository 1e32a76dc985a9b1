"""Traces that lie behind a URL, through fsspec (``pip install 'nsyskit[fleet]'``). Local paths need none of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nsyskit.errors import TraceFormatError, UsageError

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@")


def is_url(location: str) -> bool:
    return _URL.match(location) is not None


def without_secrets(url: str) -> str:
    """A URL as it may be shown: no user, no password, no signature."""
    return _CREDENTIALS.sub("", re.split(r"[?#]", url, maxsplit=1)[0])


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path within it.

    Raises:
        UsageError: fsspec or what it needs for this kind of URL is not installed, or refuses.
    """
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - an extra: local traces do without
    except ImportError as error:
        raise UsageError(
            f"{without_secrets(url)} is a URL", hint="install what reads those: pip install 'nsyskit[fleet]'"
        ) from error
    try:
        files, path = url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise UsageError(
            f"{without_secrets(url)} cannot be used: {_plain(error, url)}",
            hint="check the URL, and install the fsspec package for it",
        ) from error
    return files, str(path)


@contextmanager
def asking(url: str) -> Iterator[None]:
    """Turn what a file system raises into an error that names the URL without its secrets.

    Raises:
        TraceFormatError: it cannot be asked.
    """
    try:
        yield
    except Exception as error:  # every file system has errors of its own
        raise TraceFormatError(
            f"{without_secrets(url)} cannot be asked: {_plain(error, url)}", hint="check the place and your access"
        ) from error


def listing(url: str) -> list[tuple[str, int, str]]:
    """Files behind a URL: path within it ("" for a single file), size, and a key that changes when the file does.

    Raises:
        TraceFormatError: there is nothing, or it cannot be asked.
    """
    files, root = filesystem(url)
    with asking(url):
        found = [root] if files.isfile(root) else sorted(str(path) for path in files.find(root))
        rows = [(path[len(root) :].lstrip("/"), int(files.info(path)["size"] or 0), files.ukey(path)) for path in found]
    if not rows:
        raise TraceFormatError(f"{without_secrets(url)} does not exist", hint="check the path")
    return rows


def piece(url: str, inner: str, start: int, end: int) -> bytes:
    """Some bytes of a file."""
    files, root = filesystem(url)
    content: bytes = files.cat_file(f"{root}/{inner}" if inner else root, start=start, end=end)
    return content


def fetch(url: str, members: Sequence[str], scratch: Path) -> Path:
    """Copy a file, or the named files of a folder, into ``scratch`` under their own names.

    Raises:
        TraceFormatError: it cannot be read, or the name of a file in it leads elsewhere.
    """
    files, root = filesystem(url)
    target = scratch / (root.rstrip("/").rpartition("/")[2] or "trace")
    names = [target.name, *members]  # those of objects in a bucket may be anything
    if any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise TraceFormatError(
            f"{without_secrets(url)} holds a name that leads outside of its folder", hint="rename what it holds"
        )
    try:
        for inner in members:
            local = target / inner if inner else target
            local.parent.mkdir(parents=True, exist_ok=True)
            with files.open(f"{root}/{inner}" if inner else root, "rb") as source, local.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
    except Exception as error:  # as above
        raise TraceFormatError(
            f"{without_secrets(url)} cannot be fetched: {_plain(error, url)}", hint="check the place and your access"
        ) from error
    return target


def _plain(error: Exception, url: str) -> str:
    return (str(error) or type(error).__name__).replace(url, without_secrets(url))
