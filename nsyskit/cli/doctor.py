"""``nsyskit doctor``: what on this machine would make a capture fail or lie."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nsyskit.capture.doctor import Check


@click.command("doctor")
@click.option(
    "--nsys", type=click.Path(path_type=Path), envvar="NSYSKIT_NSYS", metavar="PATH", help="The nsys to look at."
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("nsyskit-runs"),
    metavar="DIR",
    show_default=True,
    help="Where captures are to be kept.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="The port that the server is to listen on.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, nsys: Path | None, folder: Path, port: int | None, as_json: bool) -> None:
    """Look at nsys, driver, GPUs, rights, disks and llama.cpp; say what would go wrong and what to do.

    Exit code: 1 when something makes captures impossible, else 0.

    \b
    Examples:
      nsyskit doctor
      nsyskit doctor --port 8080 --json
    """  # noqa: D301 - click wants the backspace itself
    from nsyskit.capture.doctor import Wishes, doctor

    checks = doctor(Wishes(nsys=nsys, folder=folder, port=port))
    click.echo(_json(checks) if as_json else _text(checks))
    sys.exit(1 if any(check.status == "blocker" for check in checks) else 0)


def _json(checks: tuple[Check, ...]) -> str:
    from dataclasses import asdict

    return json.dumps({"schema": "nsyskit.doctor/1", "checks": [asdict(check) for check in checks]}, indent=2)


def _text(checks: tuple[Check, ...]) -> str:
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.status:<8} {check.name:<{width}}  {check.found}")
        lines += [f"{'':<8} {'':<{width}}  {text}" for text in (check.consequence, check.remedy) if text]
    return "\n".join(lines)
