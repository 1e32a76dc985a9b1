"""Which kernels a part of a forward pass launches, in order, and how long each takes on a quiet GPU."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from traces.synth.gpus import GpuModel
from traces.synth.models import BITS, TYPE_NUMBER, Model
from traces.synth.tape import F64, I64

_VECTOR_BATCH = 8  # larger batches multiply with mul_mat_q or a library GEMM
_TYPES = "const void *, const void *, const int *, float *, unsigned int, uint3, unsigned int, unsigned int, uint3"


@dataclass(frozen=True, slots=True)
class KernelClass:
    """A kernel with its launch shape: what a row of nsys's kernel table says apart from when and where."""

    demangled: str
    category: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    registers: int = 40
    static_bytes: int = 0
    dynamic_bytes: int = 0

    @property
    def short(self) -> str:
        head = self.demangled.split("(", 1)[0].split("<", 1)[0]
        return head.removeprefix("void ").strip()


@dataclass(frozen=True, slots=True)
class Part:
    """What a matrix kernel multiplies with: llama.cpp's name of the tensor, its layer (-1: none), bytes it reads."""

    role: str
    layer: int
    bytes: int


class Catalogue:
    """Kernel classes by number, and the parts of a model that kernels read, by number."""

    def __init__(self) -> None:
        self.classes: list[KernelClass] = []
        self.parts: list[Part] = []
        self._numbers: dict[KernelClass, int] = {}
        self._parts: dict[Part, int] = {}

    def part(self, part: Part) -> int:
        if part not in self._parts:
            self._parts[part] = len(self.parts)
            self.parts.append(part)
        return self._parts[part]

    def number(self, kernel: KernelClass) -> int:
        if kernel not in self._numbers:
            self._numbers[kernel] = len(self.classes)
            self.classes.append(kernel)
        return self._numbers[kernel]


@dataclass(frozen=True, slots=True)
class Batch:
    """Kernels in launch order: their class, their undisturbed duration, and the part they multiply with or -1."""

    what: I64
    base_ns: F64
    part: I64

    def __len__(self) -> int:
        return len(self.what)

    def cut(self, begin: int, end: int) -> Batch:
        return Batch(self.what[begin:end], self.base_ns[begin:end], self.part[begin:end])


@dataclass(frozen=True, slots=True)
class Load:
    """What a forward pass computes: tokens and outputs in the batch, cells of the cache it looks at, sequences."""

    n_tokens: int
    n_outputs: int
    n_kv: int
    n_seq: int = 1


@dataclass
class Builder:
    """Writes the kernels of one part of one forward pass."""

    model: Model
    gpu: GpuModel
    catalogue: Catalogue
    load: Load
    what: list[int] = field(default_factory=list)
    base: list[float] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    layer: int = -1

    def batch(self) -> Batch:
        what, part = np.array(self.what, dtype=np.int64), np.array(self.parts, dtype=np.int64)
        return Batch(what, np.array(self.base, dtype=np.float64), part)

    def layers(self, first: int, last: int) -> None:
        for layer in range(first, last):
            self.layer = layer
            _LAYER[self.model.style](self, layer)
        self.layer = -1

    def head(self) -> None:
        """Final norm and output layer, for tokens whose logits are wanted."""
        if not self.load.n_outputs:
            return
        self.norm()
        model = self.model
        self.matmul(model.weight_output, model.n_vocab, model.n_embd, role="output", n=self.load.n_outputs)

    def add(
        self, kernel: KernelClass, *, moved: float = 0.0, flops: float = 0.0, extra_ns: float = 0.0, part: int = -1
    ) -> None:
        gpu = self.gpu
        work = max(moved / (gpu.bandwidth * gpu.efficiency), flops / (gpu.flops * gpu.gemm_efficiency)) * 1e9
        self.what.append(self.catalogue.number(kernel))
        slow = gpu.slow_by if gpu.slow_kernel and gpu.slow_kernel in kernel.demangled else 1.0
        self.base.append((gpu.small_ns + work + extra_ns) * slow)
        self.parts.append(part)

    def small(self, demangled: str, category: str, width: int, *, rows: int | None = None) -> None:
        """An elementwise kernel over ``width`` floats a token."""
        n = self.load.n_tokens if rows is None else rows
        kernel = KernelClass(demangled, category, (max(1, -(-width // 256)), n, 1), (256, 1, 1), 24)
        self.add(kernel, moved=12.0 * width * n)

    def norm(self, *, heads: int = 0) -> None:
        model = self.model
        fused = model.style == "fused"
        width = model.head_dim if heads else model.n_embd
        rows = max(1, heads) * self.load.n_tokens
        block = 256 if width < 1024 else 1024
        args = "const float *, float *, int, long, long, long, float"
        name = f"void rms_norm_f32<(int){block}{', (bool)1, (bool)0' if fused else ''}>({args})"
        self.add(KernelClass(name, "norm", (rows, 1, 1), (block, 1, 1), 32), moved=8.0 * width * rows)
        if not fused:
            self.binary("mul", width * max(1, heads))

    def binary(self, op: str, width: int) -> None:
        self.small(
            f"void k_bin_bcast<&op_{op}, float, float, float>(const float *, const float *, float *, int, int, int)",
            "elementwise", width,
        )  # fmt: skip

    def matmul(self, kind: str, rows: int, columns: int, *, role: str, n: int | None = None, glu: bool = False) -> None:
        """Weights of ``rows`` × ``columns`` times ``n`` tokens; ``glu``: gate and up in one fused kernel."""
        n = self.load.n_tokens if n is None else n
        size = round(rows * columns * BITS[kind] / 8) * (2 if glu else 1)
        part = self.catalogue.part(Part(role, self.layer, size))
        moved = rows * columns * BITS[kind] / 8 * (2 if glu else 1) + 4.0 * n * (rows + columns)
        flops = 2.0 * rows * columns * n * (2 if glu else 1)
        if kind in ("F16", "F32"):
            self._matmul_float(kind, rows, columns, n, moved=moved, flops=flops, part=part)
        elif n <= _VECTOR_BATCH:
            self._matmul_vector(kind, rows, columns, n, moved, fused=glu, part=part)
        else:
            self._matmul_tiles(kind, rows, columns, n, moved=moved, flops=flops, part=part)

    def _matmul_vector(
        self, kind: str, rows: int, columns: int, n: int, moved: float, *, fused: bool, part: int
    ) -> None:
        quantize = "quantize_q8_1(const float *, void *, long, long, long, long, long, unsigned int, uint3)"
        self.add(
            KernelClass(quantize, "quantize_act", (-(-columns // 256), n, 1), (256, 1, 1), 22), moved=5.0 * columns
        )
        name = f"void mul_mat_vec_q<(ggml_type){TYPE_NUMBER[kind]}, (int){n}, (bool){int(fused)}, (bool)0>({_TYPES})"
        kernel = KernelClass(name, "matmul_quant", (rows, 1, 1), (32, 4, 1), 40, 384)
        self.add(kernel, moved=moved * (1 + 0.06 * (n - 1)), part=part)

    def _matmul_tiles(
        self, kind: str, rows: int, columns: int, n: int, *, moved: float, flops: float, part: int
    ) -> None:
        quantize = "void quantize_mmq_q8_1<(mmq_q8_1_ds_layout)1>(const float *, const int *, void *, long, long, long)"
        self.add(
            KernelClass(quantize, "quantize_act", (n, -(-columns // 512), 1), (128, 1, 1), 26), moved=5.0 * columns * n
        )
        tile = min(128, -(-n // 8) * 8)
        shape = f"(ggml_type){TYPE_NUMBER[kind]}, (int){tile}, (bool)0"
        name = f"void mul_mat_q<{shape}>(const char *, const int *, const int *, const int *, float *, float *, int)"
        sms = self.gpu.sm_count
        self.add(
            KernelClass(name, "matmul_quant", (sms, 1, 1), (32, 8, 1), 212, 0, 57_856), moved=moved, flops=flops * 1.3,
            part=part,
        )  # fmt: skip
        fixup = f"void mul_mat_q_stream_k_fixup<{shape}>(const int *, const int *, float *, const float *, int, int)"
        self.add(KernelClass(fixup, "matmul_quant", (sms, 1, 1), (32, 8, 1), 40), moved=4.0 * rows * min(n, tile) / 4)

    def _matmul_float(
        self, kind: str, rows: int, columns: int, n: int, *, moved: float, flops: float, part: int
    ) -> None:
        plain = self.model.style != "fused"
        half = "__half" if kind == "F16" else "float"
        if n <= (1 if plain else _VECTOR_BATCH):
            if plain:
                name = (
                    f"void mul_mat_vec<{half}, float, (long)256>(const T1 *, const float *, float *, long, long, long)"
                )
            else:
                name = f"void mul_mat_vec_f<{half}, float, (int){n}, (int)256, (bool)0, (bool)0>({_TYPES})"
            self.add(KernelClass(name, "matmul_float", (rows, 1, 1), (256, 1, 1), 32, 0, 128), moved=moved, part=part)
            return
        convert = "void convert_unary<float, __half>(const void *, __half *, long, long, long, long, long, long)"
        self.add(
            KernelClass(convert, "dequantize", (-(-columns * n // 256), 1, 1), (256, 1, 1), 16), moved=6.0 * columns * n
        )
        library = {"turing": "turing_fp16_s1688gemm_fp16_128x128_ldg8_f2f_stages_32x1_tn",
                   "ampere": "ampere_fp16_s16816gemm_fp16_128x128_ldg8_f2f_stages_32x5_tn",
                   "sm90": "nvjet_hsh_128x128_64x6_1x2_h_bz_TNT"}[self.gpu.family]  # fmt: skip
        grid = (-(-rows // 128), -(-n // 128), 1)
        kernel = KernelClass(library, "matmul_float", grid, (128, 1, 1), 232, 0, 65_536)
        self.add(kernel, moved=moved, flops=flops, part=part)

    def rope(self, heads: int) -> None:
        kind = "neox" if self.model.neox else "norm"
        args = "const float *, float *, int, int, int, int, const int *, float, float, float, rope_corr_dims"
        name = f"void rope_{kind}<(bool)1, (bool)0, float>({args})"
        width = heads * self.model.head_dim
        n = self.load.n_tokens
        self.add(KernelClass(name, "rope", (heads * n, 1, 1), (1, 256, 1), 26), moved=8.0 * width * n)

    def store_kv(self) -> None:
        width = self.model.n_head_kv * self.model.head_dim
        if self.model.kv_indices:
            name = "void k_set_rows<float, long, __half>(const float *, const long *, __half *, long, long, long, long)"
        else:
            name = "void cpy_scalar<&cpy_1_scalar<float, __half>>(const char *, char *, int, int, int, int, int, int)"
        for _ in "kv":
            self.small(name, "kv_copy", width)

    def attention(self, layer: int) -> None:
        model, load, gpu = self.model, self.load, self.gpu
        local = model.window and layer % 6 != 5
        n_kv = min(load.n_kv, model.window) if local else load.n_kv
        dim = model.head_dim
        args = "const char *, const char *, const char *, const char *, const int *, float *, float2 *, float, float"
        kv_bytes = 4.0 * n_kv * model.n_head_kv * dim
        decode = load.n_tokens <= load.n_seq
        walk = n_kv / max(1, load.n_seq) * gpu.attention_ns_per_kv if decode else 0.0
        flops = 4.0 * load.n_tokens * n_kv * model.n_head * dim
        group = model.n_head // model.n_head_kv
        if decode and model.style == "fused":
            shape = f"(int){dim}, (int){load.n_tokens}, (ggml_type)1, (ggml_type)1, (bool)0"
            name = f"void flash_attn_ext_vec<{shape}>({args})"
            aux = f"void flash_attn_combine_results<(int){dim}>(const float *, const float2 *, float *, int)"
            kernel = KernelClass(name, "attention", (1, 4, model.n_head), (128, 1, 1), 128)
        else:
            columns = 1 if decode else 8
            shape = f"(int){dim}, (int){dim}, (int){columns}, (int){group}, (bool)0, (bool)0"
            name = f"void flash_attn_ext_f16<{shape}>({args})"
            fixed = f"(int){dim}, (int){columns}, (int){group}"
            aux = f"void flash_attn_stream_k_fixup<{fixed}>(float *, const float2 *, int)"
            kernel = KernelClass(name, "attention", (gpu.sm_count, 1, 1), (32, 4, 1), 168, 0, 49_152)
        self.add(kernel, moved=kv_bytes, flops=flops, extra_ns=1.5 * gpu.small_ns + walk)
        sms = KernelClass(aux, "attention", (gpu.sm_count, 1, 1), (dim, 1, 1), 30)
        self.add(sms, moved=4.0 * load.n_tokens * model.n_head * dim, extra_ns=2.6 * gpu.small_ns)

    def gated(self, width: int) -> None:
        args = "const float *, const float *, float *, long, long, long, long"
        self.small(f"void unary_gated_op_kernel<&op_silu, float>({args})", "activation", width)


def _attention_block(build: Builder, layer: int, *, norms: bool) -> None:
    model = build.model
    q, k, v, out = model.matrices()[:4]
    build.norm()
    for role, matrix in (("attn_q", q), ("attn_k", k), ("attn_v", v)):
        build.matmul(*matrix, role=role)
    if norms:
        build.norm(heads=model.n_head)
        build.norm(heads=model.n_head_kv)
    build.rope(model.n_head)
    build.rope(model.n_head_kv)
    build.store_kv()
    build.attention(layer)
    build.matmul(*out, role="attn_output")


def _layer_fused(build: Builder, layer: int) -> None:
    model = build.model
    _attention_block(build, layer, norms=False)
    build.binary("add", model.n_embd)
    build.norm()
    if model.n_expert:
        router = "void mul_mat_vec_f<float, float, (int)1, (int)128, (bool)0, (bool)0>"
        build.add(
            KernelClass(f"{router}({_TYPES})", "matmul_float", (model.n_expert, 1, 1), (128, 1, 1), 32),
            moved=4.0 * model.n_expert * model.n_embd,
            part=build.catalogue.part(Part("ffn_gate_inp", layer, 4 * model.n_expert * model.n_embd)),
        )
        build.small(f"void topk_moe_cuda<(int){model.n_expert}, (bool)1>(const float *, float *, int *)", "moe", 128)
    gate, up, down = model.matrices()[4:]
    shared = "_shexp" if model.n_expert else ""  # beside the experts, which are elsewhere
    if build.load.n_tokens <= _VECTOR_BATCH:
        build.matmul(*gate, role=f"ffn_gate{shared} + ffn_up{shared}", glu=True)
    else:
        build.matmul(*gate, role=f"ffn_gate{shared}")
        build.matmul(*up, role=f"ffn_up{shared}")
        build.gated(model.n_ff)
    build.matmul(*down, role=f"ffn_down{shared}")
    build.binary("add", model.n_embd)


def _layer_plain(build: Builder, layer: int) -> None:
    model = build.model
    _attention_block(build, layer, norms=False)
    build.binary("add", model.n_embd)
    build.norm()
    gate, up, down = model.matrices()[4:]
    build.matmul(*gate, role="ffn_gate")
    build.matmul(*up, role="ffn_up")
    build.small("silu_f32(const float *, float *, int)", "activation", model.n_ff)
    build.binary("mul", model.n_ff)
    build.matmul(*down, role="ffn_down")
    build.binary("add", model.n_embd)


def _layer_gemma3(build: Builder, layer: int) -> None:
    model = build.model
    _attention_block(build, layer, norms=True)
    build.norm()
    build.binary("add", model.n_embd)
    build.norm()
    gate, up, down = model.matrices()[4:]
    build.matmul(*gate, role="ffn_gate")
    build.matmul(*up, role="ffn_up")
    build.small("void unary_op_kernel<&op_gelu, float>(const float *, float *, int)", "activation", model.n_ff)
    build.binary("mul", model.n_ff)
    build.matmul(*down, role="ffn_down")
    build.norm()
    build.binary("add", model.n_embd)


_LAYER = {"fused": _layer_fused, "plain": _layer_plain, "gemma3": _layer_gemma3}


class Kernels:
    """Templates of kernel batches, made once per shape. llama.cpp pads the cache it looks at to 256 cells."""

    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self._made: dict[tuple[str, str, Load, int, int, bool], Batch] = {}

    def batch(self, model: Model, gpu: GpuModel, load: Load, *, layers: tuple[int, int], head: bool) -> Batch:
        key = (model.name, gpu.name, load, *layers, head)
        if key not in self._made:
            builder = Builder(model, gpu, self.catalogue, load)
            builder.layers(*layers)
            if head:
                builder.head()
            self._made[key] = builder.batch()
        return self._made[key]

    def expert_batch(self, model: Model, gpu: GpuModel, load: Load, experts: int) -> Batch:
        """The experts of one layer, computed on the GPU for a large batch."""
        builder = Builder(model, gpu, self.catalogue, load)
        ids = "void mm_ids_helper<(int)8>(const int *, int *, int *, int *, int, int, int, int, int, int)"
        quantize = "void quantize_mmq_q8_1<(mmq_q8_1_ds_layout)1>(const float *, const int *, void *, long, long, long)"
        shape = f"(ggml_type){TYPE_NUMBER[model.weight_expert]}, (int)32, (bool)0"
        name = f"void mul_mat_q<{shape}>(const char *, const int *, const int *, const int *, float *, float *, int)"
        rows = load.n_tokens * model.n_expert_used
        for _ in ("gate", "up", "down"):
            builder.add(KernelClass(ids, "moe", (model.n_expert, 1, 1), (32, 1, 1), 30), moved=4.0 * rows)
            builder.small(quantize, "quantize_act", model.n_embd, rows=rows)
            builder.add(
                KernelClass(name, "matmul_quant", (gpu.sm_count, 1, 1), (32, 8, 1), 212, 0, 40_000),
                moved=experts * model.expert_bytes() / 3, flops=2.0 * rows * model.n_embd * model.n_ff_expert,
            )  # fmt: skip
        builder.gated(model.n_ff_expert)
        reduce = "void moe_weighted_reduction_f32(const float *, const float *, float *, int, int, int)"
        builder.small(reduce, "moe", model.n_embd)
        return builder.batch()


def padded(n_kv: int) -> int:
    """Cells of the cache that a forward pass looks at."""
    return max(256, -(-n_kv // 256) * 256)
