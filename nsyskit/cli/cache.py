"""``nsyskit cache``: what lies in the user's cache directory, and how to be rid of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from nsyskit.cli.options import examples
from nsyskit.units import human_bytes

if TYPE_CHECKING:
    from nsyskit.ingest.cache import CacheEntry, CacheInfo


@click.group()
def command() -> None:
    """What nsyskit keeps in your cache directory: exports of rep files, and columns of large SQLite exports.

    Everything there is made again when it is needed. NSYSKIT_CACHE names another directory, NSYSKIT_CACHE_BYTES how
    much it may hold: 10 GB, or a tenth of the free disk if that is less; at 0 no columns are kept.
    """


examples("""
nsyskit cache info
nsyskit cache clear
""")(command)


@examples("nsyskit cache info --format json")
@command.command("info")
@click.option("--format", "fmt", type=click.Choice(["text", "json"]), default="text", show_default=True)
def info(*, fmt: str) -> None:
    """Show how much is kept, of what, and when it was used last."""
    from nsyskit.ingest.cache import cache_info

    found = cache_info()
    if fmt == "json":
        click.echo(json.dumps(_document(found), indent=1))
        return
    click.echo(f"{found.folder}: {human_bytes(found.size_bytes)} of at most {human_bytes(found.limit_bytes)}")
    for entry in found.entries:
        click.echo(f"{_day(entry)}  {human_bytes(entry.size_bytes):>8}  {entry.kind:7}  {entry.path.name}")


@examples("nsyskit cache clear")
@command.command("clear")
def clear() -> None:
    """Remove everything that is kept. A running analysis of a rep file may have to be started again."""
    from nsyskit.ingest.cache import clear_cache

    removed = clear_cache()
    click.echo(f"{human_bytes(removed.size_bytes)} in {len(removed.entries)} entries removed from {removed.folder}")


def _day(entry: CacheEntry) -> str:
    return datetime.fromtimestamp(entry.used_ns / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M")


def _document(found: CacheInfo) -> dict[str, object]:
    return {
        "folder": str(found.folder), "size_bytes": found.size_bytes, "limit_bytes": found.limit_bytes,
        "entries": [
            {"kind": entry.kind, "key": entry.path.name, "size_bytes": entry.size_bytes, "used_ns": entry.used_ns}
            for entry in found.entries
        ],
    }  # fmt: skip
