"""Where a llama-server listens, read from its own arguments and environment."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nsyskit.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104  these are read, not bound


@dataclass(frozen=True, slots=True)
class Address:
    """How to reach the server that the capture starts. The key stays out of every text."""

    host: str
    port: int
    scheme: str = "http"
    prefix: str = ""
    api_key: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"


def option(argv: Sequence[str], *names: str) -> str | None:
    """The value of an option, the last one given; ``--name value`` or ``--name=value``."""
    value: str | None = None
    for word, following in zip(argv, (*argv[1:], None), strict=True):
        name, equals, inline = word.partition("=")
        if name in names:
            value = inline if equals else following
    return value


def server_address(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[Address, bool]:
    """The address that a llama-server command line asks for, and whether it named a port.

    Without a port a free one is chosen: the default of llama-server differs between builds.

    Raises:
        UsageError: a UNIX socket, or a port that is none.
    """
    host = (option(argv, "--host") or environment.get("LLAMA_ARG_HOST") or "127.0.0.1").split(",")[0]
    if host.endswith(".sock"):
        raise UsageError("the load needs a TCP port, not a UNIX socket", hint="use --host 127.0.0.1 --port PORT")
    host = _ANY.get(host, host)
    text = option(argv, "--port") or environment.get("LLAMA_ARG_PORT")
    if text is not None and not (text.isdigit() and 0 < int(text) < 65536):
        raise UsageError(f"--port {text} is not a port", hint="use a number from 1 to 65535")
    secure = option(argv, "--ssl-key-file") or environment.get("LLAMA_ARG_SSL_KEY_FILE")
    address = Address(
        host=host,
        port=int(text) if text else free_port(host),
        scheme="https" if secure else "http",
        prefix=(option(argv, "--api-prefix") or environment.get("LLAMA_ARG_API_PREFIX") or "").rstrip("/"),
        api_key=_api_key(argv, environment),
    )
    return address, text is not None


def _api_key(argv: Sequence[str], environment: Mapping[str, str]) -> str | None:
    keys = option(argv, "--api-key") or environment.get("LLAMA_API_KEY")
    if keys:
        return keys.split(",")[0]
    file = option(argv, "--api-key-file") or environment.get("LLAMA_ARG_API_KEY_FILE")
    if file is None:
        return None
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"the API key file {file} cannot be read", hint="check its path and rights") from error
    return next((line.strip() for line in lines if line.strip() and not line.startswith("#")), None)


def free_port(host: str) -> int:
    """A port that nobody listens on right now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def check_port_free(address: Address) -> None:
    """Refuse a port on which somebody listens: the load must not reach another's server.

    Raises:
        CaptureError: it is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past connections do not take a port
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise CaptureError(
                f"{address.host}:{address.port} cannot be listened on ({error.strerror})",
                hint="end the process that listens there (ss -ltnp shows it) or give the server another --port",
            ) from error


def listens(pids: Sequence[int], port: int) -> bool | None:
    """Whether one of these processes listens on a TCP port; None when the system does not tell."""
    inodes = _listening_inodes(pids, port)
    if inodes is None:
        return None
    for pid in pids:
        try:
            links = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
        if links & inodes:
            return True
    return False


def _listening_inodes(pids: Sequence[int], port: int) -> set[str] | None:
    inodes: set[str] = set()
    readable = False
    for table in ("tcp", "tcp6"):
        for pid in pids:
            try:
                lines = Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
            except OSError:
                continue
            readable = True
            for fields in map(str.split, lines):
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
            break
    return inodes if readable else None
