"""The buffers that llama.cpp's log names, of a GPU and of the real llama-bench on a CPU."""

from nsyskit.ggml.outputs.buffers import parse_buffers

MIB = 1 << 20
GPU = """\
load_tensors:   CPU_Mapped model buffer size =    35.16 MiB
load_tensors:        CUDA0 model buffer size =   600.00 MiB
load_tensors:        CUDA1 model buffer size =   100.00 MiB
llama_context: n_ctx                 = 512
llama_context:  CUDA_Host  output buffer size =     0.12 MiB
llama_kv_cache_unified:      CUDA0 KV buffer size =     8.00 MiB
llama_kv_cache_unified:      CUDA0 KV buffer size =     3.00 MiB
llama_context:      CUDA0 compute buffer size =    70.00 MiB
llama_context:      CUDA0 compute buffer size =    66.50 MiB
llama_context:  CUDA_Host compute buffer size =     5.01 MiB
llama_new_context_with_model: n_ctx      = 4096
llama_kv_cache_init:      CUDA0 KV buffer size =    88.00 MiB
"""


def test_devices_are_told_from_the_host():
    first, second = parse_buffers(GPU)
    assert first.on_gpus("model") == 700 * MIB
    assert first.on_gpus("cache") == 11 * MIB  # two caches: one of a sliding window
    assert first.on_gpus("compute") == round(66.5 * MIB)  # reserved twice, the last one holds
    assert first.vram_bytes == round(777.5 * MIB)
    assert first.total_bytes == first.vram_bytes + sum(round(size * MIB) for size in (35.16, 0.12, 5.01))
    assert second.vram_bytes == 788 * MIB


def test_the_real_llama_bench_on_a_cpu():
    text = (
        "load_tensors:   CPU_Mapped model buffer size =     4.76 MiB\nllama_context: n_ctx                 = 256\n"
        "llama_context:        CPU  output buffer size =     0.00 MiB\n"
        "llama_kv_cache:        CPU KV buffer size =     0.50 MiB\n"
        "sched_reserve:        CPU compute buffer size =     0.09 MiB\n"
        "~llama_context:        CPU compute buffer size is   0.0901 MiB, matches expectation of   0.0901 MiB\n"
    )
    (held,) = parse_buffers(text)
    assert held.vram_bytes == 0
    assert held.total_bytes == round(4.76 * MIB) + round(0.5 * MIB) + round(0.09 * MIB)


def test_a_log_without_buffers():
    assert parse_buffers("llama_context: n_ctx = 256\nCUDA0 model buffer size =  12") == ()
