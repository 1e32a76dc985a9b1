"""What drives the contexts: llama-server with its slots, llama-bench, speculative decoding; and what they print."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from traces.synth.context import Context
from traces.synth.kernels import Load
from traces.synth.world import Step

_WAIT_FOR_WORK = (
    "pthread_cond_wait", "std::condition_variable::wait(std::unique_lock<std::mutex>&)",
    "server_queue::start_loop(long)", "server_context::start_loop()", "main",
)  # fmt: skip
_SAMPLING = (
    "llama_sampler_softmax_impl(llama_token_data_array*, bool)", "llama_sampler_chain_apply", "common_sampler_sample",
    "server_context::update_slots()", "main",
)  # fmt: skip
_RESPONDING = (
    "llama_token_to_piece", "server_context::process_token(completion_token_output&, server_slot&)",
    "server_context::update_slots()", "main",
)  # fmt: skip
_CLOCK = "0.{:02d}.{:03d}.{:03d}"


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it reaches the server."""

    arrive_ns: int
    n_prompt: int
    n_gen: int


@dataclass
class Slot:
    """A slot at work on a request."""

    number: int
    task: int
    request: Request
    started: int
    done_prompt: int = 0
    generated: int = 0
    first_token: int = 0

    @property
    def prompt_left(self) -> int:
        return self.request.n_prompt - self.done_prompt

    @property
    def n_kv(self) -> int:
        return self.done_prompt + self.generated


@dataclass(frozen=True, slots=True)
class Served:
    """What the program measured of one request."""

    task: int
    slot: int
    n_prompt: int
    prompt_ns: int
    n_gen: int
    gen_ns: int


@dataclass
class Server:
    """llama-server: fills its slots, decodes one batch at a time, samples, answers."""

    context: Context
    n_slots: int
    n_batch: int = 2048
    n_ubatch: int = 512
    slots: list[Slot] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)

    def run(self, requests: list[Request], *, max_steps: int | None = None) -> None:
        driver = self.context.driver
        begun = driver.now
        waiting = sorted(requests, key=lambda request: request.arrive_ns)
        tasks = 0
        while waiting or self.slots:
            if max_steps is not None and len(driver.world.steps) >= max_steps:
                break
            tasks += self._admit(waiting, tasks, begun)
            if self.slots:
                self._batch()
            else:
                self._idle(begun + waiting[0].arrive_ns)

    def _admit(self, waiting: list[Request], tasks: int, begun: int) -> int:
        admitted = 0
        while waiting and len(self.slots) < self.n_slots and begun + waiting[0].arrive_ns <= self.context.driver.now:
            free = min(set(range(self.n_slots)) - {slot.number for slot in self.slots})
            slot = Slot(free, tasks + admitted, waiting.pop(0), self.context.driver.now)
            self.slots.append(slot)
            self._say(f"launch_slot_: id {free:2d} | task {slot.task} | processing task, is_child = 0")
            admitted += 1
        return admitted

    def _idle(self, until: int) -> None:
        driver = self.context.driver
        if driver.world.steps:
            driver.world.steps[-1].last_of_request = True
        driver.os_call("pthread_cond_wait", 1_000, blocked=True, frames=_WAIT_FOR_WORK, until=until)

    def _batch(self) -> None:
        """Every generating slot's token, then as much of the prompts as fits, in ubatches."""
        parts = [(slot, 1, 1) for slot in self.slots if not slot.prompt_left]
        room = self.n_batch - len(parts)
        for slot in self.slots:
            if slot.prompt_left and room > 0:
                taken = min(slot.prompt_left, room)
                parts.append((slot, taken, int(taken == slot.prompt_left)))
                room -= taken
        for ubatch in _ubatches(parts, self.n_ubatch):
            self._decode(ubatch)
        self.context.synchronize()
        self._sample([slot for slot, _, outputs in parts if outputs])

    def _decode(self, ubatch: list[tuple[Slot, int, int]]) -> None:
        decoding = [slot for slot, _, _ in ubatch if not slot.prompt_left]
        phase = "decode" if len(decoding) == len(ubatch) else "mixed" if decoding else "prefill"
        for slot, n, _ in ubatch:
            if slot.prompt_left:
                slot.done_prompt += n
        load = Load(
            sum(n for _, n, _ in ubatch), sum(outputs for _, _, outputs in ubatch),
            sum(slot.n_kv for slot in self.slots) + 1, len(ubatch),
        )  # fmt: skip
        requests = tuple(slot.task for slot, _, _ in ubatch)
        self.context.decode(load, phase, requests, generating=len(decoding))

    def _sample(self, sampled: list[Slot]) -> None:
        driver = self.context.driver
        host, vocab = driver.host, self.context.model.n_vocab
        for slot in sampled:
            driver.spend(host.sample_ns_per_vocab * vocab if self.context.options.logits else 4_000, *_SAMPLING)
            slot.generated += 1
            if slot.generated == 1:
                slot.first_token = driver.now
            driver.spend(host.respond_ns, *_RESPONDING)
            driver.os_call("pthread_cond_broadcast", 1_600, blocked=False)
            if slot.generated >= slot.request.n_gen:
                self._finish(slot)

    def _finish(self, slot: Slot) -> None:
        now = self.context.driver.now
        self.slots.remove(slot)
        served = Served(
            slot.task, slot.number, slot.request.n_prompt, slot.first_token - slot.started, slot.generated,
            now - slot.first_token,
        )  # fmt: skip
        self.served.append(served)
        for line in timing_lines(served):
            self._say(f"print_timing: id {slot.number:2d} | task {slot.task} | {line}")
        self._say(f"     release: id {slot.number:2d} | task {slot.task} | stop processing: n_tokens = {slot.n_kv}")

    def _say(self, text: str) -> None:
        now = self.context.driver.now // 1000
        clock = _CLOCK.format(now // 1_000_000, now // 1000 % 1000, now % 1000)
        self.context.driver.process.stderr.append(f"{clock} I slot {text}\n")


def _ubatches(parts: list[tuple[Slot, int, int]], limit: int) -> list[list[tuple[Slot, int, int]]]:
    """Cut a batch into ubatches; a prompt that is cut has its output in its last piece."""
    cut: list[list[tuple[Slot, int, int]]] = [[]]
    room = limit
    for slot, whole, outputs in parts:
        n = whole
        while n:
            if not room:
                cut.append([])
                room = limit
            taken = min(n, room)
            n, room = n - taken, room - taken
            cut[-1].append((slot, taken, outputs if not n else 0))
    return cut


def timing_lines(served: Served) -> list[str]:
    """The lines of ``print_timing``; tokens per second count the generated ones after the first."""
    prompt, gen = served.prompt_ns / 1e6, served.gen_ns / 1e6
    later = max(1, served.n_gen - 1)
    return [
        f"prompt eval time = {prompt:10.2f} ms / {served.n_prompt:5d} tokens ({_rates(prompt, served.n_prompt)})",
        f"       eval time = {gen:10.2f} ms / {served.n_gen:5d} tokens ({_rates(gen, later)})",
        f"      total time = {prompt + gen:10.2f} ms / {served.n_prompt + served.n_gen:5d} tokens",
    ]


def _rates(ms: float, tokens: int) -> str:
    return f"{ms / tokens:8.2f} ms per token, {tokens / ms * 1e3:8.2f} tokens per second"


@dataclass(frozen=True, slots=True)
class Test:
    """A workload of llama-bench: pp``n_prompt`` or tg``n_gen``."""

    n_prompt: int
    n_gen: int
    n_depth: int = 0


@dataclass
class Bench:
    """llama-bench: a warm-up run, then repetitions, of every test."""

    context: Context
    repetitions: int = 3
    n_batch: int = 2048
    n_ubatch: int = 512
    results: list[dict[str, int | float | str | list[float]]] = field(default_factory=list)

    def run(self, tests: list[Test]) -> None:
        for test in tests:
            self._pass(test, warm=True)
            samples = [self._pass(test, warm=False) for _ in range(self.repetitions)]
            self._report(test, samples)

    def _pass(self, test: Test, *, warm: bool) -> int:
        driver = self.context.driver
        self.context.driver.memset(self.context.main, 1 << 20)
        driver.sync(self.context.main)
        if test.n_depth and not warm:
            self._prompt(test.n_depth, 0)
        begun = driver.now
        if test.n_prompt:
            self._prompt(test.n_prompt, test.n_depth)
        for at in range(1 if warm and test.n_gen else test.n_gen):
            self.context.decode(Load(1, 1, test.n_depth + at + 1), "decode", ())
            self.context.synchronize()
        took = driver.now - begun
        driver.spend(20_000)
        return took

    def _prompt(self, n_prompt: int, n_depth: int) -> None:
        for at in range(0, n_prompt, self.n_batch):
            batch = min(self.n_batch, n_prompt - at)
            for inner in range(0, batch, self.n_ubatch):
                n = min(self.n_ubatch, batch - inner)
                outputs = int(inner + n == batch)  # the last token of a batch only
                self.context.decode(Load(n, outputs, n_depth + at + inner + n), "prefill", ())
        self.context.synchronize()

    def _report(self, test: Test, samples: list[int]) -> None:
        tokens = test.n_prompt + test.n_gen
        rates = [tokens / took * 1e9 for took in samples]
        mean, rate = sum(samples) / len(samples), sum(rates) / len(rates)
        model, gpus = self.context.model, self.context.driver.process.devices
        record: dict[str, int | float | str | list[float]] = {
            "build_commit": "synthetic", "build_number": 0, "cpu_info": "synthetic",
            "gpu_info": ", ".join(gpu.model.name for gpu in gpus), "backends": "CUDA",
            "model_filename": f"{model.name}.gguf", "model_type": model.type_name, "model_size": model.read_bytes(),
            "model_n_params": 0, "n_batch": self.n_batch, "n_ubatch": self.n_ubatch, "n_threads": 8,
            "type_k": "f16", "type_v": "f16", "n_gpu_layers": 99, "n_cpu_moe": 0, "split_mode": "layer",
            "flash_attn": 1, "n_prompt": test.n_prompt, "n_gen": test.n_gen, "n_depth": test.n_depth,
            "test_time": "2026-01-01T00:00:00Z", "avg_ns": round(mean), "stddev_ns": round(_stddev(samples)),
            "avg_ts": round(rate, 6), "stddev_ts": round(_stddev(rates), 6), "samples_ns": list(map(float, samples)),
            "samples_ts": [round(value, 2) for value in rates],
        }  # fmt: skip
        record["samples_ns"] = samples  # type: ignore[assignment]
        self.results.append(record)
        self.context.driver.process.stdout.append(json.dumps(record) + "\n")


@dataclass
class BatchedBench:
    """llama-batched-bench: a warm-up of 16 tokens, then rows of prompts and tokens of several sequences at once."""

    context: Context
    n_batch: int = 2048
    n_ubatch: int = 512
    results: list[dict[str, int | float]] = field(default_factory=list)

    def run(self, rows: list[tuple[int, int, int]]) -> None:
        self.context.decode(Load(16, 0, 16), "prefill", ())
        self.context.synchronize()
        for n_prompt, n_gen, n_parallel in rows:
            self._row(n_prompt, n_gen, n_parallel)

    def _row(self, n_prompt: int, n_gen: int, n_parallel: int) -> None:
        driver = self.context.driver
        driver.memset(self.context.main, 1 << 20)
        driver.sync(self.context.main)
        driver.spend(30_000)
        begun, total = driver.now, n_prompt * n_parallel
        for at in range(0, total, self.n_ubatch):
            n = min(self.n_ubatch, total - at, self.n_batch - at % self.n_batch)
            self.context.decode(Load(n, n_parallel if at + n == total else 0, at + n), "prefill", ())
        self.context.synchronize()
        prompt_ns, begun = driver.now - begun, driver.now
        for at in range(n_gen):
            n_kv = n_parallel * (n_prompt + at + 1)
            self.context.decode(Load(n_parallel, n_parallel, n_kv, n_parallel), "decode", ())
            self.context.synchronize()
        gen_ns = driver.now - begun
        record = {
            "n_kv_max": 8192, "n_batch": self.n_batch, "n_ubatch": self.n_ubatch, "flash_attn": 1, "is_pp_shared": 0,
            "n_gpu_layers": 99, "n_threads": 8, "n_threads_batch": 8, "pp": n_prompt, "tg": n_gen, "pl": n_parallel,
            "n_kv": n_parallel * (n_prompt + n_gen), "t_pp": prompt_ns / 1e9, "speed_pp": total / prompt_ns * 1e9,
            "t_tg": gen_ns / 1e9, "speed_tg": n_gen * n_parallel / gen_ns * 1e9, "t": (prompt_ns + gen_ns) / 1e9,
            "speed": (total + n_gen * n_parallel) / (prompt_ns + gen_ns) * 1e9,
        }  # fmt: skip
        self.results.append(record)
        driver.process.stdout.append(json.dumps(record) + "\n")


@dataclass
class Perplexity:
    """llama-perplexity: passes over a text, several chunks at once, with logits of each chunk's second half."""

    context: Context
    n_ctx: int = 512
    n_seq: int = 4
    n_ubatch: int = 512
    first_ns: int = 0

    def run(self, passes: int) -> None:
        driver = self.context.driver
        self.context.decode(Load(2, 1, 2), "prefill", ())
        self.context.synchronize()
        said = f"perplexity: calculating perplexity over {passes * self.n_seq} chunks, n_ctx={self.n_ctx}"
        driver.process.stderr.append(f"{said}, batch_size={self.n_ctx * self.n_seq}, n_seq={self.n_seq}\n")
        for number in range(passes):
            begun = driver.now
            for at in range(0, self.n_ctx * self.n_seq, self.n_ubatch):
                self.context.decode(Load(self.n_ubatch, self.n_ubatch // 2, at + self.n_ubatch), "prefill", ())
            self.context.synchronize()
            if not number:
                self.first_ns = driver.now - begun
                driver.process.stderr.append(
                    f"perplexity: {self.first_ns / 1e9:.2f} seconds per pass - ETA 0.10 minutes\n"
                )
            driver.spend(3_000_000)
        driver.process.stdout.append("Final estimate: PPL = 7.1234 +/- 0.04321\n")


def _stddev(values: list[int] | list[float]) -> float:
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else 0.0


@dataclass
class Speculative:
    """Draft and target alternate: the draft proposes one token at a time, the target checks them in one ubatch."""

    target: Context
    draft: Context
    n_draft: int = 4
    drafted: int = 0
    accepted: int = 0

    def run(self, rounds: int, n_prompt: int) -> None:
        for context in (self.draft, self.target):
            context.decode(Load(n_prompt, 1, n_prompt), "prefill", (0,))
            context.synchronize()
        n_kv = n_prompt
        driver = self.target.driver
        for _ in range(rounds):
            for at in range(self.n_draft):
                self._one(self.draft, Load(1, 1, n_kv + at + 1))
            self._one(self.target, Load(self.n_draft + 1, self.n_draft + 1, n_kv + self.n_draft + 1))
            kept = int(driver.world.noise.rng.integers(0, self.n_draft + 1))
            self.drafted += self.n_draft
            self.accepted += kept
            n_kv += kept + 1

    def _one(self, context: Context, load: Load) -> Step:
        step = context.decode(load, "decode", (0,))
        context.synchronize()
        context.driver.spend(context.driver.host.sample_ns_per_vocab * context.model.n_vocab * load.n_outputs)
        return step


def close_steps(steps: list[Step]) -> None:
    """Set where steps end: where the next of the same thread begins, unless an idle wait lies between."""
    for thread in sorted({step.thread for step in steps}):
        mine = [step for step in steps if step.thread == thread]
        for step, following in zip(mine, [*mine[1:], None], strict=True):
            if following is None or step.last_of_request or following.begin < 0:
                step.end = step.forward_end
                step.last_of_request = True
            else:
                step.end = following.begin
