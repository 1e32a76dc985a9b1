"""Facts of GGUF files: real ones that llama.cpp runs, header-only ones of known models, and broken ones."""

from __future__ import annotations

import doctest
import os
import struct
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsyskit.errors import NsyskitError, TraceFormatError, UsageError
from nsyskit.ggml import gguf_file
from nsyskit.ggml.gguf_file import bytes_per_token, kv_bytes, kv_bytes_per_token, read_model, weights_per_token
from nsyskit.ggml.gguf_header import read_header

gguf = pytest.importorskip("gguf", reason="the writer of test models needs the package gguf")
sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_gguf import VOCAB, write_tiny_gguf  # noqa: E402 - a script beside the tests, not a package

MIB = 1 << 20


def header_only(path, arch="llama", tensors=(), **keys: object):
    """A file with a header and no data: numbers as UINT32, lists as arrays, strings as strings."""
    writer = gguf.GGUFWriter(str(path), arch)
    for key, value in keys.items():
        name = key.replace("__", ".")
        name = name if name.startswith(("general.", "split.")) else f"{arch}.{name}"
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_uint32(name, value)
    for name, shape, kind in tensors:  # shape in numpy's order, as the writer wants it
        elements = 1
        for size in shape:
            elements *= size
        block, size = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor_info(name, shape, gguf_float16(), elements * size // block, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path


def gguf_float16():
    import numpy as np

    return np.dtype("float16")


TINY_LLAMA = {
    "block_count": 22,
    "attention__head_count": 32,
    "attention__head_count_kv": 4,
    "embedding_length": 2048,
    "context_length": 2048,
}


# --- real files


def test_a_model_that_llama_cpp_runs(tmp_path):
    facts = read_model(write_tiny_gguf(tmp_path / "tiny.gguf"))
    assert (facts.architecture, facts.name, facts.layers, facts.parts) == ("llama", "tiny random", 4, 1)
    assert (facts.heads, facts.kv_heads) == ((4,) * 4, (2,) * 4)
    assert (facts.head_size_k, facts.head_size_v) == (64, 64)
    assert (facts.context, facts.embedding, facts.vocab) == (4096, 256, VOCAB)
    assert (facts.experts, facts.tied, facts.has_data) == (0, False, True)
    assert facts.bytes_by_role == {
        "ffn_down": 4 * 512 * 256 * 2,
        "ffn_gate": 4 * 512 * 256 * 2,
        "ffn_up": 4 * 512 * 256 * 2,
        "attn_output": 4 * 256 * 256 * 2,
        "attn_q": 4 * 256 * 256 * 2,
        "attn_k": 4 * 128 * 256 * 2,
        "attn_v": 4 * 128 * 256 * 2,
        "output": VOCAB * 256 * 2,
        "token_embd": VOCAB * 256 * 2,
        "norms": 9 * 256 * 4,
    }
    assert facts.bytes_by_type == {"F16": facts.total_bytes - 9 * 256 * 4, "F32": 9 * 256 * 4}
    assert bytes_per_token(facts) == facts.total_bytes - VOCAB * 256 * 2
    assert weights_per_token(facts) == (bytes_per_token(facts) - 9 * 256 * 4) // 2
    assert kv_bytes_per_token(facts) == 4 * (128 + 128) * 2
    assert kv_bytes(facts, 512) == MIB  # what the real llama-completion prints for this model at -c 512


def test_tied_embeddings_are_read(tmp_path):
    facts = read_model(write_tiny_gguf(tmp_path / "tied.gguf", tied=True, quant="Q8_0"))
    assert facts.tied
    assert "output" not in facts.bytes_by_role
    assert facts.bytes_by_role["token_embd"] == VOCAB * 256 // 32 * 34
    assert bytes_per_token(facts) == facts.total_bytes


@pytest.mark.parametrize("arch", ["llama", "qwen3moe"])
def test_of_experts_only_the_active_ones_are_read(tmp_path, arch):
    facts = read_model(write_tiny_gguf(tmp_path / "moe.gguf", arch=arch, experts=8, experts_used=2))
    assert (facts.experts, facts.experts_used) == (8, 2)
    experts = sum(facts.bytes_by_role[f"ffn_{what}_exps"] for what in ("gate", "up", "down"))
    assert experts == 4 * 8 * 3 * 512 * 256 * 2
    assert bytes_per_token(facts) == facts.total_bytes - experts * 6 // 8 - VOCAB * 256 * 2


def test_shared_experts_are_read_whole(tmp_path):
    path = write_tiny_gguf(tmp_path / "m.gguf", arch="qwen2moe", experts=8, experts_used=2, shared_ffn=128)
    facts = read_model(path)
    assert facts.bytes_by_role["ffn_up_shexp"] == 4 * 128 * 256 * 2
    experts = sum(facts.bytes_by_role[f"ffn_{what}_exps"] for what in ("gate", "up", "down"))
    assert bytes_per_token(facts) == facts.total_bytes - experts * 6 // 8 - VOCAB * 256 * 2


def test_split_files_from_any_part(tmp_path):
    write_tiny_gguf(tmp_path / "m.gguf", split=15)
    whole = read_model(write_tiny_gguf(tmp_path / "whole.gguf"))
    for part in (1, 3):
        facts = read_model(tmp_path / f"m-{part:05}-of-00003.gguf")
        assert (facts.file, facts.parts) == ("m-00001-of-00003.gguf", 3)
        assert facts.bytes_by_role == whole.bytes_by_role
        assert bytes_per_token(facts) == bytes_per_token(whole)


def test_a_missing_part(tmp_path):
    write_tiny_gguf(tmp_path / "m.gguf", split=15)
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    with pytest.raises(TraceFormatError, match=r"^m-00002-of-00003.gguf of the 3 parts .* missing; put all parts"):
        read_model(tmp_path / "m-00003-of-00003.gguf")


def test_a_renamed_part_and_parts_of_two_models(tmp_path):
    write_tiny_gguf(tmp_path / "m.gguf", split=15)
    write_tiny_gguf(tmp_path / "n.gguf", split=14, layers=3)
    (tmp_path / "n-00002-of-00003.gguf").replace(tmp_path / "m-00002-of-00003.gguf")
    with pytest.raises(TraceFormatError, match="hold 38 tensors instead of 39; take all parts from one download"):
        read_model(tmp_path / "m-00001-of-00003.gguf")
    (tmp_path / "m-00001-of-00003.gguf").rename(tmp_path / "first.gguf")
    with pytest.raises(TraceFormatError, match="its name does not say which"):
        read_model(tmp_path / "first.gguf")


# --- KV cache


def test_kv_cache_of_tiny_llama(tmp_path):
    facts = read_model(header_only(tmp_path / "t.gguf", **TINY_LLAMA))
    assert (facts.head_size_k, facts.has_data, facts.total_bytes) == (64, False, 0)
    assert kv_bytes_per_token(facts) == 22 * 4 * (64 + 64) * 2
    assert kv_bytes(facts, 2048) == 44 * MIB
    assert kv_bytes(facts, 2048, type_k="q8_0", type_v="Q8_0") == 44 * MIB * 17 // 32
    assert kv_bytes(facts, 2048, type_k="q8_0", type_v="q4_0") == 22 * MIB * 17 // 32 + 22 * MIB * 9 // 32
    with pytest.raises(UsageError, match="'q9' is no type of a KV cache; give one of f32, f16, bf16"):
        kv_bytes(facts, 2048, type_k="q9")


def test_heads_a_layer(tmp_path):
    keys = TINY_LLAMA | {"block_count": 3, "attention__head_count": [8, 4, 4], "attention__head_count_kv": [4, 0, 2]}
    facts = read_model(header_only(tmp_path / "t.gguf", attention__key_length=64, attention__value_length=32, **keys))
    assert (facts.heads, facts.kv_heads) == ((8, 4, 4), (4, 0, 2))
    assert facts.kv_widths == ((256, 128), (0, 0), (128, 64))
    assert kv_bytes_per_token(facts) == (256 + 128 + 128 + 64) * 2


def test_no_kv_heads_means_as_many_as_heads(tmp_path):
    keys = {key: value for key, value in TINY_LLAMA.items() if not key.endswith("_kv")}
    assert read_model(header_only(tmp_path / "t.gguf", **keys)).kv_heads == (32,) * 22


def test_latent_attention_caches_no_values(tmp_path):
    keys = TINY_LLAMA | {"block_count": 2, "attention__head_count_kv": 1}
    mla = {"attention__key_length": 576, "attention__value_length": 512}
    mla |= {"attention__key_length_mla": 192, "attention__value_length_mla": 128}
    facts = read_model(header_only(tmp_path / "t.gguf", arch="deepseek2", **keys, **mla))
    assert kv_bytes_per_token(facts) == 2 * 576 * 2


def test_recurrent_layers_have_no_kv_cache(tmp_path):
    f16 = gguf.GGMLQuantizationType.F16
    tensors = [
        ("blk.0.ssm_in.weight", (64, 128), f16),
        ("blk.0.attn_qkv.weight", (64, 128), f16),
        ("blk.1.attn_k.weight", (64, 128), f16),
        ("blk.1.attn_v.weight", (32, 128), f16),
    ]
    keys = {"block_count": 2, "attention__head_count": 4, "attention__head_count_kv": 2, "embedding_length": 128}
    facts = read_model(header_only(tmp_path / "t.gguf", arch="qwen3next", tensors=tensors, **keys))
    assert facts.kv_heads == (0, 2)
    assert facts.kv_widths == ((0, 0), (64, 32))


def test_layers_of_multi_token_prediction_are_no_step(tmp_path):
    f16 = gguf.GGMLQuantizationType.F16
    tensors = [(f"blk.{layer}.ffn_up.weight", (64, 128), f16) for layer in range(3)]
    tensors += [("output.weight", (10, 128), f16), ("token_embd.weight", (10, 128), f16)]
    keys = TINY_LLAMA | {"block_count": 3, "nextn_predict_layers": 1}
    facts = read_model(header_only(tmp_path / "t.gguf", arch="glm4moe", tensors=tensors, **keys))
    assert (facts.layers, len(facts.kv_widths)) == (2, 2)
    assert bytes_per_token(facts) == 2 * 64 * 128 * 2 + 10 * 128 * 2


def test_the_layers_that_share_a_cache(tmp_path):
    keys = TINY_LLAMA | {"block_count": 4, "attention__shared_kv_layers": 3, "attention__sliding_window": 512}
    facts = read_model(header_only(tmp_path / "t.gguf", arch="gemma3n", **keys))
    assert facts.sliding_window == 512
    assert facts.kv_widths == ((256, 256), (0, 0), (0, 0), (0, 0))


def test_an_expert_a_tensor(tmp_path):
    f16 = gguf.GGMLQuantizationType.F16
    tensors = [(f"blk.0.ffn_up.{expert}.weight", (64, 128), f16) for expert in range(8)]
    keys = TINY_LLAMA | {"expert_count": 8, "expert_used_count": 2}
    facts = read_model(header_only(tmp_path / "t.gguf", tensors=tensors, **keys))
    assert facts.bytes_by_role == {"ffn_up_exps": 8 * 64 * 128 * 2}
    assert bytes_per_token(facts) == 2 * 64 * 128 * 2


# --- broken files


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", layers=1, width=64, ffn=64).read_bytes()


def start(*, magic=b"GGUF", version=3, tensors=0, keys=0, order="<"):
    return magic + struct.pack(f"{order}IQQ", version, tensors, keys)


def key(name, kind, payload):
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + payload


ARCH = key(b"general.architecture", 8, struct.pack("<Q", 5) + b"llama")
HUGE = 1 << 62

BAD = {
    "empty": (b"", "is no GGUF file; it is empty"),
    "text": (b"hello, world, this is a text", "is no GGUF file; give a model in llama.cpp's format"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1", "run git lfs pull"),
    "html": (b"<!DOCTYPE html><html></html>", "it is a web page"),
    "ggml": (b"tjgg" + bytes(40), "before GGUF: convert the model again"),
    "magic only": (b"GGUF", "ends inside its header, after 4 bytes; download"),
    "big-endian": (start(order=">"), "is a big-endian GGUF file; convert it"),
    "version 1": (start(version=1), "of GGUF version 1, not 2 or 3; convert the model again"),
    "version 9": (start(version=9), "of GGUF version 9, not 2 or 3; update nsyskit"),
    "version 0": (start(version=0), "of GGUF version 0"),
    "tensors beyond reason": (start(tensors=HUGE), "claims 4,611,686,018,427,387,904 tensors; download"),
    "keys beyond reason": (start(keys=HUGE), "damaged: it claims"),
    "more tensors than bytes": (start(tensors=1000), "ends inside its header"),
    "a name without end": (start(keys=1) + struct.pack("<Q", HUGE) + bytes(99), "bytes in a string; download"),
    "a string without end": (start(keys=1) + key(b"a", 8, struct.pack("<Q", 9999)), "ends inside its header"),
    "an unknown type": (start(keys=1) + key(b"a", 77, bytes(8)), "key 'a' has the unknown type 77"),
    "an array of arrays": (start(keys=1) + key(b"a", 9, struct.pack("<IQ", 9, 3)), "elements of the unknown type 9"),
    "an array of 2**62": (start(keys=1) + key(b"a", 9, struct.pack("<IQ", 0, HUGE)), "elements in 'a'; download"),
    "strings of 2**62": (start(keys=1) + key(b"a", 9, struct.pack("<IQ", 8, HUGE)), "elements in 'a'; download"),
    "a tensor of 2**90": (
        start(tensors=1) + struct.pack("<Q", 1) + b"t" + struct.pack("<IQQQIQ", 3, 1 << 30, 1 << 30, 1 << 30, 0, 0),
        "tensor 't' has the shape",
    ),
    "a tensor of 99 dimensions": (
        start(tensors=1) + struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 99, 1, 0, 0) + bytes(99),
        "tensor 't' has 99 dimensions",
    ),
    "no architecture": (start(), "names no architecture"),
    "alignment 7": (
        start(keys=2) + ARCH + key(b"general.alignment", 4, struct.pack("<I", 7)),
        "its alignment is 7; download",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_bad_files_get_one_line_quickly(tmp_path, content, message):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    began = time.perf_counter()
    with pytest.raises(TraceFormatError) as caught:
        read_model(path)
    assert time.perf_counter() - began < 1
    assert message in str(caught.value)
    assert str(caught.value).startswith("bad.gguf")
    assert "\n" not in str(caught.value)


def test_what_is_no_language_model(tmp_path):
    with pytest.raises(UsageError, match="of type mmproj; give the model's own GGUF file"):
        read_model(header_only(tmp_path / "p.gguf", arch="clip", general__type="mmproj"))
    with pytest.raises(UsageError, match="of type adapter"):
        read_model(header_only(tmp_path / "a.gguf", general__type="adapter"))


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file .*nothing\.gguf; check the path"):
        read_model(tmp_path / "nothing.gguf")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_model(tmp_path)


def test_cut_off_in_the_weights_or_in_the_header(tmp_path, tiny):
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny)
    begin = read_header(path).data_offset
    path.write_bytes(tiny[:-100])
    with pytest.raises(TraceFormatError, match=rf"cut off: it holds .* of {len(tiny):,} bytes; download"):
        read_model(path)
    path.write_bytes(tiny[: begin // 2])
    with pytest.raises(TraceFormatError, match="ends inside its header"):
        read_model(path)
    path.write_bytes(tiny[:begin])  # the header alone still has all facts
    assert read_model(path).layers == 1


def test_a_type_this_table_does_not_know_is_sized_by_its_place(tmp_path):
    def tensor(name: bytes, kind: int, offset: int) -> bytes:
        return struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, 64, 32, kind, offset)

    path = tmp_path / "new.gguf"
    header = start(tensors=2, keys=1) + ARCH + tensor(b"blk.0.ffn_up.weight", 4321, 0)
    header += tensor(b"blk.0.ffn_down.weight", 1, 1024)
    path.write_bytes(header + bytes(-len(header) % 32 + 1024 + 4096))
    assert read_model(path).bytes_by_type == {"F16": 4096, "ggml_type_4321": 1024}


def test_many_gigabytes_and_a_large_vocabulary_cost_nothing(tmp_path):
    import resource

    path = tmp_path / "large.gguf"
    words = [f"token{number}" for number in range(100_000)]
    tensors = [(f"blk.{layer}.ffn_up.weight", (8192, 65536), gguf.GGMLQuantizationType.F16) for layer in range(22)]
    header_only(path, tensors=tensors, words=words, **TINY_LLAMA)
    os.truncate(path, path.stat().st_size + 31 + 22 * (1 << 30))  # sparse
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    facts = read_model(path)
    assert facts.total_bytes == 22 << 30
    assert time.perf_counter() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damages=st.lists(st.tuples(st.integers(0, 9000), st.binary(min_size=1, max_size=9)), max_size=4),
    cut=st.integers(0, 99),
)
def test_damaged_files_raise_nothing_else(tmp_path, tiny, damages, cut):
    data = bytearray(tiny if cut > 20 else tiny[: len(tiny) * cut // 20])
    for place, noise in damages:
        data[place : place + len(noise)] = noise
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data)
    try:
        facts = read_model(path)
    except NsyskitError:
        return
    assert bytes_per_token(facts) >= 0
    assert kv_bytes(facts, 512) >= 0


def test_examples_in_docstrings():
    assert doctest.testmod(gguf_file) == (0, 1)
