"""Ready-made runs, as data: a model, a machine, a program and what happened to the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from traces.synth import background, gpus, models
from traces.synth.context import Options
from traces.synth.gpus import GpuModel, HostModel
from traces.synth.models import Model
from traces.synth.programs import Test


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests to a server: how many, how far apart, how long; lengths vary by ``spread`` (of the logarithm)."""

    count: int
    every_ms: float
    n_prompt: float
    n_gen: float
    spread: float = 0.25
    first: int = 1  # that arrive together at the beginning


@dataclass(frozen=True, slots=True)
class Preset:
    """One synthetic trace.

    Attributes:
        program: what drives the contexts.
        gpus: GPUs of the machine; layers are split over them.
        threads: contexts of one process, each with its own host thread and streams.
        processes: copies of the program, each in its own process, counting correlation ids alike.
        load: the file begins with the model being loaded, not in the middle of a session.
        flush_every: the profiler flushes its buffers on the driver thread every so many steps.
        drop_graphs, drop_api: share of graph launches whose GPU rows, and of API rows, that are lost.
        pdl: share of kernels that begin before their predecessor ends.
        sample_every_us: period of CPU samples of the driver thread; 0 for none.
        hidden_gpus: GPUs of the machine that the processes do not see, before those that they do.
    """

    about: str
    model: Model
    gpus: tuple[GpuModel, ...] = (gpus.A100,)
    program: Literal["server", "bench", "speculative"] = "server"
    host: HostModel = HostModel()
    options: Options = Options()
    schema: Literal["2023.4", "2025"] = "2025"
    slots: int = 1
    traffic: Traffic = Traffic(count=2, every_ms=0, n_prompt=64, n_gen=8)
    tests: tuple[Test, ...] = ()
    repetitions: int = 2
    n_ubatch: int = 512
    draft: Model | None = None
    rounds: int = 8
    threads: int = 1
    processes: int = 1
    load: bool = False
    others: tuple[tuple[background.Kind, int], ...] = (
        (background.HTTP, 3), (background.LISTEN, 1), (background.CUDA_EVENTS, 1),
    )  # fmt: skip
    flush_every: int = 0
    drop_graphs: float = 0.0
    drop_api: float = 0.0
    pdl: float = 0.0
    unsorted: bool = False
    osrt: bool = True
    sample_every_us: int = 0
    hidden_gpus: int = 0
    steps: int | None = None
    tags: tuple[str, ...] = field(default=())


_BENCH_OTHERS = ((background.CUDA_EVENTS, 1), (background.WORKER, 3))

PRESETS: Final[dict[str, Preset]] = {
    "demo": Preset(
        "llama-server with two slots, node-level graphs: the trace of `make demo`",
        models.STORIES_15M_Q8_0, (gpus.RTX_3060,), slots=2, schema="2025",
        options=Options(graph="node"), host=HostModel(sample_ns_per_vocab=5.0, prepare_ns=45_000),
        traffic=Traffic(count=4, every_ms=14, n_prompt=90, n_gen=22, first=2), sample_every_us=100,
    ),
    "gemma3-4b-f16-turing": Preset(
        "published profile: Gemma-3-4b f16, llama-server, Turing, no graphs",
        models.GEMMA3_4B_F16, (gpus.RTX_2080_TI,), load=True,
        host=HostModel(launch_ns=1_690, launch_gap_ns=550, prepare_ns=250_000, sample_ns_per_vocab=8.0),
        options=Options(input_embeddings=True), traffic=Traffic(2, 0, n_prompt=180, n_gen=530, spread=0.0),
    ),
    "tinyllama-q4km-a100": Preset(
        "published profile: TinyLlama-1.1B Q4_K_M on an A100, llama-bench",
        models.TINYLLAMA_Q4_K_M, (gpus.A100,), program="bench", load=True, repetitions=5,
        host=HostModel(launch_ns=2_100, launch_gap_ns=300), tests=(Test(512, 0), Test(0, 128)), others=_BENCH_OTHERS,
    ),
    "moe-cpu-experts-3060": Preset(
        "published profile: MoE with all experts on the CPU, RTX 3060, node-level graphs, decode",
        models.GLM_AIR_EXPERTS_ON_CPU, (gpus.RTX_3060,), program="bench", repetitions=1,
        host=HostModel(memory_bandwidth=70e9, graph_launch_ns=42_000, copy_ns=11_000), options=Options(graph="node", experts_on_cpu=True),
        tests=(Test(0, 106, n_depth=0),), others=((background.CUDA_EVENTS, 1), (background.WORKER, 7)),
    ),
}  # fmt: skip

