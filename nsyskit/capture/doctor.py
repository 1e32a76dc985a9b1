"""What on this machine would make a capture fail or lie, and what to do about it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nsyskit.capture.facts import llama_build
from nsyskit.capture.nvml import NvmlSampler
from nsyskit.capture.processes import left_behind
from nsyskit.errors import NsyskitError
from nsyskit.nsys import (
    INSTALL_HINT,
    Nsys,
    all_nsys,
    export_types,
    exports_graph_rows,
    find_nsys,
    has_recipes,
    importer,
    importer_mend,
    run_watched,
)
from nsyskit.units import human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

Status = Literal["ok", "note", "warning", "blocker"]

_TOOLS = ("llama-server", "llama-bench", "llama-batched-bench", "llama-cli", "llama-completion")
_LITTLE_BYTES, _TOO_LITTLE_BYTES = 5 << 30, 200 << 20
_CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at.

    Attributes:
        name: short and stable.
        status: ``blocker`` when no capture is possible, ``warning`` when one would be wrong or incomplete, ``note``
            when something cannot be had that nobody may need.
        found: what is there.
        consequence: what would go wrong; empty when ``ok``.
        remedy: what to do; empty when ``ok``.
    """

    name: str
    status: Status
    found: str
    consequence: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the capture is to use: its nsys, its folder, the server's port (None: any free one)."""

    nsys: Path | None = None
    folder: Path = Path()
    port: int | None = None


def doctor(wishes: Wishes, *, sampler: NvmlSampler | None = None) -> tuple[Check, ...]:
    """Look at everything. Nothing is changed, and nothing that cannot be seen stops the rest."""
    try:
        nsys: Nsys | None = find_nsys(wishes.nsys)
        missing = ""
    except NsyskitError as error:
        nsys, missing = None, error.message
    gpu = sampler or NvmlSampler(1.0)
    gpu.look()
    checks: list[Check] = [check_nsys(nsys, all_nsys(), missing)]
    if nsys is not None:
        checks += [check_importer(nsys), check_export(nsys), check_graph_rows(nsys), check_recipes(nsys)]
        checks += [check_driver(nsys, gpu), check_cpu_sampling(nsys), check_sessions(nsys)]
    checks += [check_counters(), check_wsl(_read("/proc/version")), check_container()]
    checks += [check_space("disk", wishes.folder), check_space("temporary disk", Path(tempfile.gettempdir()))]
    checks += [check_tools(), check_port(wishes.port), check_packages(), check_left_behind()]
    return tuple(checks)


def check_nsys(nsys: Nsys | None, found: Iterable[Nsys], missing: str = "") -> Check:
    """Which nsys would be used."""
    others = ", ".join(f"{one.version_text} at {one.path}" for one in found)
    if nsys is None:
        return Check("nsys", "blocker", missing or "not found", "nothing can be captured or exported", INSTALL_HINT)
    return Check("nsys", "ok", f"{nsys.version_text} at {nsys.path}" + (f" (on PATH: {others})" if others else ""))


def check_importer(nsys: Nsys) -> Check:
    """Whether ``nsys profile`` will end with a rep file."""
    place = importer(nsys)
    if place is not None:
        return Check("importer", "ok", str(place))
    return Check(
        "importer", "blocker", "not where this nsys looks for it",
        "captures end with a .qdstrm and no rep file, though nsys exits with 0", f"mend it with: {importer_mend(nsys)}",
    )  # fmt: skip


def check_export(nsys: Nsys) -> Check:
    """What ``nsys export`` writes."""
    kinds = export_types(nsys)
    if "sqlite" not in kinds:
        return Check("export", "blocker", ", ".join(sorted(kinds)) or "nothing", "no SQLite export", "use another nsys")
    if "parquetdir" not in kinds:
        return Check("export", "note", ", ".join(sorted(kinds)), "large traces are read slower than from parquetdir",
                     "nsys of 2023.4 or later writes it")  # fmt: skip
    return Check("export", "ok", ", ".join(sorted(kinds)))


def check_graph_rows(nsys: Nsys) -> Check:
    """Whether graph launches traced as a whole reach the export."""
    if exports_graph_rows(nsys):
        return Check("graph rows", "ok", "by its documentation, this nsys exports whole-graph rows")
    return Check(
        "graph rows", "warning", f"nsys {nsys.version_text} does not export them",
        "CUDA graphs traced as a whole show as launches without work; --profile spans and light are refused",
        "use --profile kernels, GGML_CUDA_DISABLE_GRAPHS=1, or nsys of 2024 or later",
    )  # fmt: skip


def check_recipes(nsys: Nsys) -> Check:
    """Whether ``nsys recipe`` is there."""
    if has_recipes(nsys):
        return Check("recipes", "ok", "nsys recipe is there (its Python needs numpy, pandas, psutil, pyarrow)")
    return Check("recipes", "note", "this nsys has none", "nsyskit's recipes do not run", "nsys of 2023.1 has them")


def check_driver(nsys: Nsys, gpu: NvmlSampler) -> Check:
    """Driver and GPUs, and whether this nsys is new enough for the driver's CUDA."""
    if not gpu.gpus:
        return Check("GPU", "warning", "; ".join(gpu.notes) or "no GPU", "only the host side can be captured",
                     "install the NVIDIA driver and nvidia-ml-py; in a container, run with --gpus all")  # fmt: skip
    driver = gpu.driver or {}
    names = ", ".join(str(one["name"]) for one in gpu.gpus)
    found = f"{names}; driver {driver.get('driver_version')}, CUDA {driver.get('cuda_version')}"
    known, wanted = newest_cupti(nsys), version_tuple(driver.get("cuda_version"))
    if known and wanted and wanted[0] > known[0]:
        return Check("GPU", "warning", found, f"this nsys knows CUDA up to {known[0]}.{known[1]}; kernels may be lost",
                     "use an nsys that is as new as the driver")  # fmt: skip
    return Check("GPU", "ok", found)


def newest_cupti(nsys: Nsys) -> tuple[int, ...] | None:
    """The newest CUDA version that this nsys carries a tracing library for."""
    versions = [
        version_tuple(path.name.partition(".so.")[2]) for path in nsys.path.resolve().parent.glob("libcupti.so.*")
    ]
    return max((version for version in versions if version), default=None)


def version_tuple(text: object) -> tuple[int, ...] | None:
    """``12.4`` as numbers, None for anything else."""
    return (
        tuple(int(part) for part in text.split("."))
        if isinstance(text, str) and re.fullmatch(r"\d+(\.\d+)+", text)
        else None
    )


def check_cpu_sampling(nsys: Nsys) -> Check:
    """Whether ``--profile cpu`` may sample, by nsys's own look at the kernel."""
    level = _read("/proc/sys/kernel/perf_event_paranoid").strip() or "unknown"
    _, said = run_watched((str(nsys.path), "status", "-e"))
    verdict = re.search(r"\(process-tree\): (\w+)", said)
    if verdict and verdict[1] == "OK":
        return Check("CPU sampling", "ok", f"allowed (perf_event_paranoid {level})")
    return Check(
        "CPU sampling", "warning", f"refused (perf_event_paranoid {level})",
        "--profile cpu has no samples and no context switches",
        "sudo sysctl kernel.perf_event_paranoid=2; in a container also --cap-add=SYS_ADMIN or a seccomp profile "
        "that allows perf_event_open",
    )  # fmt: skip


def check_counters() -> Check:
    """Whether GPU performance counters are open to this user."""
    match = re.search(r"RmProfilingAdminOnly: (\d)", _read("/proc/driver/nvidia/params"))
    if match is None:
        return Check(
            "counters", "note", "no NVIDIA driver to ask", "GPU metrics cannot be sampled", "install the driver"
        )
    if match[1] == "0" or os.geteuid() == 0:
        return Check("counters", "ok", "GPU performance counters may be read")
    return Check("counters", "note", "GPU performance counters are for root only",
                 "--nsys-arg=--gpu-metrics-device=all fails",
                 "set NVreg_RestrictProfilingToAdminUsers=0 for the module; kernel traces need none")  # fmt: skip


def check_wsl(version: str) -> Check:
    """WSL traces differently."""
    if "microsoft" not in version.lower():
        return Check("WSL", "ok", "this is not WSL")
    return Check("WSL", "warning", "this is WSL", "CPU sampling and GPU metrics do not work; kernel times are coarser",
                 "capture on Linux for numbers to trust")  # fmt: skip


def check_container() -> Check:
    """What a container takes away."""
    if not in_container():
        return Check("container", "ok", "this is no container")
    lacking = [name for name, bit in _CAPABILITIES.items() if not _capabilities() >> bit & 1]
    if len(lacking) < len(_CAPABILITIES):
        return Check("container", "ok", "a container with the rights to sample")
    return Check("container", "warning", f"a container without {' and '.join(lacking)}",
                 "CPU sampling is refused; CUDA and OS runtime traces work",
                 "docker run --cap-add=SYS_ADMIN")  # fmt: skip


def in_container() -> bool:
    """Whether this looks like a container."""
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return True
    return re.search(r"docker|containerd|kubepods|libpod|lxc", _read("/proc/1/cgroup")) is not None


def check_space(name: str, folder: Path) -> Check:
    """Room for rep file and export; nsys also writes to the temporary folder."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        return Check(
            name, "blocker", f"{place} may not be written", "nothing can be kept", "choose another folder with -o"
        )
    free = shutil.disk_usage(place).free
    found = f"{human_bytes(free)} free in {place}"
    if free < _TOO_LITTLE_BYTES:
        return Check(
            name, "blocker", found, "a capture of seconds does not fit", "free space, or choose another folder"
        )
    if free < _LITTLE_BYTES:
        return Check(name, "warning", found, "a capture of minutes may not fit", "free space, or keep windows short")
    return Check(name, "ok", found)


def check_tools() -> Check:
    """The llama.cpp tools on PATH."""
    found = [tool for tool in _TOOLS if shutil.which(tool)]
    if not found:
        return Check("llama.cpp", "warning", "none of its tools is on PATH", "name them by their path",
                     "add llama.cpp's build/bin to PATH")  # fmt: skip
    build = llama_build((found[0],))
    version = build["version"] if build else "build unknown"
    return Check("llama.cpp", "ok", f"{', '.join(found)}; {version}")


def check_port(port: int | None) -> Check:
    """Whether the server's port is free."""
    if port is None:
        return Check("port", "ok", "a free port is chosen when the server's arguments name none")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return Check("port", "blocker", f"{port} is taken ({error.strerror})", "the server cannot listen",
                         "end the process that ss -ltnp shows, or use another --port")  # fmt: skip
    return Check("port", "ok", f"{port} is free")


def check_packages() -> Check:
    """The optional packages of captures."""
    lacking = [name for name, module in (("httpx", "httpx"), ("nvidia-ml-py", "pynvml")) if find_spec(module) is None]
    if not lacking:
        return Check("packages", "ok", "httpx and nvidia-ml-py are installed")
    return Check("packages", "warning", f"{' and '.join(lacking)} not installed",
                 "without httpx no llama-server can be captured, without nvidia-ml-py there are no GPU samples",
                 "pip install 'nsyskit[capture]'")  # fmt: skip


def check_sessions(nsys: Nsys) -> Check:
    """Sessions of nsys that are open right now."""
    _, said = run_watched((str(nsys.path), "sessions", "list"))
    names = [line.split()[-1] for line in said.splitlines() if re.match(r"\s*\d+\s", line)]
    if not names:
        return Check("sessions", "ok", "none is open")
    return Check("sessions", "note", f"open: {', '.join(names)}", "a capture goes on, or one was left behind",
                 f"if nobody needs it: nsys shutdown --session={names[0]}")  # fmt: skip


def check_left_behind() -> Check:
    """Processes of captures whose nsyskit was killed."""
    left = left_behind()
    if not left:
        return Check("left behind", "ok", "nothing of an earlier capture is running")
    names = ", ".join(f"{process.name} ({process.pid})" for process in left)
    return Check("left behind", "warning", names, "they hold memory, ports and GPU time",
                 f"kill {' '.join(str(process.pid) for process in left)}")  # fmt: skip


def _capabilities() -> int:
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", _read("/proc/self/status"), re.MULTILINE)
    return int(match[1], 16) if match else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
