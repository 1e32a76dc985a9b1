"""Ready-made runs, as data: a model, a machine, a program and what happened to the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from traces.synth import background, gpus, models
from traces.synth import world as w
from traces.synth.context import Options
from traces.synth.gpus import GpuModel, HostModel
from traces.synth.models import Model
from traces.synth.programs import Test

_HOST: Final = HostModel()
_OPTIONS: Final = Options()


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
        own_gpus: each process sees one GPU, its own; each calls it device 0.
        backtraces: long API calls come twice, as with CUDA backtraces.
        rows: batched-bench: prompt, tokens and sequences of each row.
        steps: server: ubatches in all; bench: tokens that every ``tg`` test generates.
    """

    about: str
    model: Model
    gpus: tuple[GpuModel, ...] = (gpus.A100,)
    program: Literal["server", "bench", "speculative", "batched-bench", "perplexity"] = "server"
    host: HostModel = _HOST
    options: Options = _OPTIONS
    schema: Literal["2023.4", "2025"] = "2025"
    slots: int = 1
    traffic: Traffic = Traffic(count=2, every_ms=0, n_prompt=64, n_gen=8)
    tests: tuple[Test, ...] = ()
    rows: tuple[tuple[int, int, int], ...] = ()
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
    own_gpus: bool = False
    backtraces: bool = False
    steps: int | None = None


_BENCH_OTHERS = ((background.CUDA_EVENTS, 1), (background.WORKER, 3))

SHIPPED: Final = ("demo", "bench-graph", "two-gpus-layer-split", "cpu-experts", "damaged")
"""Presets whose traces lie in the repository, beside this package."""

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
        models.TINYLLAMA_Q4_K_M, (gpus.A100,), program="bench", load=True, repetitions=10,
        host=HostModel(launch_ns=1_650, launch_gap_ns=300), tests=(Test(2048, 0), Test(0, 12)),
        others=(*_BENCH_OTHERS, (background.POOL, 1)),
    ),
    "moe-cpu-experts-3060": Preset(
        "published profile: MoE with all experts on the CPU, RTX 3060, node-level graphs, decode",
        models.GLM_AIR_EXPERTS_ON_CPU, (gpus.RTX_3060,), program="bench", repetitions=1,
        host=HostModel(memory_bandwidth=70e9, graph_launch_ns=42_000, copy_ns=11_000),
        options=Options(graph="node", experts_on_cpu=True),
        tests=(Test(0, 106, n_depth=0),), others=((background.CUDA_EVENTS, 1), (background.WORKER, 7)),
    ),
    "server-idle-long-prompt": Preset(
        "idle between requests; prompts of several ubatches, of which only the last has outputs",
        models.TINYLLAMA_Q4_K_M, (gpus.RTX_3060,),
        traffic=Traffic(count=3, every_ms=180, n_prompt=1500, n_gen=12, spread=0.1),
    ),
    "bench-graph": Preset(
        "llama-bench, graphs traced as a whole (nsys's default): kernels of decode steps are invisible",
        models.TINYLLAMA_Q4_K_M, (gpus.RTX_3060,), program="bench", tests=(Test(512, 0), Test(0, 32)),
        options=Options(graph="graph"), others=_BENCH_OTHERS,
    ),
    "bench-node": Preset(
        "llama-bench, graphs traced node by node", models.TINYLLAMA_Q4_K_M, (gpus.RTX_3060,), program="bench",
        tests=(Test(512, 0), Test(0, 16)), options=Options(graph="node"), others=_BENCH_OTHERS,
    ),
    "prompt-graphs": Preset(
        "the newest llama.cpp replays prompt graphs too", models.TINYLLAMA_Q4_K_M, (gpus.RTX_4090,), program="bench",
        tests=(Test(512, 0), Test(0, 16)), repetitions=4, options=Options(graph="graph", prompt_graphs=True),
        others=_BENCH_OTHERS,
    ),
    "graph-rows-dropped": Preset(
        "graph-level trace that lost a third of its graph rows", models.TINYLLAMA_Q4_K_M, (gpus.RTX_3060,),
        program="bench", tests=(Test(0, 48),), options=Options(graph="graph"), drop_graphs=0.33, others=_BENCH_OTHERS,
    ),
    "graph-rows-no-table": Preset(
        "graph-level trace exported by 2023.4, which has no table for graphs", models.TINYLLAMA_Q4_K_M,
        (gpus.RTX_3060,), program="bench", tests=(Test(512, 0), Test(0, 24)), options=Options(graph="graph"),
        schema="2023.4", others=_BENCH_OTHERS,
    ),
    "graph-update-failed": Preset(
        "the cache grows past 256 cells, the graph update fails: destroyed and instantiated anew inside decode",
        models.TINYLLAMA_Q4_K_M, (gpus.RTX_3060,), options=Options(graph="node", failing_update=1),
        traffic=Traffic(1, 0, n_prompt=250, n_gen=30, spread=0.0),
    ),
    "two-gpus-layer-split": Preset(
        "layers split over two GPUs of one process: one works while the other waits", models.LLAMA3_8B_Q4_K_M,
        (gpus.RTX_3060, gpus.RTX_3060), options=Options(graph="node"),
        traffic=Traffic(1, 0, n_prompt=700, n_gen=10, spread=0.0),
    ),
    "cpu-experts": Preset(
        "MoE with its experts on the CPU; prompts stream their weights to the GPU", models.MOE_SMALL_EXPERTS_ON_CPU,
        (gpus.RTX_3060,), program="bench", repetitions=1, tests=(Test(64, 0), Test(0, 12)),
        options=Options(graph="node", experts_on_cpu=True), others=((background.WORKER, 7),), sample_every_us=500,
    ),
    "slots-32": Preset(
        "32 slots: decode batches above 8 run mul_mat_q; prompts and generation mixed in one batch",
        models.LLAMA3_1B_Q8_0, (gpus.A100,), slots=32, host=HostModel(sample_ns_per_vocab=0.6),
        traffic=Traffic(40, every_ms=6, n_prompt=60, n_gen=14, spread=0.5, first=12),
    ),
    "bench-depth": Preset(
        "llama-bench tg at a depth: prompts that fill the cache, outside of what it measures", models.LLAMA3_1B_Q8_0,
        (gpus.RTX_4090,), program="bench", tests=(Test(0, 12, n_depth=1024),), options=Options(graph="node"),
        others=_BENCH_OTHERS,
    ),
    "m-rope": Preset(
        "a vision model: positions of 16 bytes a token", models.QWEN_VL_3B_Q4_K_M, (gpus.RTX_4090,), slots=2,
        options=Options(graph="graph"), traffic=Traffic(2, 0, n_prompt=300, n_gen=12, first=2),
    ),
    "launch-bound": Preset(
        "a small model, graphs off: kernels are shorter than their launches", models.STORIES_15M_Q8_0, (gpus.RTX_4090,),
        program="bench", tests=(Test(0, 40),), host=HostModel(launch_ns=3_900, launch_gap_ns=900, prepare_ns=8_000),
        others=_BENCH_OTHERS,
    ),
    "pdl-hopper": Preset(
        "programmatic dependent launch: kernels of one stream overlap", models.LLAMA3_8B_Q4_K_M, (gpus.H100,),
        program="bench", tests=(Test(0, 12),), pdl=0.6, others=_BENCH_OTHERS,
    ),
    "second-stream": Preset(
        "a second stream takes half of the kernels", models.TINYLLAMA_Q4_K_M, (gpus.A100,), program="bench",
        tests=(Test(0, 12),), options=Options(second_stream=True), others=_BENCH_OTHERS,
    ),
    "two-processes": Preset(
        "two servers, each with its own GPU as device 0; correlation ids repeat", models.QWEN_05B_Q4_K_M,
        (gpus.RTX_4090, gpus.RTX_4090), processes=2, own_gpus=True, traffic=Traffic(2, 9, n_prompt=50, n_gen=8),
    ),
    "two-processes-one-gpu": Preset(
        "two servers share a GPU", models.QWEN_05B_Q4_K_M, (gpus.RTX_4090,), processes=2,
        traffic=Traffic(2, 9, n_prompt=50, n_gen=8), hidden_gpus=1,
    ),
    "unified-memory": Preset(
        "managed memory migrates at the start of each step", models.TINYLLAMA_Q4_K_M, (gpus.RTX_3060,),
        options=Options(unified=3 << 20), traffic=Traffic(1, 0, n_prompt=60, n_gen=10),
    ),
    "profiler-flush": Preset(
        "the profiler flushes its buffers, on the driver thread and on its own", models.STORIES_15M_Q8_0,
        (gpus.RTX_3060,), flush_every=3, traffic=Traffic(2, 5, n_prompt=60, n_gen=14),
    ),
    "speculative": Preset(
        "speculative decoding: draft and target alternate", models.LLAMA3_8B_Q4_K_M, (gpus.RTX_4090,),
        program="speculative", draft=models.LLAMA3_1B_Q8_0, rounds=5, traffic=Traffic(1, 0, n_prompt=64, n_gen=1),
    ),
    "host-bound": Preset(
        "slow sampling on the host", models.QWEN_05B_Q4_K_M, (gpus.RTX_4090,), options=Options(graph="node"),
        host=HostModel(sample_ns_per_vocab=45.0), traffic=Traffic(2, 0, n_prompt=40, n_gen=10), sample_every_us=250,
    ),
    "backend-sampling": Preset(
        "sampling on the GPU: no logits are copied", models.TINYLLAMA_Q4_K_M, (gpus.RTX_3060,), slots=2,
        options=Options(graph="node", logits=False), traffic=Traffic(2, 0, n_prompt=40, n_gen=14, first=2),
    ),
    "pageable-logits": Preset(
        "logits go to pageable memory: cudaMemcpyAsync blocks, over a busy GPU", models.LLAMA3_1B_Q8_0, (gpus.T4,),
        options=Options(output_memory=w.PAGEABLE, input_memory=w.PAGEABLE),
        traffic=Traffic(1, 0, n_prompt=60, n_gen=14),
    ),
    "blocking-copies": Preset(
        "logits by cudaMemcpy", models.TINYLLAMA_Q4_K_M, (gpus.T4,), options=Options(blocking_output=True),
        schema="2023.4", traffic=Traffic(1, 0, n_prompt=60, n_gen=14), backtraces=True,
    ),
    "eight-threads": Preset(
        "eight contexts of one process, each with its own thread and stream, on two GPUs", models.STORIES_15M_Q8_0,
        (gpus.RTX_3060, gpus.RTX_3060), program="bench", threads=8, tests=(Test(0, 10),), repetitions=1,
        others=_BENCH_OTHERS,
    ),
    "damaged": Preset(
        "unsorted rows, 1 % of the API rows lost, long calls with backtraces", models.TINYLLAMA_Q4_K_M,
        (gpus.RTX_3060,), options=Options(graph="graph"), traffic=Traffic(2, 20, n_prompt=60, n_gen=20),
        drop_api=0.01, unsorted=True, backtraces=True,
    ),
    "load-from-disk": Preset(
        "a server that reads its model from disk (--no-mmap), warms up and answers", models.QWEN_05B_Q4_K_M,
        (gpus.RTX_3060,), load=True, options=Options(reads=True), traffic=Traffic(1, 0, n_prompt=60, n_gen=8),
    ),
    "batched-bench": Preset(
        "llama-batched-bench: prompts and tokens of one to sixteen sequences at once", models.LLAMA3_1B_Q8_0,
        (gpus.RTX_4090,), program="batched-bench", rows=((128, 12, 1), (128, 12, 4), (200, 8, 16)),
        options=Options(graph="node"), others=_BENCH_OTHERS,
    ),
    "perplexity": Preset(
        "llama-perplexity: passes over a text, no decode at all", models.LLAMA3_1B_Q8_0, (gpus.RTX_3060,),
        program="perplexity", rounds=3, others=_BENCH_OTHERS,
    ),
    "no-osrt": Preset(
        "captured without the OS runtime", models.STORIES_15M_Q8_0, (gpus.RTX_3060,), osrt=False, slots=2,
        options=Options(graph="node"), traffic=Traffic(3, 8, n_prompt=60, n_gen=12, first=2),
    ),
}  # fmt: skip
