"""A host thread that feeds GPUs: every method is one call, or a run of calls, with its effect on the streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from traces.synth import world as w
from traces.synth.gpus import HostModel
from traces.synth.kernels import Batch
from traces.synth.noise import CPU, GPU, HOST, WAKE
from traces.synth.tape import I64
from traces.synth.world import Process, Stream, Thread, World

_QUEUE = 1024  # launches that may wait on a stream before the launch call blocks
_PIECE = 256
_STAGED = 65_536  # pageable uploads up to this size are staged and do not block
_LOOP = ("llama_context::process_ubatch(llama_ubatch const&)", "llama_decode", "main")


@dataclass(frozen=True, slots=True)
class Call:
    start: int
    end: int
    corr: int


class Driver:
    """One host thread with its clock, ``now``."""

    def __init__(self, world: World, thread: Thread, host: HostModel, *, now: int, pdl_launch: bool = False) -> None:
        self.world = world
        self.thread = thread
        self.host = host
        self.now = now
        self.step = -1
        self.flush_every = 0
        self.ran: list[tuple[int, int, tuple[str, ...]]] = []  # user code, with its call chain
        self.launch_name = world.strings.id("cudaLaunchKernelExC_v11060" if pdl_launch else "cudaLaunchKernel_v7000")
        self._noise = world.noise

    @property
    def process(self) -> Process:
        return self.thread.process

    def spend(self, base_ns: float, *frames: str) -> None:
        """User code, with the call chain that samples of it would show, innermost first."""
        begun = self.now
        self.now += self._noise.one(base_ns, CPU, self.now)
        self.ran.append((begun, self.now, frames or _LOOP))

    def flush(self, name: str, base_ns: float) -> None:
        """The profiler takes the thread's time."""
        begun = self.now
        self.now += self._noise.one(base_ns, WAKE)
        self.world.overheads.add(
            start=begun, end=self.now, proc=self.process.number, thread=self.thread.number,
            name=self.world.strings.id(name),
        )  # fmt: skip

    def call(self, name: str, base_ns: float, role: int = w.R_OTHER, *, until: int = 0, stream: Stream | None = None,
             whole: bool = False) -> Call:  # fmt: skip
        """A CUDA call that takes about ``base_ns`` and does not return before ``until``."""
        start = self.now + self._noise.one(self.host.call_gap_ns, HOST)
        end = max(start + self._noise.one(base_ns, HOST), until)
        corr = self.process.take()
        self.world.api.add(
            start=start, end=end, proc=self.process.number, thread=self.thread.number, corr=corr,
            name=self.world.strings.id(name), role=role, step=self.step,
            device=stream.device if stream else -1, stream=-1 if whole or stream is None else stream.number,
            capture=self.world.captures if role in (w.R_BEGIN_CAPTURE, w.R_END_CAPTURE) else 0,
        )  # fmt: skip
        self.now = end
        return Call(start, end, corr)

    def os_call(
        self, name: str, base_ns: float, *, blocked: bool, frames: tuple[str, ...] = (), until: int = 0
    ) -> None:
        """A traced call into the operating system."""
        start = self.now
        self.now = max(start + self._noise.one(base_ns, WAKE), until)
        chain = self.world.chain(*frames) if frames else 0
        self.world.osrt.add(
            start=start, end=self.now, proc=self.process.number, thread=self.thread.number,
            name=self.world.strings.id(name), blocked=int(blocked), chain=chain,
        )  # fmt: skip
        self.now += self._noise.one(self.host.call_gap_ns, HOST)

    def sync(self, stream: Stream) -> Call:
        """``cudaStreamSynchronize``: wait for everything that was handed to the stream."""
        return self._wait("cudaStreamSynchronize_v3020", stream, kind=3, until=stream.end)

    def sync_event(self, stream: Stream) -> Call:
        """``cudaEventSynchronize`` on an event recorded last: nsys does not say on which stream, so: any."""
        return self._wait("cudaEventSynchronize_v3020", stream, kind=1, until=stream.end, whole=True)

    def sync_device(self, streams: list[Stream]) -> Call:
        return self._wait(
            "cudaDeviceSynchronize_v3020", streams[0], kind=4, until=max(one.end for one in streams), whole=True
        )

    def _wait(self, name: str, stream: Stream, *, kind: int, until: int, whole: bool = False) -> Call:
        wake = until + self._noise.one(self.host.wake_ns, WAKE) if until > self.now else 0
        call = self.call(name, self.host.sync_ns, w.R_SYNC, until=wake, stream=stream, whole=whole)
        inner = (call.end - call.start) // 4
        self.world.syncs.add(
            start=call.start + min(inner, 300), end=call.end - min(inner, 200), proc=self.process.number,
            device=stream.device, context=stream.context, stream=w.WHOLE_CONTEXT if whole else stream.number,
            corr=call.corr, kind=kind, event=w.WHOLE_CONTEXT,
        )  # fmt: skip
        return call

    def wait_event(self, waiter: Stream, source: Stream) -> None:
        """Record an event on ``source`` and let ``waiter`` wait for it on the GPU."""
        self.call("cudaEventRecord_v3020", self.host.event_ns, stream=source)
        call = self.call("cudaStreamWaitEvent_v3020", self.host.event_ns, stream=waiter)
        self.world.syncs.add(
            start=call.start + 100, end=call.end - min(50, (call.end - call.start) // 4), proc=self.process.number,
            device=waiter.device, context=waiter.context, stream=waiter.number, corr=call.corr, kind=2, event=call.corr,
        )  # fmt: skip
        waiter.end = max(waiter.end, source.end)

    def copy(self, stream: Stream, size: int, kind: int, purpose: str, *, host_memory: int = w.PINNED,
             to_device: int = -1) -> Call:  # fmt: skip
        """``cudaMemcpyAsync``. A copy to pageable memory returns when it is done; so does a large one from it."""
        gpu = stream.gpu.model
        begin_call = self.now + self._noise.one(self.host.call_gap_ns, HOST)
        api = self._noise.one(self.host.copy_ns, HOST)
        latency = self._noise.one(gpu.latency_ns * 0.6, HOST)
        start = max(stream.end + self._noise.one(gpu.gap_ns, HOST), begin_call + api // 2 + latency)
        end = start + self._noise.one(gpu.small_ns * 0.7 + size / gpu.pcie * 1e9, GPU, start)
        stream.end = end
        blocks = host_memory == w.PAGEABLE and (kind == w.DTOH or size > _STAGED)
        call_end = max(begin_call + api, end + self._noise.one(self.host.wake_ns / 2, WAKE) if blocks else 0)
        peer = kind == w.PTOP
        call = Call(begin_call, call_end, self.process.take())
        self._api_row(call, "cudaMemcpyPeerAsync_v4000" if peer else "cudaMemcpyAsync_v3020", w.R_COPY, stream)
        source, target = (w.DEVICE, w.DEVICE) if kind in (w.DTOD, w.PTOP) else _sides(kind, host_memory)
        self._op(
            stream, (start, end), call, w.MEMCPY, kind, size=size, purpose=purpose,
            src=source, dst=target, src_device=stream.device if peer else -1, dst_device=to_device,
        )  # fmt: skip
        self.now = call_end
        return call

    def copy_sync(self, stream: Stream, size: int, kind: int, purpose: str) -> None:
        """``cudaMemcpy``: blocks whatever the memory."""
        gpu = stream.gpu.model
        begin_call = self.now + self._noise.one(self.host.call_gap_ns, HOST)
        start = max(stream.end, begin_call + self._noise.one(self.host.copy_ns + gpu.latency_ns, HOST))
        end = start + self._noise.one(gpu.small_ns * 0.7 + size / gpu.pcie * 1e9, GPU, start)
        stream.end = end
        call_end = end + self._noise.one(self.host.wake_ns, WAKE)
        call = Call(begin_call, call_end, self.process.take())
        self._api_row(call, "cudaMemcpy_v3020", w.R_SYNC_COPY, stream)
        source, target = _sides(kind, w.PAGEABLE)
        self._op(stream, (start, end), call, w.MEMCPY, kind, size=size, purpose=purpose, src=source, dst=target)
        self.now = call_end

    def memset(self, stream: Stream, size: int) -> None:
        call = self.call("cudaMemsetAsync_v3020", self.host.copy_ns, w.R_MEMSET, stream=stream)
        gpu = stream.gpu.model
        start = max(stream.end + 400, call.start + self._noise.one(gpu.latency_ns, HOST))
        end = start + self._noise.one(gpu.small_ns * 0.7 + size / (gpu.bandwidth * 0.8) * 1e9, GPU, start)
        stream.end = end
        self._op(stream, (start, end), call, w.MEMSET, 0, size=size, src=w.DEVICE)

    def unified(self, stream: Stream, size: int, kind: int, start: int) -> int:
        """A migration of unified memory: no call of the program caused it. Returns its end."""
        end = start + self._noise.one(900 + size / stream.gpu.model.pcie * 1e9, GPU, start)
        stream.end = max(stream.end, end)
        source, target = (w.MANAGED, w.DEVICE) if kind == w.UVM_HTOD else (w.DEVICE, w.MANAGED)
        self._op(stream, (start, end), None, w.MEMCPY, kind, size=size, src=source, dst=target)
        return end

    def launch(self, stream: Stream, batch: Batch) -> None:
        """Kernels launched one by one."""
        for at in range(0, len(batch), _PIECE):
            self._launch_piece(stream, batch.cut(at, at + _PIECE))

    def _launch_piece(self, stream: Stream, batch: Batch) -> None:
        n = len(batch)
        calls = self._noise.many(self.host.launch_ns, n, HOST)
        gaps = self._noise.many(self.host.launch_gap_ns, n, HOST)
        calls[0] += max(0, _full_until(stream) - self.now)
        ends = self.now + np.cumsum(calls + gaps)
        starts = ends - calls
        ready = starts + calls * 3 // 5 + self._noise.many(stream.gpu.model.latency_ns, n, HOST)
        corr = self.process.take(n) + np.arange(n, dtype=np.int64)
        ran = self._run(stream, batch, ready)
        self.world.api.extend(
            n, start=starts, end=ends, proc=self.process.number, thread=self.thread.number, corr=corr,
            name=self.launch_name, role=w.R_LAUNCH, device=stream.device, stream=stream.number, step=self.step,
            capture=0,
        )  # fmt: skip
        self._kernels(stream, batch, ran, corr=corr, node=0, times=(starts, ends))
        self.now = int(ends[-1])

    def _run(self, stream: Stream, batch: Batch, ready: I64, *, gap_scale: float = 1.0) -> tuple[I64, I64]:
        """When the kernels of a batch begin and end: in order, each no sooner than it is ready."""
        n = len(batch)
        model = stream.gpu.model
        took = self._noise.many(batch.base_ns, n, GPU, self.now)
        gap = self._noise.many(model.gap_ns * gap_scale, n, HOST)
        if self.world.pdl:
            gap = self._overlap(took, gap)
        # end_i = max(end_{i-1} + gap_i, ready_i) + took_i, as a running maximum of what each kernel would allow
        passed = np.cumsum(gap + took)
        end = passed + np.maximum(np.maximum.accumulate(ready + took - passed), stream.end)
        stream.end = int(end[-1])
        stream.recent = (stream.recent + end[-_PIECE:].tolist())[-_QUEUE:]
        return end - took, end

    def _overlap(self, took: I64, gap: I64) -> I64:
        """Programmatic dependent launch: some kernels begin before their predecessor ends."""
        early = self._noise.rng.random(len(took)) < self.world.pdl
        early[0] = False
        shorter = np.minimum(took, np.concatenate([took[:1], took[:-1]]))
        return np.where(early, -np.minimum(shorter // 2, 1_500), gap)

    def capture(self, stream: Stream, batch: Batch) -> None:
        """The launches that a stream capture records; nothing runs."""
        self.world.captures += 1
        self.call("cudaStreamBeginCapture_v10000", 1_800, w.R_BEGIN_CAPTURE, stream=stream)
        n = len(batch)
        calls = self._noise.many(self.host.capture_launch_ns, n, HOST)
        ends = self.now + np.cumsum(calls + self._noise.many(self.host.launch_gap_ns, n, HOST))
        self.world.api.extend(
            n, start=ends - calls, end=ends, proc=self.process.number, thread=self.thread.number,
            corr=self.process.take(n) + np.arange(n, dtype=np.int64), name=self.launch_name, role=w.R_CAPTURED,
            device=stream.device, stream=stream.number, step=self.step, capture=self.world.captures,
        )  # fmt: skip
        self.now = int(ends[-1])
        self.call("cudaStreamEndCapture_v10000", 6_000 + 15 * n, w.R_END_CAPTURE, stream=stream)

    def instantiate(self, nodes: int) -> int:
        """Returns the number of the new executable graph."""
        self.call("cudaGraphInstantiate_v12000", 20_000 + self.host.instantiate_node_ns * nodes, w.R_INSTANTIATE)
        self.world.graphs += 1
        return self.world.graphs

    def update_graph(self, nodes: int) -> None:
        self.call("cudaGraphExecUpdate_v12000", 8_000 + self.host.update_node_ns * nodes, w.R_UPDATE)

    def destroy_graph(self) -> None:
        self.call("cudaGraphExecDestroy_v10000", 60_000, w.R_DESTROY)

    def launch_graph(self, stream: Stream, batch: Batch, graph: int, *, nodes: bool) -> Call:
        """``cudaGraphLaunch``, traced as a whole or node by node (which stretches it)."""
        n = len(batch)
        base = self.host.graph_launch_ns + self.host.graph_launch_node_ns * n
        call = self.call("cudaGraphLaunch_v10000", base, w.R_GRAPH_LAUNCH, stream=stream)
        latency = self._noise.one(stream.gpu.model.latency_ns, HOST)
        ready = np.full(n, call.start + (call.end - call.start) * 3 // 4 + latency, dtype=np.int64)
        begin, end = self._run(stream, batch, ready, gap_scale=1.4 if nodes else 0.6)
        times = (call.start, call.end)
        if nodes:
            node = (graph << 32) + np.arange(1, n + 1, dtype=np.int64)
            self._kernels(stream, batch, (begin, end), corr=call.corr, node=node, times=times)
        else:
            self._op(stream, (int(begin[0]), int(end.max())), call, w.GRAPH, graph)
        return call

    def _kernels(self, stream: Stream, batch: Batch, ran: tuple[I64, I64], *, corr: int | I64, node: int | I64,
                 times: tuple[int | I64, int | I64]) -> None:  # fmt: skip
        self.world.ops.extend(
            len(batch), start=ran[0], end=ran[1], proc=self.process.number, device=stream.device, gpu=stream.gpu.number,
            context=stream.context, stream=stream.number, corr=corr, type=w.KERNEL, what=batch.what,
            part=batch.part, bytes=0, node=node,
            api_start=times[0], api_end=times[1], thread=self.thread.number, step=self.step, purpose=-1, src=-1, dst=-1,
            src_device=-1, dst_device=-1,
        )  # fmt: skip

    def _api_row(self, call: Call, name: str, role: int, stream: Stream) -> None:
        self.world.api.add(
            start=call.start, end=call.end, proc=self.process.number, thread=self.thread.number, corr=call.corr,
            name=self.world.strings.id(name), role=role, device=stream.device, stream=stream.number, step=self.step,
            capture=0,
        )  # fmt: skip

    def _op(self, stream: Stream, ran: tuple[int, int], call: Call | None, kind: int, what: int, *, size: int = 0,
            purpose: str = "other", src: int = -1, dst: int = -1, src_device: int = -1,
            dst_device: int = -1) -> None:  # fmt: skip
        self.world.ops.add(
            start=ran[0], end=ran[1], proc=self.process.number, device=stream.device, gpu=stream.gpu.number,
            context=stream.context, stream=stream.number, corr=call.corr if call else 0, type=kind, what=what,
            part=-1, bytes=size, node=0, api_start=call.start if call else -1, api_end=call.end if call else -1,
            thread=self.thread.number if call else -1, step=self.step, purpose=w.PURPOSES.index(purpose), src=src,
            dst=dst, src_device=src_device, dst_device=dst_device,
        )  # fmt: skip


def _sides(kind: int, host_memory: int) -> tuple[int, int]:
    return (host_memory, w.DEVICE) if kind == w.HTOD else (w.DEVICE, host_memory)


def _full_until(stream: Stream) -> int:
    """When the queue of a stream has room for another piece."""
    room: Final = _QUEUE - _PIECE
    return stream.recent[-room] if len(stream.recent) >= room else 0
