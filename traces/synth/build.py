"""Runs a preset: lays the schedule out, adds the other threads, damages the file as asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from traces.synth import background
from traces.synth.context import Context, Segment
from traces.synth.driver import Driver
from traces.synth.layout import Layout, drop_api_rows, drop_graph_rows, drop_osrt, freeze, older_schema
from traces.synth.models import Model
from traces.synth.noise import Noise
from traces.synth.presets import Preset
from traces.synth.programs import BatchedBench, Bench, Perplexity, Request, Server, Speculative, Test
from traces.synth.world import Gpu, Process, Stream, Thread, World

_BEGIN_NS = 480_000_000
_FIRST_PID = 4_100


def lay_out(preset: Preset, seed: int) -> Layout:
    """The schedule of a preset, as its file will show it."""
    world = World(Noise(seed), _machine(preset), pdl=preset.pdl)
    visible = world.gpus[preset.hidden_gpus :]
    printed: list[dict[str, Any]] = []
    for number in range(preset.processes):
        devices = visible[number : number + 1] if preset.own_gpus else visible
        _run_process(preset, world, devices, number, printed)
    layout = freeze(
        world, schema=preset.schema, graph=preset.options.graph, unsorted=preset.unsorted, backtraces=preset.backtraces,
        facts=_facts(preset, seed), program=printed,
    )  # fmt: skip
    return _damage(preset, layout)


def _machine(preset: Preset) -> tuple[Gpu, ...]:
    """GPUs of the machine. With several, nsys's ids run against CUDA's ordinals: a real file has id 0 = cuDevice 3."""
    models = preset.gpus[:1] * preset.hidden_gpus + preset.gpus
    return tuple(Gpu(len(models) - 1 - ordinal, ordinal, model) for ordinal, model in enumerate(models))


def _facts(preset: Preset, seed: int) -> dict[str, Any]:
    model = preset.model
    return {
        "model": model.name, "model_type": model.type_name, "n_layer": model.n_layer, "n_vocab": model.n_vocab,
        "n_embd": model.n_embd, "weights_read_bytes": model.read_bytes(), "kv_bytes_per_token": model.kv_bytes(),
        "graph_mode": preset.options.graph, "slots": preset.slots, "shuffle": seed,
    }  # fmt: skip


@dataclass
class _Run:
    """One process while it runs."""

    preset: Preset
    world: World
    process: Process
    printed: list[dict[str, Any]]


def _run_process(preset: Preset, world: World, visible: tuple[Gpu, ...], number: int,
                 printed: list[dict[str, Any]]) -> None:  # fmt: skip
    program = f"llama-{preset.program}"
    arguments = ("-m", f"{preset.model.name}.gguf", "-ngl", "99", "-np", str(preset.slots))
    process = world.process(_FIRST_PID + 37 * number, program, arguments, visible)
    run = _Run(preset, world, process, printed)
    last = _BEGIN_NS
    for at in range(preset.threads):
        thread = world.thread(process, program)
        last = max(last, _run_thread(run, thread, at))
    background.add_threads(world, process, preset.others, (_BEGIN_NS - 90_000_000, last + 20_000_000))
    if preset.flush_every:
        background.flush_buffers(world, process, (_BEGIN_NS, last))


def _run_thread(run: _Run, thread: Thread, at: int) -> int:
    preset = run.preset
    driver = Driver(run.world, thread, preset.host, now=_BEGIN_NS + 1_700 * at, pdl_launch=preset.pdl > 0)
    driver.flush_every = preset.flush_every
    name = "target" if preset.threads == 1 else f"target-{at}"
    context = _context(run, driver, preset.model, name, first_stream=13 + 10 * at, spread=at)
    if preset.load:
        context.load_weights()
    if preset.program == "server":
        _serve(run, context)
    elif preset.program == "bench":
        _bench(run, context)
    elif preset.program == "batched-bench":
        batched = BatchedBench(context, n_ubatch=preset.n_ubatch)
        batched.run(list(preset.rows))
        run.printed += [{"tool": "llama-batched-bench", "pid": run.process.pid, **row} for row in batched.results]
    elif preset.program == "perplexity":
        perplexity = Perplexity(context, n_ubatch=preset.n_ubatch)
        perplexity.run(preset.rounds)
        run.printed.append({"tool": "llama-perplexity", "pid": run.process.pid, "first_ns": perplexity.first_ns})
    else:
        draft = _context(run, driver, preset.draft or preset.model, "draft", first_stream=113, spread=at)
        speculative = Speculative(context, draft)
        speculative.run(preset.rounds, round(preset.traffic.n_prompt))
        run.printed.append(
            {"tool": "llama-speculative", "drafted": speculative.drafted, "accepted": speculative.accepted}
        )
    if preset.sample_every_us:
        background.sample_cpu(run.world, thread, driver.ran, preset.sample_every_us * 1_000)
    return driver.now


def _context(run: _Run, driver: Driver, model: Model, name: str, *, first_stream: int, spread: int) -> Context:
    """Layers split over the GPUs; with several threads each keeps to one GPU."""
    preset, devices = run.preset, len(run.process.devices)
    used = [spread % devices] if preset.threads > 1 or name == "draft" else list(range(devices))
    segments = []
    for at, device in enumerate(used):
        first, last = (model.n_layer * (at + side) // len(used) for side in (0, 1))
        streams = [Stream(first_stream + 3 * at + n, run.process, device, end=driver.now) for n in range(3)]
        side = streams[2] if preset.options.second_stream else None
        segments.append(Segment(streams[0], streams[1], first, last, at == len(used) - 1, side))
    return Context(run.world, driver, model, preset.options, segments, name)


def _serve(run: _Run, context: Context) -> None:
    preset = run.preset
    server = Server(context, preset.slots, n_ubatch=preset.n_ubatch)
    server.run(_requests(preset, run.world), max_steps=preset.steps)
    for one in server.served:
        run.printed.append({
            "tool": "llama-server", "pid": run.process.pid, "task": one.task, "slot": one.slot,
            "n_prompt": one.n_prompt, "prompt_ns": one.prompt_ns, "n_gen": one.n_gen, "gen_ns": one.gen_ns,
            "prompt_tokens_per_s": one.n_prompt / one.prompt_ns * 1e9,
            "gen_tokens_per_s": (one.n_gen - 1) / one.gen_ns * 1e9 if one.gen_ns else None,
        })  # fmt: skip


def _requests(preset: Preset, world: World) -> list[Request]:
    traffic = preset.traffic
    rng = world.noise.rng
    count = traffic.count if preset.steps is None else max(traffic.count, 2 * preset.steps)
    requests = []
    arrive = 0.0
    for at in range(count):
        if at >= traffic.first:
            arrive += float(rng.exponential(traffic.every_ms)) * 1e6
        long, answer = (max(2, round(mean * math.exp(traffic.spread * float(rng.standard_normal()))))
                        for mean in (traffic.n_prompt, traffic.n_gen))  # fmt: skip
        requests.append(Request(round(arrive), long, answer))
    return requests


def _bench(run: _Run, context: Context) -> None:
    preset = run.preset
    bench = Bench(context, preset.repetitions, n_ubatch=preset.n_ubatch)
    bench.run([_scaled(test, preset.steps) for test in preset.tests])
    run.printed += [{"tool": "llama-bench", "pid": run.process.pid, **result} for result in bench.results]


def _scaled(test: Test, steps: int | None) -> Test:
    return test if steps is None or not test.n_gen else Test(test.n_prompt, steps, test.n_depth)


def _damage(preset: Preset, layout: Layout) -> Layout:
    if preset.schema == "2023.4":
        layout = older_schema(layout)
    if preset.drop_graphs:
        layout = drop_graph_rows(layout, preset.drop_graphs)
    if preset.drop_api:
        layout = drop_api_rows(layout, preset.drop_api)
    if not preset.osrt:
        layout = drop_osrt(layout)
    return layout
