"""Fleets of synthetic traces: hosts that differ, ranks, broken files, copies."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from traces.synth.build import lay_out
from traces.synth.presets import PRESETS, Preset
from traces.synth.writer import write

TINY = replace(PRESETS["launch-bound"], steps=16)
"""Small and quick: 16 tokens of a model of 15 M parameters, graphs off."""


def busier(preset: Preset, ns: int = 150_000) -> Preset:
    """More work of the program's own between two steps."""
    return replace(preset, host=replace(preset.host, prepare_ns=preset.host.prepare_ns + ns))


def trace(path: Path, seed: int, *, preset: Preset = TINY, host: str | None = None, rank: int | None = None) -> Path:
    """Write one trace, captured on ``host``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(lay_out(preset, seed), path, name="fleet", seed=seed)
    path.chmod(0o644)
    with closing(sqlite3.connect(path)) as connection:
        run = connection.execute
        if host is not None:
            run("INSERT INTO META_DATA_CAPTURE VALUES ('DEVICE_DISPLAY_NAME', ?)", (host,))
        if rank is not None:
            row = ("PROCESS_0:ENVIRONMENT_VARIABLE", f"OMPI_COMM_WORLD_RANK={rank}")
            run("INSERT INTO META_DATA_CAPTURE VALUES (?, ?)", row)
        connection.commit()
    return path


def fleet(
    folder: Path, *, hosts: int = 4, each: int = 2, slow: int | None = None, change: Callable[[Preset], Preset] = busier
) -> list[Path]:
    """Traces of several hosts, ``nodeNN/run-N.sqlite``; the one numbered ``slow`` is changed."""
    return [
        trace(
            folder / f"node{host:02}.corp.example" / f"run-{at}.sqlite",
            seed=host * each + at,
            preset=change(TINY) if host == slow else TINY,
            host=f"node{host:02}.corp.example",
            rank=host,
        )
        for host in range(hosts)
        for at in range(each)
    ]


def broken(folder: Path, good: Path) -> dict[str, Path]:
    """Files that are no traces, each in a way of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    cut = folder / "cut.sqlite"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (folder / "empty.sqlite").touch()
    (folder / "text.sqlite").write_text("no trace at all\n" * 100)
    with closing(sqlite3.connect(folder / "other.sqlite")) as connection:
        connection.execute("CREATE TABLE fruit (name)")
        connection.commit()
    return {name: folder / f"{name}.sqlite" for name in ("cut", "empty", "text", "other")}


def copied(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(source, target))
