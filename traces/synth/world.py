"""What a trace is made of while it grows: processes, threads, streams, strings and the tapes of rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from traces.synth.gpus import GpuModel
from traces.synth.kernels import Kernels
from traces.synth.noise import Noise
from traces.synth.tape import Tape

VM: Final = 1 << 48
"""High bits of nsys's serialised process and thread ids."""

# Kinds of operations on a GPU.
KERNEL, MEMCPY, MEMSET, GRAPH = range(4)

# What an API call is for; ``ROLE_CLASS`` in truth.py says which class of calls that makes it.
(
    R_OTHER, R_LAUNCH, R_CAPTURED, R_GRAPH_LAUNCH, R_SYNC, R_COPY, R_MEMSET, R_BEGIN_CAPTURE, R_END_CAPTURE,
    R_INSTANTIATE, R_UPDATE, R_DESTROY, R_MODULE, R_SYNC_COPY, R_PREFETCH,
) = range(15)  # fmt: skip

PAGEABLE, PINNED, DEVICE, MANAGED = 0, 1, 2, 4
"""Kinds of memory, numbered as nsys does."""
MEMORY_NAMES: Final = {PAGEABLE: "pageable", PINNED: "pinned", DEVICE: "device", MANAGED: "managed"}

HTOD, DTOH, DTOD, PTOP, UVM_HTOD, UVM_DTOH = 1, 2, 8, 10, 11, 12
"""Kinds of copies, numbered as nsys does."""
COPY_NAMES: Final = {
    HTOD: "HtoD", DTOH: "DtoH", DTOD: "DtoD", PTOP: "PtoP", UVM_HTOD: "unified_HtoD", UVM_DTOH: "unified_DtoH",
}  # fmt: skip

PURPOSES: Final = ("weights", "input", "logits", "weights_streamed", "split", "other")
WHOLE_CONTEXT: Final = 4_294_967_295

OPS: Final = (
    "start", "end", "proc", "device", "gpu", "context", "stream", "corr", "type", "what", "part", "bytes", "node",
    "api_start", "api_end", "thread", "step", "purpose", "src", "dst", "src_device", "dst_device",
)  # fmt: skip
API: Final = ("start", "end", "proc", "thread", "corr", "name", "role", "device", "stream", "step", "capture")
SYNCS: Final = ("start", "end", "proc", "device", "context", "stream", "corr", "kind", "event")
OSRT: Final = ("start", "end", "proc", "thread", "name", "blocked", "chain")
OVERHEADS: Final = ("start", "end", "proc", "thread", "name")
SAMPLES: Final = ("start", "end", "proc", "thread", "cpu", "chain")


class Strings:
    """nsys's table of strings."""

    def __init__(self) -> None:
        self.values: list[str] = [""]
        self._ids: dict[str, int] = {"": 0}

    def id(self, value: str) -> int:
        if value not in self._ids:
            self._ids[value] = len(self.values)
            self.values.append(value)
        return self._ids[value]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of the machine. ``number`` is nsys's id of it, ``ordinal`` CUDA's when nothing is hidden."""

    number: int
    ordinal: int
    model: GpuModel


@dataclass
class Thread:
    number: int
    process: Process
    tid: int
    name: str

    @property
    def global_tid(self) -> int:
        return VM + (self.process.pid << 24) + self.tid


@dataclass
class Process:
    """A process with its own correlation ids; two processes may count alike."""

    number: int
    pid: int
    program: str
    arguments: tuple[str, ...]
    devices: tuple[Gpu, ...]
    correlation: int = 100
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    threads: list[Thread] = field(default_factory=list)

    @property
    def global_pid(self) -> int:
        return VM + (self.pid << 24)

    def take(self, count: int = 1) -> int:
        """The first of ``count`` fresh correlation ids."""
        first = self.correlation
        self.correlation += count
        return first


@dataclass
class Stream:
    """An in-order queue of one device. ``end`` is when its last operation ends."""

    number: int
    process: Process
    device: int
    end: int = 0
    recent: list[int] = field(default_factory=list)  # ends of the last launches, for the full-queue rule

    @property
    def gpu(self) -> Gpu:
        return self.process.devices[self.device]

    @property
    def context(self) -> int:
        return self.device + 1


@dataclass
class Step:
    """One ubatch. ``end`` is where the next step of the same request begins, else where ``forward`` ended."""

    index: int
    process: int
    thread: int
    context: str
    phase: str
    n_tokens: int
    n_outputs: int
    n_seq: int
    n_kv: int
    requests: tuple[int, ...]
    n_generating: int  # sequences with a token beside prompts
    begin: int = -1
    forward_end: int = -1
    end: int = -1
    last_of_request: bool = False
    warm: bool = False  # holds a graph capture, an instantiation or a module load


@dataclass
class World:
    """Everything so far."""

    noise: Noise
    gpus: tuple[Gpu, ...]
    pdl: float = 0.0  # share of kernels that start before their predecessor ends
    strings: Strings = field(default_factory=Strings)
    kernels: Kernels = field(default_factory=Kernels)
    processes: list[Process] = field(default_factory=list)
    threads: list[Thread] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    ops: Tape = field(default_factory=lambda: Tape(*OPS))
    api: Tape = field(default_factory=lambda: Tape(*API))
    syncs: Tape = field(default_factory=lambda: Tape(*SYNCS))
    osrt: Tape = field(default_factory=lambda: Tape(*OSRT))
    overheads: Tape = field(default_factory=lambda: Tape(*OVERHEADS))
    samples: Tape = field(default_factory=lambda: Tape(*SAMPLES))
    chains: list[tuple[str, ...]] = field(default_factory=lambda: [()])
    graphs: int = 0
    captures: int = 0

    def process(self, pid: int, program: str, arguments: tuple[str, ...], devices: tuple[Gpu, ...]) -> Process:
        made = Process(len(self.processes), pid, program, arguments, devices)
        self.processes.append(made)
        return made

    def thread(self, process: Process, name: str, tid: int | None = None) -> Thread:
        made = Thread(len(self.threads), process, process.pid + len(process.threads) if tid is None else tid, name)
        self.threads.append(made)
        process.threads.append(made)
        return made

    def chain(self, *frames: str) -> int:
        """The id of a call chain, innermost frame first."""
        if frames not in self.chains:
            self.chains.append(frames)
        return self.chains.index(frames)
