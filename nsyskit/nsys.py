"""The one place that finds and runs nsys itself: which one, what it can do, and its export of a rep file.

Messages quoted here were provoked with nsys 2022.4 and 2023.4. Their exit codes cannot be trusted: an export onto a
full disk ends with 0 and leaves an empty database, `nsys profile` without its importer with 0 and no rep file.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal

from nsyskit.errors import NsysError, NsyskitError, OutputError, TraceFormatError

ExportKind = Literal["sqlite", "parquetdir"]
Progress = Callable[[float], None]

ENVIRONMENT = "NSYSKIT_NSYS"
INSTALL_HINT = (
    "install NVIDIA Nsight Systems (Debian: apt install nsight-systems from non-free), put its nsys on PATH, "
    f"or name it with --nsys or {ENVIRONMENT}"
)
# The first bytes of a rep file: the importer's version follows in files of 2023 and later ("2023@4@4@54-…").
_MAGIC = re.compile(rb"NVIDIA Tegra Profiler Report (\d+(?:[@.]\d+)*)")
_PERCENT = re.compile(r"\[\s*=*\s*(\d{1,3})%")
_HELP_TIMEOUT_S = 30.0
_SILENCE_S = 0.5


@dataclass(frozen=True, slots=True)
class Nsys:
    """One installed nsys. ``version`` compares, ``version_text`` is what it printed."""

    path: Path
    version: tuple[int, ...]
    version_text: str


def find_nsys(explicit: Path | None = None) -> Nsys:
    """The nsys to use: the one named, else the one in ``NSYSKIT_NSYS``, else the first on PATH.

    Raises:
        NsysError: none is there, or the one that is there does not run.
    """
    named = explicit or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if named is None:
        on_path = shutil.which("nsys")
        if on_path is None:
            raise NsysError("nsys was not found on PATH", hint=INSTALL_HINT)
        return probe(Path(on_path))
    located = shutil.which(named)
    if located is None:
        raise NsysError(f"{named} is not an executable nsys", hint=INSTALL_HINT)
    return probe(Path(located))


def all_nsys() -> tuple[Nsys, ...]:
    """Every nsys on PATH that runs, in PATH's order, each program once."""
    found: dict[Path, Nsys] = {}
    for folder in os.get_exec_path():
        candidate = Path(folder) / "nsys"
        if not os.access(candidate, os.X_OK) or candidate.is_dir() or candidate.resolve() in found:
            continue
        try:
            found[candidate.resolve()] = probe(candidate)
        except NsysError:
            continue
    return tuple(found.values())


@lru_cache
def probe(path: Path) -> Nsys:
    """Ask this nsys for its version.

    Raises:
        NsysError: it does not run, or prints something else.
    """
    text = _ask(path, "--version")
    match = re.search(r"version\s+((\d+(?:\.\d+)+)\S*)", text)
    if match is None:
        said = text.strip().splitlines()
        raise NsysError(
            f"{path} does not answer --version like nsys{f' ({said[0]})' if said else ''}", hint=INSTALL_HINT
        )
    return Nsys(path, tuple(int(part) for part in match[2].split(".")), match[1])


@lru_cache
def export_types(nsys: Nsys) -> frozenset[str]:
    """The formats that ``nsys export`` of this version writes: ``sqlite``, ``parquetdir``, …"""
    match = re.search(r"--type=\s+Possible values are:\s*([^.]*)\.", _ask(nsys.path, "export", "--help"))
    return frozenset(re.findall(r"\w+", match[1])) - {"and"} if match else frozenset()


@lru_cache
def has_recipes(nsys: Nsys) -> bool:
    """Whether this nsys knows ``nsys recipe`` (2023.1 and later)."""
    return re.search(r"^\s+recipe\s", _ask(nsys.path, "--help"), re.MULTILINE) is not None


@lru_cache
def options(nsys: Nsys, command: str) -> frozenset[str]:
    """The long options of one nsys command, such as ``--cuda-graph-trace`` of ``profile``."""
    return frozenset(re.findall(r"^\s+(?:-\w, )?(--[a-z][a-z-]*)", _ask(nsys.path, command, "--help"), re.MULTILINE))


def exports_graph_rows(nsys: Nsys) -> bool:
    """Whether whole-graph rows reach an export.

    The table is in neither 2022.4 nor 2023.4; later versions are taken at their documentation's word.
    """
    return nsys.version >= (2024,)


def importer(nsys: Nsys) -> Path | None:
    """The importer that this nsys would find beside itself, None when it would end without a rep file."""
    package = nsys.path.resolve().parent.parent
    return next(iter(sorted(package.glob("host-linux-*/QdstrmImporter"))), None)


def importer_mend(nsys: Nsys) -> str:
    """The command that lets this nsys find an importer which is installed elsewhere, or what else to do."""
    package = nsys.path.resolve().parent.parent
    # Debian splits the package; Nsight Compute keeps the importer in host/linux-desktop-*. x64 is all that was seen.
    places = (Path("/usr/lib/nsight-systems"), package, package.parent)
    for place in places:
        for pattern in ("host-linux-*/QdstrmImporter", "linux-desktop-*/QdstrmImporter"):
            for found in sorted(place.glob(pattern)):
                return f"ln -s {found.parent} {package / 'host-linux-x64'}"
    return "install the full Nsight Systems: this is the target side only"


def export(
    nsys: Nsys,
    report: Path,
    output: Path,
    *,
    kind: ExportKind,
    progress: Progress | None = None,
    extra: Sequence[str] = (),
) -> None:
    """Export a rep file; ``output`` is replaced, and removed again when the export fails.

    Args:
        nsys: the nsys that is to export; it opens rep files of its own version and of older ones.
        report: the rep file.
        output: a file for ``sqlite``, a folder for ``parquetdir``.
        kind: the format.
        progress: called with the share that is done, 0 to 1.
        extra: more options for ``nsys export``.

    Raises:
        TraceFormatError: the rep file is not one, is truncated or damaged.
        NsysError: this nsys cannot open it or cannot write this format.
        OutputError: the disk is full or the folder is missing.
    """
    _check_report(nsys, report)
    if kind not in export_types(nsys):
        raise NsysError(
            f"nsys {nsys.version_text} cannot export {kind}", hint="export sqlite or use nsys 2023.4 or later"
        )
    if not output.parent.is_dir():
        raise OutputError(f"the folder {output.parent} does not exist", hint="make it first")
    argv = export_argv(nsys, report, output, kind=kind, extra=extra)
    try:
        code, said = run_watched(argv, progress)
        _raise_export_error(nsys, report, output, code, said)
    except BaseException:
        _remove(output)
        raise


def export_argv(
    nsys: Nsys, report: Path, output: Path, *, kind: ExportKind, extra: Sequence[str] = ()
) -> tuple[str, ...]:
    """The command line of ``export``."""
    return (
        str(nsys.path),
        "export",
        f"--type={kind}",
        "--force-overwrite=true",
        *extra,
        f"--output={output}",
        str(report),
    )


def report_version(report: Path) -> str | None:
    """The nsys version in a rep file's first bytes, None when it holds none (2022 and before)."""
    with report.open("rb") as file:
        match = _MAGIC.match(file.read(80))
    version = match[1].decode().replace("@", ".") if match else None
    return version if version and "." in version else None


def run_watched(
    argv: Sequence[str],
    progress: Progress | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    watch: Callable[[], None] = lambda: None,
) -> tuple[int, str]:
    """Run an nsys command to its end: its exit code, and what it said apart from its progress bars.

    Anything that is raised meanwhile ends the command: by a Ctrl-C, or by ``watch``, called while it is silent.

    Raises:
        NsysError: it cannot be run.
    """
    try:
        # An own process group: a Ctrl-C of the terminal reaches us alone, and we end the command.
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise NsysError(f"{argv[0]} cannot be run ({error.strerror})", hint=INSTALL_HINT) from error
    with process:
        try:
            lines: list[str] = []
            for line in _lines(process.stdout, watch):
                percent = _PERCENT.search(line)
                if percent is None:
                    lines.append(line)
                elif progress is not None:
                    progress(min(int(percent[1]), 100) / 100)
            return process.wait(), "\n".join(lines)
        except BaseException:
            process.kill()
            raise


def _ask(path: Path, *arguments: str) -> str:
    argv = [str(path), *arguments]
    try:
        answer = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=_HELP_TIMEOUT_S, check=False
        )
    except OSError as error:
        raise NsysError(f"{path} cannot be run ({error.strerror})", hint=INSTALL_HINT) from error
    except subprocess.TimeoutExpired as error:
        raise NsysError(
            f"{path} {arguments[0]} did not answer within {_HELP_TIMEOUT_S:.0f} s", hint="run it by hand"
        ) from error
    said = answer.stdout + answer.stderr
    if answer.returncode:
        last = said.strip().splitlines()[-1:] or [f"exit code {answer.returncode}"]
        raise NsysError(f"{path} {' '.join(arguments)} failed ({last[0].strip()})", hint=INSTALL_HINT)
    return said


def _check_report(nsys: Nsys, report: Path) -> None:
    if not report.is_file():
        raise TraceFormatError(f"{report} is not a file", hint="name a .nsys-rep file")
    with report.open("rb") as file:
        head = file.read(80)
    if head.startswith(b"NVIDIA Nsight Systems Stream") or report.suffix == ".qdstrm":
        mend = f"; mend it with: {importer_mend(nsys)}" if importer(nsys) is None else ""
        raise TraceFormatError(
            f"{report} was never imported by nsys", hint=f"open it in the Nsight Systems GUI or capture again{mend}"
        )
    if not head.startswith(b"NVIDIA "):
        what = "is empty" if not head else "is not a rep file of nsys"
        raise TraceFormatError(f"{report} {what}", hint="capture again or name a .nsys-rep file")


def _lines(stream: IO[bytes] | None, watch: Callable[[], None]) -> Iterator[str]:
    """Lines as they come, also those that a carriage return ends, as in nsys's progress bars."""
    assert stream is not None  # noqa: S101  Popen with PIPE has one
    rest = b""
    while True:
        if not select.select([stream], [], [], _SILENCE_S)[0]:
            watch()
            continue
        chunk = os.read(stream.fileno(), 65536)
        if not chunk:
            break
        *whole, rest = re.split(rb"[\r\n]+", rest + chunk)
        yield from (line.decode(errors="replace") for line in whole if line.strip())
    if rest.strip():
        yield rest.decode(errors="replace")


def _raise_export_error(nsys: Nsys, report: Path, output: Path, code: int, said: str) -> None:
    """Raise what nsys's words mean; they count before the exit code, which is 0 even after a full disk."""
    text = said.lower()
    for needles, error in _known_errors(nsys, report, output):
        if any(needle in text for needle in needles):
            raise error
    if code == 0 and _written(output):
        return
    if code < 0:
        raise NsysError(f"nsys export was ended by {signal.Signals(-code).name}", hint="is there memory enough?")
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), f"exit code {code}")
    raise NsysError(f"nsys {nsys.version_text} could not export {report} ({last})", hint="try a newer nsys")


def _known_errors(nsys: Nsys, report: Path, output: Path) -> tuple[tuple[tuple[str, ...], NsyskitError], ...]:
    return (
        (
            ("disk is full", "error writing bytes", "no space left"),
            OutputError(
                f"the disk is full: {output.parent} has no room for the export of {report}",
                hint="free space or export elsewhere",
            ),
        ),
        (("version number is invalid", "newer than", "protobuf"), _newer(nsys, report)),
        (
            ("magic number mismatch", "cannot read from stream", "invalid version prefix"),
            TraceFormatError(f"{report} is truncated or damaged", hint="copy it again or capture again"),
        ),
        (
            ("unable to open database", "create_directory"),
            OutputError(f"{output} cannot be written", hint="choose a folder that you may write to"),
        ),
        (
            ("importer",),
            NsysError("this nsys does not find its importer", hint=f"mend it with: {importer_mend(nsys)}"),
        ),
    )


def _newer(nsys: Nsys, report: Path) -> NsysError:
    writer = report_version(report)
    by = f"written by nsys {writer}, " if writer else ""
    return NsysError(
        f"{report} is newer than this nsys ({by}this is {nsys.version_text} at {nsys.path})",
        hint=f"export it with that version or a later one: name it with --nsys or {ENVIRONMENT}",
    )


def _written(output: Path) -> bool:
    return any(output.iterdir()) if output.is_dir() else output.is_file() and output.stat().st_size > 0


def _remove(output: Path) -> None:
    if output.is_dir():
        shutil.rmtree(output, ignore_errors=True)
    else:
        output.unlink(missing_ok=True)
