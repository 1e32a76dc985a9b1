"""One ubatch on the host, as llama.cpp runs it: inputs up, graph segments, outputs down, wait."""

from __future__ import annotations

from dataclasses import dataclass, field

from traces.synth import world as w
from traces.synth.driver import Driver
from traces.synth.kernels import Batch, Load, padded
from traces.synth.models import Model
from traces.synth.world import Step, Stream, World

_DISK_BANDWIDTH = 2.5e9
_OFFLOAD_BATCH = 32  # tokens from which on layers left on the CPU are computed on the GPU


@dataclass
class Segment:
    """Consecutive layers on one GPU: one backend split, one CUDA graph."""

    stream: Stream
    uploads: Stream
    first: int
    last: int
    head: bool
    side: Stream | None = None  # a second stream that takes some kernels
    graph: int = 0
    shape: tuple[int, int, int] | None = None
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """How a context runs.

    Attributes:
        graph: ``eager``, ``graph`` (traced whole) or ``node``.
        prompt_graphs: replay graphs for prompts too, as the newest versions do.
        logits: copy logits to the host (False: backend sampling).
        output_memory, input_memory: kind of host memory on the other side of copies.
        experts_on_cpu: every MoE layer leaves the GPU.
        failing_update: the n-th graph update fails; 0 for never.
        input_embeddings: the embedding table is on the CPU, so embeddings are uploaded, not token ids.
        unified: bytes of managed memory that migrate at a step's start.
        second_stream: half of the kernels run beside the other half.
        blocking_output: logits come by ``cudaMemcpy``.
        reads: the model's file is read tensor by tensor (``--no-mmap``).
    """

    graph: str = "eager"
    prompt_graphs: bool = False
    logits: bool = True
    output_memory: int = w.PINNED
    input_memory: int = w.PINNED
    experts_on_cpu: bool = False
    failing_update: int = 0
    input_embeddings: bool = False
    unified: int = 0
    second_stream: bool = False
    blocking_output: bool = False
    reads: bool = False


@dataclass
class Context:
    """A llama_context: one model on one or more GPUs, driven by one thread."""

    world: World
    driver: Driver
    model: Model
    options: Options
    segments: list[Segment]
    name: str = "target"
    pending: Step | None = None  # computed, not yet waited for
    updates: int = 0
    _parts: list[Segment] = field(default_factory=list)
    _tail: Segment | None = None

    @property
    def main(self) -> Stream:
        return self.segments[-1].stream

    def decode(self, load: Load, phase: str, requests: tuple[int, ...], *, generating: int | None = None) -> Step:
        """One ubatch, up to the output copy. Its wait is ``synchronize``, or the next ubatch's first."""
        self.world.noise.next_step()
        host = self.driver.host
        self.driver.spend(host.prepare_ns)
        self._let_profiler_flush()
        step = Step(
            len(self.world.steps), self.driver.process.number, self.driver.thread.number, self.name, phase,
            load.n_tokens, load.n_outputs, load.n_seq, load.n_kv, requests,
            (load.n_seq if phase == "decode" else 0) if generating is None else generating,
        )  # fmt: skip
        self.world.steps.append(step)
        for number, segment in enumerate(self.segments):
            self._inputs(segment, load, step, first=number == 0)
            if number:
                self._hand_over(self.segments[number - 1], segment, load)
            self._compute(segment, load, step)
        if load.n_outputs:
            self._outputs(load)
        self.pending = step
        return step

    def _let_profiler_flush(self) -> None:
        every, done = self.driver.flush_every, len(self.world.steps)
        if every and done % every == every - 1:
            self.driver.flush("Unknown" if done // every % 2 else "CUPTI Buffer flush", 260_000)

    def synchronize(self) -> None:
        """``llama_synchronize``."""
        call = self.driver.sync(self.main)
        self._waited(call.end)
        self.driver.step = -1

    def _waited(self, end: int) -> None:
        if self.pending is not None:
            self.pending.forward_end = end
            self.pending = None

    def _inputs(self, segment: Segment, load: Load, step: Step, *, first: bool) -> None:
        for size in self._input_sizes(load, first=first):
            waited = self.driver.sync(self.main) if first else self.driver.sync_event(segment.stream)
            self._waited_once(waited.end, step)
            before = self.driver.now
            self.driver.step = step.index
            call = self.driver.copy(segment.uploads, size, w.HTOD, "input", host_memory=self.options.input_memory)
            if step.begin < 0:
                step.begin = call.start
                if self.options.unified:
                    self.driver.unified(segment.stream, self.options.unified, w.UVM_HTOD, before + 9_000)
            self.driver.sync(segment.uploads)

    def _waited_once(self, end: int, step: Step) -> None:
        if self.pending is not None and self.pending is not step:
            self._waited(end)

    def _input_sizes(self, load: Load, *, first: bool) -> list[int]:
        n, model = load.n_tokens, self.model
        sizes = [4 * n * (model.n_embd if self.options.input_embeddings else 1)] if first else []
        sizes.append(model.position_bytes * n)
        if model.kv_indices:
            sizes += [8 * n, 8 * n]
        sizes.append(2 * padded(load.n_kv) * n)
        if model.window:
            sizes.append(2 * padded(min(load.n_kv, model.window)) * n)
        if load.n_outputs and _takes_output_ids(self.segments, first=first):
            sizes.append(4 * load.n_outputs)
        return sizes

    def _hand_over(self, source: Segment, target: Segment, load: Load) -> None:
        """Activations from one GPU to the next; the target waits for them on the GPU."""
        if source.stream.device == target.stream.device:
            return
        size = 4 * load.n_tokens * self.model.n_embd
        self.driver.copy(source.stream, size, w.PTOP, "split", to_device=target.stream.device)
        self.driver.wait_event(target.stream, source.stream)

    def _compute(self, segment: Segment, load: Load, step: Step) -> None:
        if self.options.experts_on_cpu:
            self._compute_with_cpu_experts(segment, load, step)
            return
        batch = self._batch(segment.stream, load, (segment.first, segment.last), head=segment.head)
        self._run(segment, batch, load, step)

    def _batch(self, stream: Stream, load: Load, layers: tuple[int, int], *, head: bool) -> Batch:
        shape = Load(load.n_tokens, load.n_outputs, padded(load.n_kv), load.n_seq)
        return self.world.kernels.batch(self.model, stream.gpu.model, shape, layers=layers, head=head)

    def _run(self, segment: Segment, batch: Batch, load: Load, step: Step) -> None:
        graphs = self.options.graph != "eager" and (self.options.prompt_graphs or step.phase == "decode")
        if not graphs:
            segment.shape = None
            self._launch_eager(segment, batch)
            return
        shape = (load.n_tokens, load.n_outputs, padded(load.n_kv))
        segment.calls = segment.calls + 1 if segment.shape == shape else 0
        segment.shape = shape
        if segment.calls == 0:
            self._launch_eager(segment, batch)
            return
        if segment.calls == 1:
            self._capture(segment, batch, step)
        self.driver.launch_graph(segment.stream, batch, segment.graph, nodes=self.options.graph == "node")

    def _launch_eager(self, segment: Segment, batch: Batch) -> None:
        if segment.side is None:
            self.driver.launch(segment.stream, batch)
            return
        self._launch_forked(segment, segment.side, batch)

    def _launch_forked(self, segment: Segment, side: Stream, batch: Batch) -> None:
        """Every other run of 24 kernels goes to a second stream: fork and join by events, four kernels overlap."""
        for at in range(0, len(batch), 48):
            here = batch.cut(at, at + 24)
            there = batch.cut(at + 24, at + 48)
            if len(there):
                self.driver.wait_event(side, segment.stream)
                self.driver.launch(side, there)
            self.driver.launch(segment.stream, here)
            self.driver.wait_event(segment.stream, side)

    def _capture(self, segment: Segment, batch: Batch, step: Step) -> None:
        step.warm = True
        self.driver.capture(segment.stream, batch)
        if not segment.graph:
            segment.graph = self.driver.instantiate(len(batch))
            return
        self.updates += 1
        self.driver.update_graph(len(batch))
        if self.updates == self.options.failing_update:
            self.driver.destroy_graph()
            segment.graph = self.driver.instantiate(len(batch))

    def _compute_with_cpu_experts(self, segment: Segment, load: Load, step: Step) -> None:
        """Each layer: attention and router on the GPU, activations down, experts on the CPU, their result up."""
        if self._tail is None:
            self._tail = Segment(segment.stream, segment.uploads, segment.last, segment.last, head=True)
            self._parts = [
                Segment(segment.stream, segment.uploads, layer, layer + 1, head=False)
                for layer in range(segment.first, segment.last)
            ]
        for part in self._parts:
            self._run(part, self._batch(part.stream, load, (part.first, part.last), head=False), load, step)
            self._experts(part, load)
        if load.n_outputs:
            tail = self._tail
            self._run(tail, self._batch(tail.stream, load, (tail.first, tail.last), head=True), load, step)

    def _experts(self, part: Segment, load: Load) -> None:
        model, driver = self.model, self.driver
        n = load.n_tokens
        experts = min(model.n_expert, n * model.n_expert_used)
        if n >= _OFFLOAD_BATCH:
            self._stream_experts(part, load, experts)
            return
        for size in (4 * n * model.n_embd, 4 * n * model.n_expert_used, 4 * n * model.n_expert_used):
            driver.sync(part.stream)
            driver.copy(part.uploads, size, w.DTOH, "other", host_memory=w.PINNED)
            driver.sync(part.uploads)
        driver.spend(experts * model.expert_bytes() / driver.host.memory_bandwidth * 1e9)
        driver.sync(part.stream)
        driver.copy(part.uploads, 4 * n * model.n_embd, w.HTOD, "other", host_memory=w.PINNED)
        driver.sync(part.uploads)

    def _stream_experts(self, part: Segment, load: Load, experts: int) -> None:
        """Large batches compute the experts on the GPU: ids down, the weights they need up, matrix by matrix."""
        model, driver = self.model, self.driver
        driver.sync(part.stream)
        driver.copy(part.uploads, 4 * load.n_tokens * model.n_expert_used, w.DTOH, "other")
        driver.sync(part.uploads)
        for _ in ("gate", "up", "down"):
            size = experts * model.expert_bytes() // 3
            driver.copy(part.uploads, size, w.HTOD, "weights_streamed", host_memory=w.PAGEABLE)
            driver.sync(part.uploads)
        kernels = self.world.kernels.expert_batch(model, part.stream.gpu.model, load, experts)
        driver.launch(part.stream, kernels)

    def _outputs(self, load: Load) -> None:
        size = 4 * load.n_outputs * (self.model.n_vocab if self.options.logits else 1)
        purpose = "logits" if self.options.logits else "other"
        if self.options.blocking_output:
            self.driver.copy_sync(self.main, size, w.DTOH, purpose)
        else:
            self.driver.copy(self.main, size, w.DTOH, purpose, host_memory=self.options.output_memory)

    def load_weights(self) -> None:
        """Allocations, module, streams, one blocking upload per tensor, memsets."""
        driver = self.driver
        driver.os_call("open64", 9_000, blocked=False)
        driver.call("cudaFree_v3020", 45_000_000)
        driver.call("cuModuleLoadDataEx", 2_400_000, w.R_MODULE)
        driver.call("cuLibraryLoadData", 1_900_000, w.R_MODULE)
        for segment in self.segments:
            driver.call("cudaMalloc_v3020", 480_000)
            driver.call("cudaStreamCreateWithFlags_v5000", 21_000)
            driver.call("cudaEventCreateWithFlags_v3020", 2_500)
            self._upload_tensors(segment)
            for _ in range(6 // len(self.segments)):
                driver.memset(segment.stream, 64 << 20)
                driver.sync(segment.stream)

    def _upload_tensors(self, segment: Segment) -> None:
        sizes = self.model.tensors()
        share = max(1, self.model.n_layer)
        per_layer = (len(sizes) - 2) // share
        mine = sizes[2 + segment.first * per_layer : 2 + segment.last * per_layer]
        for size in (sizes[:2] if segment.head else []) + mine:
            if self.options.reads:
                self.driver.os_call("pread64", size / _DISK_BANDWIDTH * 1e9, blocked=False)
            self.driver.copy(segment.uploads, size, w.HTOD, "weights", host_memory=w.PAGEABLE)
            self.driver.sync(segment.uploads)


def _takes_output_ids(segments: list[Segment], *, first: bool) -> bool:
    """The output ids go to the GPU that has the output layer."""
    return first == (len(segments) == 1)
