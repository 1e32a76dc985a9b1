"""From what was asked for on a command line to the config of a capture."""

from __future__ import annotations

import os
import secrets
import tempfile
from dataclasses import replace
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nsyskit.capture.config import (
    CaptureConfig,
    LoadConfig,
    ProgramKind,
    complete_program,
    default_folder,
    move_keys,
    program_kind,
)
from nsyskit.capture.profiles import PROFILES
from nsyskit.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def build_config(
    program: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    kind: ProgramKind | None = None,
    folder: Path | None = None,
    session: str | None = None,
    profile: str = "kernels",
    load: LoadConfig | None = None,
    nsys_args: Sequence[str] = (),
    beside: Sequence[Sequence[str]] = (),
    api_key: str | None = None,
    wait_s: float | None = None,
    ready_timeout_s: float = 300.0,
    stop_timeout_s: float = 20.0,
    nvml_hz: float = 20.0,
    export: bool = True,
    redact: bool = False,
) -> CaptureConfig:
    """A config with everything that the user left open filled in: folder, session, port, output format.

    Raises:
        UsageError: options that do not fit together.
        CaptureError: the load needs a package that is not installed.
    """
    source = os.environ if environment is None else environment
    chosen = kind or program_kind(program)
    completed, address = complete_program(program, chosen, source)
    name = session or f"nsyskit-{os.getpid()}-{secrets.token_hex(3)}"
    keys: tuple[str, ...] = ()
    key_file = Path(tempfile.gettempdir()) / f"{name}.keys"
    if chosen == "server":
        check_httpx()
        completed, keys = move_keys(completed, source, key_file)
        if address is not None and api_key:
            address = replace(address, api_key=api_key)
    for words in beside:
        if not words:
            raise UsageError("--beside needs a command", hint='write it as one word: --beside "rpc-server -p 50052"')
    return CaptureConfig(
        program=completed,
        kind=chosen,
        folder=(folder or default_folder(completed, datetime.now().astimezone())).absolute(),
        session=name,
        profile=PROFILES[profile],
        nsys_args=tuple(nsys_args),
        address=address,
        load=load if chosen == "server" else None,
        wait_s=wait_s,
        ready_timeout_s=ready_timeout_s,
        stop_timeout_s=stop_timeout_s,
        nvml_hz=nvml_hz,
        export=export,
        redact=redact,
        beside=tuple(tuple(words) for words in beside),
        keys=keys,
        key_file=key_file if keys else None,
    )


def check_httpx() -> None:
    """The server's capture speaks HTTP.

    Raises:
        CaptureError: httpx is not installed.
    """
    if find_spec("httpx") is None:
        raise CaptureError("capturing llama-server needs httpx", hint="install it: pip install 'nsyskit[capture]'")
