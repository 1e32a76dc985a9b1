"""The machines: GPUs as nsys describes them, and what calls cost on the host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuModel:
    """A GPU. Bandwidths in bytes per second, ``flops`` dense half precision; costs in nanoseconds."""

    name: str
    chip: str
    compute: tuple[int, int]
    sm_count: int
    memory_bytes: int
    bandwidth: float
    flops: float
    clock_hz: int
    pcie: float
    small_ns: float = 1_600  # shortest useful kernel
    gap_ns: float = 900  # between two kernels of one stream
    latency_ns: float = 2_600  # from inside the launch call to the first instruction
    attention_ns_per_kv: float = 20.0  # one token's flash attention walks the cache
    efficiency: float = 0.80  # of the peak bandwidth that a matrix-vector product reaches
    gemm_efficiency: float = 0.45
    slow_kernel: str = ""  # kernels whose name holds this take ``slow_by`` times as long
    slow_by: float = 1.0

    @property
    def family(self) -> str:
        """Prefix of the library's GEMM kernels."""
        return {7: "turing", 8: "ampere", 9: "sm90"}[self.compute[0]]


RTX_2080_TI = GpuModel(
    "NVIDIA GeForce RTX 2080 Ti", "TU102", (7, 5), 68, 11_554_717_696, 616e9, 53.8e12, 1_545_000_000, 3.25e9,
    small_ns=1_680, gap_ns=820, attention_ns_per_kv=33.0,
)  # fmt: skip
T4 = GpuModel("Tesla T4", "TU104", (7, 5), 40, 15_828_320_256, 320.064e9, 65e12, 1_590_000_000, 6e9, small_ns=1_900)
RTX_3060 = GpuModel(
    "NVIDIA GeForce RTX 3060", "GA106", (8, 6), 28, 12_622_168_064, 360.048e9, 51e12, 1_777_000_000, 12e9
)
RTX_4090 = GpuModel(
    "NVIDIA GeForce RTX 4090", "AD102", (8, 9), 128, 25_393_692_672, 1_008.096e9, 330e12, 2_520_000_000, 24e9,
    small_ns=1_200, gap_ns=700,
)  # fmt: skip
A100 = GpuModel(
    "NVIDIA A100-SXM4-80GB", "GA100", (8, 0), 108, 84_990_623_744, 2_039.04e9, 312e12, 1_410_000_000, 24e9,
    small_ns=2_000, gap_ns=1_000, attention_ns_per_kv=16.0,
)  # fmt: skip
H100 = GpuModel(
    "NVIDIA H100 80GB HBM3", "GH100", (9, 0), 132, 85_029_158_912, 3_352.32e9, 989e12, 1_980_000_000, 50e9,
    small_ns=1_500, gap_ns=600, attention_ns_per_kv=12.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HostModel:
    """What calls cost on the host, in nanoseconds, and how fast its cores read memory."""

    launch_ns: float = 1_900
    launch_gap_ns: float = 450  # llama.cpp's own work between two launches
    call_gap_ns: float = 350
    copy_ns: float = 3_600
    sync_ns: float = 900  # a wait for nothing
    wake_ns: float = 3_000  # from the end of the work to the return of the wait
    event_ns: float = 800
    capture_launch_ns: float = 750
    graph_launch_ns: float = 6_500
    graph_launch_node_ns: float = 12.0  # per node
    instantiate_node_ns: float = 1_300.0
    update_node_ns: float = 350.0
    prepare_ns: float = 60_000  # building the batch and the graph, before the uploads
    sample_ns_per_vocab: float = 2.2  # one slot's sampling
    respond_ns: float = 18_000  # detokenise and queue the answer, per slot
    memory_bandwidth: float = 40e9
