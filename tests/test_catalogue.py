"""The kernel catalogue: names as nsys prints them, rules of one's own, and every kernel of four llama.cpp versions."""

import csv
import json
from importlib import resources
from pathlib import Path

import polars as pl
import pytest

from nsyskit.errors import UsageError
from nsyskit.ggml.catalogue import FRAME, KernelInfo, KernelRules, catalogue
from nsyskit.ggml.decode import unknown_fields

RULES = KernelRules.load()
REFERENCE = Path(__file__).parents[2] / "shared" / "ggml-kernels" / "table.tsv"


def facts(info: KernelInfo) -> dict[str, object]:
    """What the name told, without what is the same for the whole rule."""
    said = {column: getattr(info, column) for column in [*FRAME] if column != "name_id"}
    return {column: value for column, value in said.items() if value not in (None, ())}


# --- single kernels


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "void mul_mat_q<(ggml_type)12, (int)128, (bool)0>(const char *, const int *)",
            {"category": "matmul_quant", "family": "mul_mat_q", "quant": "Q4_K", "tile_cols": 128},
        ),
        (
            "void mul_mat_q<(ggml_type)8, (int)64, (int)8, (bool)1>(const char *)",
            {"category": "matmul_quant", "family": "mul_mat_q", "quant": "Q8_0", "tile_cols": 64},
        ),
        (
            "mul_mat_q_stream_k_fixup<8, 128, 0>",
            {"category": "matmul_quant", "family": "mul_mat_q_stream_k_fixup", "quant": "Q8_0", "tile_cols": 128},
        ),
        (
            "void mul_mat_vec_q<(ggml_type)14, (int)1>(const void *)",
            {"category": "matmul_quant", "family": "mul_mat_vec_q", "quant": "Q6_K", "batch": 1},
        ),
        (
            "void mul_mat_vec_q<(ggml_type)12, (int)4, (bool)1, (bool)0, (bool)0>(const void *)",
            {
                "category": "matmul_quant",
                "family": "mul_mat_vec_q",
                "quant": "Q4_K",
                "batch": 4,
                "fused": ("glu_or_bias",),
            },
        ),
        (
            "void mul_mat_vec_q<(ggml_type)8, 8, false, false>(void const*)",
            {"category": "matmul_quant", "family": "mul_mat_vec_q", "quant": "Q8_0", "batch": 8},
        ),
        (
            "void mul_mat_vec_q<1, 256, 32, block_q4_K, 2, &vec_dot_q4_K_q8_1>(const void *)",
            {"category": "matmul_quant", "family": "mul_mat_vec_q", "quant": "Q4_K", "batch": 1},
        ),
        (
            "void mul_mat_vec_q_moe<(ggml_type)39, (int)2, (bool)1>(const void *)",
            {"category": "matmul_quant", "family": "mul_mat_vec_q_moe", "quant": "MXFP4", "fused": ("glu_or_bias",)},
        ),
        (
            "dequantize_mul_mat_vec_q2_k(const void *)",
            {"category": "matmul_quant", "family": "dequantize_mul_mat_vec", "quant": "Q2_K"},
        ),
        (
            "void dequantize_mul_mat_vec<(ggml_type)2>(const void *)",
            {"category": "matmul_quant", "family": "dequantize_mul_mat_vec", "quant": "Q4_0"},
        ),
        (
            "void mul_mat_f<__half2, (int)32, (int)2, (int)8, (bool)0>(const T1 *)",
            {"category": "matmul_float", "family": "mul_mat_f", "quant": "F16", "batch": 2, "tile_cols": 2},
        ),
        (
            "void mul_mat_f<__nv_bfloat162, (int)32, (int)16, (int)8, (bool)1>(const T1 *)",
            {"category": "matmul_float", "family": "mul_mat_f", "quant": "BF16", "tile_cols": 16},
        ),
        (
            "void mul_mat_f_ids<float, (int)32, (int)16, (int)8>(const T1 *)",
            {"category": "matmul_float", "family": "mul_mat_f", "quant": "F32", "tile_cols": 16},
        ),
        (
            "void mul_mat_vec<__half, __half, (int)1, (int)256>(const T1 *, const float *)",
            {"category": "matmul_float", "family": "mul_mat_vec_f", "quant": "F16", "batch": 1},
        ),
        (
            "void mul_mat_vec<__half, float, (int)128>(const T1 *, const float *)",
            {"category": "matmul_float", "family": "mul_mat_vec_f", "quant": "F16"},
        ),
        (
            "void mul_mat_vec_f<float, float, (int)3, (int)96, (bool)0, (bool)0>(const T1 *)",
            {"category": "matmul_float", "family": "mul_mat_vec_f", "quant": "F32", "batch": 3},
        ),
        (
            "void mul_mat_vec_f<__half, float, (int)1, (int)96, (bool)1, (bool)1>(const T1 *)",
            {"category": "matmul_float", "family": "mul_mat_vec_f", "quant": "F16", "fused": ("glu_or_bias",)},
        ),
        (
            "mul_mat_p021_f16_f32(const void *)",
            {"category": "matmul_float", "family": "mul_mat_vec_f", "quant": "F16"},
        ),
        (
            "void flash_attn_ext_f16<(int)256, (int)256, (int)32, (int)2, (bool)0, (bool)0, (bool)0>(const char *)",
            {"head_k": 256, "head_v": 256, "tile_cols": 32, "tile_heads": 2},
        ),
        (
            "void flash_attn_ext_f16<(int)576, (int)512, (int)4, (int)16, (bool)0, (bool)1>(const char *)",
            {"head_k": 576, "head_v": 512, "tile_cols": 4, "tile_heads": 16},
        ),
        (
            "void flash_attn_ext_f16<(int)256, (int)256, (int)4, (int)2, (int)2, (int)1, (bool)0, (bool)0>",
            {"head_k": 256, "head_v": 256, "tile_cols": 4, "tile_heads": 2},
        ),
        (
            "void flash_attn_ext_f16<(int)128, (int)8, (int)1, (int)4, (int)64, (int)1, (bool)0>(const char *)",
            {"head_k": 128, "head_v": 128, "tile_cols": 8, "tile_heads": 1},
        ),
        (
            "void flash_attn_ext_f16<(int)64, (int)16, (int)4, (int)64, float, (bool)0>(const char *)",
            {"head_k": 64, "head_v": 64, "tile_cols": 16},
        ),
        (
            "void flash_attn_ext_f16<(int)64, (int)16, (int)4, (int)64, (int)1, __half, (bool)0>(const char *)",
            {"head_k": 64, "head_v": 64, "tile_cols": 16},
        ),
        (
            "void flash_attn_ext_f16<(int)64, (int)16, (int)4, (int)64, (int)1, __half>(const char *)",
            {"head_k": 64, "head_v": 64, "tile_cols": 16},
        ),
        (
            "void flash_attn_ext_vec<(int)128, (int)1, (ggml_type)8, (ggml_type)1, (bool)0>(const char *)",
            {"head_k": 128, "head_v": 128, "tile_cols": 1, "type_k": "Q8_0", "type_v": "F16"},
        ),
        (
            "void flash_attn_vec_ext_f16<(int)64, (int)2, (int)4, (ggml_type)1, (ggml_type)2, (bool)0>(const char *)",
            {"head_k": 64, "head_v": 64, "tile_cols": 2, "type_k": "F16", "type_v": "Q4_0"},
        ),
        (
            "void flash_attn_vec_ext_f32<(int)64, (int)2, (int)4, (ggml_type)1, (ggml_type)2>(const char *)",
            {"head_k": 64, "head_v": 64, "tile_cols": 2, "type_k": "F16", "type_v": "Q4_0"},
        ),
        ("flash_attn_tile<64, 80, 2, 1, false>", {"head_k": 64, "head_v": 80, "tile_cols": 2, "tile_heads": 1}),
        ("flash_attn_tile<64, 16, false>", {"head_k": 64, "head_v": 64, "tile_cols": 16}),
        ("flash_attn_tile_ext_f32<(int)64, (int)16, (int)4, (bool)0>", {"head_k": 64, "head_v": 64, "tile_cols": 16}),
        ("flash_attn_tile_ext_f16<(int)64, (int)16, (int)4>", {"head_k": 64, "head_v": 64, "tile_cols": 16}),
        ("flash_attn_stream_k_fixup<(int)128, (int)8, (int)2>", {"head_v": 128, "tile_cols": 8, "tile_heads": 2}),
        ("flash_attn_combine_results<(int)128>", {"head_v": 128}),
        ("flash_attn_mask_to_KV_max<(int)4>", {"tile_cols": 4}),
        ("lightning_indexer_kernel_vec<4, 2, (long)128, (long)64, (ggml_type)8>", {"type_k": "Q8_0"}),
        ("rms_norm_f32<(int)1024>(const float *)", {"category": "norm", "family": "rms_norm"}),
        ("rms_norm_f32<(int)1024, (bool)1, (bool)0>", {"fused": ("mul",)}),
        ("rms_norm_f32<1024, true, true>", {"fused": ("mul", "add")}),
        ("rms_norm_f32<1024, true, true, true>", {"fused": ("mul", "add", "scale")}),
        ("rms_norm_f32<(int)256, (bool)1>", {"fused": ("mul",)}),
        ("rms_norm_mul_rope_f32<(int)256, (bool)0, __half>", {"category": "rope", "fused": ("rms_norm", "mul")}),
        ("l2_norm_f32<(int)32>", {"category": "norm", "family": "norm", "op": "l2_norm"}),
        ("rope_neox<(bool)1, (bool)0, float, __half>", {"family": "rope", "op": "f32_f16"}),
        ("rope_multi<(bool)1, (bool)0, float>", {"category": "rope", "family": "rope"}),
        ("k_bin_bcast<&op_mul, float, float, float>", {"family": "k_bin_bcast", "op": "mul"}),
        (
            "k_bin_bcast<&(op_add(float, float)), float, float, float, float const*, float const*>",
            {"op": "add", "fused": ("add",)},
        ),
        ("unary_gated_op_kernel<&op_silu, float>", {"category": "activation", "family": "glu", "op": "silu"}),
        ("unary_op_kernel<&op_sigmoid, float>", {"category": "activation", "family": "unary", "op": "sigmoid"}),
        ("swiglu_oai_kernel<float>", {"family": "glu", "op": "swiglu_oai"}),
        ("gelu_quick_f32", {"family": "unary", "op": "gelu_quick"}),
        ("quantize_q8_1(const float *)", {"category": "quantize_act", "family": "quantize_q8_1", "quant": "Q8_1"}),
        ("quantize_mmq_q8_1<(mmq_q8_1_ds_layout)0, false>", {"family": "quantize_mmq", "quant": "Q8_1"}),
        ("dequantize_block<(int)32, (int)1, &dequantize_q8_0, __half>", {"category": "dequantize", "quant": "Q8_0"}),
        ("dequantize_block_q4_K<__half>", {"family": "dequantize_block", "quant": "Q4_K"}),
        ("dequantize_block_q8_0_f16<(bool)1>", {"family": "dequantize_block", "quant": "Q8_0"}),
        ("dequantize_block_iq2_xxs<__half>", {"quant": "IQ2_XXS"}),
        ("convert_unary<__half, float>", {"category": "dequantize", "family": "convert_unary", "op": "f16_f32"}),
        ("k_set_rows<float, long, __half>", {"category": "kv_copy", "family": "set_rows", "op": "f32_f16"}),
        (
            "k_set_rows_quant<long, block_q8_0, (int)32, &quantize_f32_q8_0_block>",
            {"family": "set_rows", "quant": "Q8_0"},
        ),
        ("k_set_rows_quant<block_q4_0, (int)32, &quantize_f32_q4_0_block>", {"family": "set_rows", "quant": "Q4_0"}),
        ("cpy_scalar<&cpy_1_scalar<float, __half>>", {"category": "kv_copy", "family": "cpy", "op": "f32_f16"}),
        ("cpy_scalar_contiguous<float, float>", {"family": "cpy", "op": "f32_f32"}),
        ("cpy_f32_q<&cpy_blck_f32_q8_0, (int)32>", {"op": "f32_q8_0", "quant": "Q8_0"}),
        ("k_get_rows<(int)32, (int)2, &dequantize_q4_0, float>", {"category": "embedding", "quant": "Q4_0"}),
        ("k_get_rows<(int)32, (int)2, &dequantize_q4_0>", {"family": "get_rows", "quant": "Q4_0"}),
        ("k_get_rows_float<__half, float>", {"quant": "F16"}),
        ("k_get_rows_kq<float, &dequantize_q6_K<float>>", {"quant": "Q6_K"}),
        ("ssm_conv_f32<(bool)1, (unsigned long)128, (unsigned long)4>", {"family": "ssm_conv", "fused": ("silu",)}),
        ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<(unsigned long)4096>)", {"category": "comm"}),
        ("void cub::_V_3::detail::topk::DeviceTopKKernel<int>(T1)", {"category": "reduce_sort", "family": "cub"}),
    ],
)
def test_kernels(name, expected):
    found = facts(RULES.classify(None, name))
    # Category and family count where a line names them; of the rest nothing may be missing or added.
    named = {key: found[key] for key in ("category", "family") if key in expected}
    assert named | {key: value for key, value in found.items() if key not in {"category", "family"}} == expected


@pytest.mark.parametrize(
    ("name", "family", "quant"),
    [
        ("ampere_h16816gemm_64x64_ldg8_stages_64x5_tn", "library_gemm", "F16"),
        ("turing_fp16_s1688gemm_fp16_128x128_ldg8_f2f_tn", "library_gemm", "F16"),
        ("ampere_bf16_s16816gemm_bf16_64x64_sliced1x2_ldg8_f2f_tn", "library_gemm", "BF16"),
        ("volta_sgemm_128x64_tn", "library_gemm", "F32"),
        ("ampere_s1688gemm_128x128_ldg8_stages_32x3_tn", "library_gemm", None),
        ("sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize32x32x64_stage6", "library_gemm", "F16"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64", "library_gemm", "BF16"),
        ("nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NNT", "library_gemm", "F16"),
        ("nvjet_sm90_hss_64x8_64x16_1x1_h_bz_splitK_NNT", "library_gemm", "F16"),
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopB_bias_TNN", "library_gemm", "BF16"),
        (
            "void cutlass::Kernel2<cutlass_80_wmma_tensorop_h161616gemm_16x16_128x2_tn_align8>(T1)",
            "library_gemm",
            "F16",
        ),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_bf16_64x64_32x6_nn>(T1)", "library_gemm", "BF16"),
        ("void cutlass::Kernel2<cutlass_80_simt_sgemm_64x64_8x5_tn_align1>(T1)", "library_gemm", "F32"),
        ("void gemv2T_kernel_val<int, int, double, double, double, double, (int)128>(T1)", "library_gemv", None),
        ("void gemvNSP_kernel<__half, __half, __half, float, (int)1>(T1)", "library_gemv", "F16"),
        ("void gemvx::kernel<int, int, __nv_bfloat16, float, (bool)0>(T1)", "library_gemv", "BF16"),
        ("void cublasLt::splitKreduce_kernel<(int)32, (int)16, int, float>(T1)", "library_splitk", None),
    ],
)
def test_library_kernels(name, family, quant):
    info = RULES.classify(None, name)
    assert (info.category, info.family, info.quant) == ("matmul_float", family, quant)


@pytest.mark.parametrize(
    "name",
    [
        "void at::native::vectorized_elementwise_kernel<(int)4, at::native::FillFunctor<float>>(int)",
        "void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<(int)128>, (bool)0>(T1)",
        "void build_GPU2<128, 4>(int*, int*)",
        "cupy_multiply__float64_float64_float64",
        "Kernel2",
        "void mine::kernel<float>(T1)",
        "my_mul_mat_q",
        "mul_mat_q2",
        "",
    ],
)
def test_unknown_kernels_are_other_and_nothing_is_guessed(name):
    assert facts(RULES.classify(None, name)) == {"category": "other", "family": "other"}
    assert RULES.classify(None, name).rule is None


def test_arguments_that_no_layout_fits_are_kept_but_not_decoded():
    info = RULES.classify("mul_mat_vec_q", "void mul_mat_vec_q<MyType, (int)3>(T1)")
    assert facts(info) == {"category": "matmul_quant", "family": "mul_mat_vec_q"}
    assert info.args == ("MyType", "(int)3")


def test_the_short_name_decides_and_either_name_may_be_missing():
    full = "void mul_mat_q<(ggml_type)12, (int)128, (bool)0>(const char *)"
    assert RULES.classify("mul_mat_q", full) == RULES.classify(None, full) == RULES.classify("", full)
    assert RULES.classify("scale_f32", full).family == "elementwise"
    assert facts(RULES.classify("mul_mat_q", None)) == {"category": "matmul_quant", "family": "mul_mat_q"}
    assert RULES.classify(None, None) == KernelInfo("")


def test_explains_itself():
    info = RULES.classify("k_set_rows", None)
    assert (info.name, info.sub, info.rule, info.rule_source) == (
        "k_set_rows",
        "set_rows (KV-cache write)",
        "k_set_rows",
        "built-in",
    )
    assert info.what == "writes new keys and values into the cache"


# --- frames


def test_classify_frame_keeps_rows_and_their_order():
    names = pl.DataFrame(
        {
            "name_id": [8, 3, 5, 9],
            "short_name": ["mul_mat_q", None, None, "mul_mat_q"],
            "name": [
                "mul_mat_q<12, 8, 0>",
                "k_bin_bcast<&op_add, int, int, int, int*, int*>",
                None,
                "mul_mat_q<12, 8, 0>",
            ],
        }
    )
    found = RULES.classify_frame(names)
    assert found.schema == FRAME
    assert found.select("name_id", "family", "quant", "tile_cols", "op", "fused").rows() == [
        (8, "mul_mat_q", "Q4_K", 8, None, None),
        (3, "k_bin_bcast", None, None, "add", "add"),
        (5, "other", None, None, None, None),
        (9, "mul_mat_q", "Q4_K", 8, None, None),
    ]


def test_classify_frame_joins_fused_ops():
    names = pl.DataFrame({"name_id": [1], "short_name": ["rms_norm_f32"], "name": ["rms_norm_f32<8, true, true>"]})
    assert RULES.classify_frame(names).get_column("fused").to_list() == ["mul+add"]


def test_classify_frame_of_nothing():
    nothing = pl.DataFrame(schema={"name_id": pl.Int32, "short_name": pl.String, "name": pl.String})
    found = RULES.classify_frame(nothing)
    assert (found.schema, found.height) == (FRAME, 0)


# --- the catalogue


def test_every_kernel_of_the_catalogue_classifies_as_it_says():
    rows = rows_of(resources.files("nsyskit.ggml").joinpath("kernels.tsv").read_text())
    assert len(rows) == 200
    assert [said(row) for row in rows if said(row) != classified(row["kernel"])] == []


def test_every_kernel_of_the_reference_table_classifies_as_it_says():
    if not REFERENCE.exists():
        pytest.skip(f"{REFERENCE} is not there")
    rows = rows_of(REFERENCE.read_text())
    assert [row["kernel"] for row in rows] == [entry.kernel for entry in catalogue()]
    assert [said(row) for row in rows if said(row) != classified(row["kernel"])] == []


def test_catalogue_entries():
    entries = {entry.kernel: entry for entry in catalogue()}
    newest, legacy = entries["mul_mat_vec_q_moe"], entries["mul_mat_vec"]
    assert (newest.source, newest.in_newest) == ("mmvq.cu", True)
    assert newest.template == "ggml_type type, int c_rows_per_block, bool has_fusion = false"
    assert (legacy.source, legacy.template, legacy.in_newest) == ("", "", False)


def test_built_in_rules_are_complete():
    for rule in RULES.rules:
        assert all([rule.category, rule.family, rule.sub, rule.what]), rule.regex.pattern
        assert [word for layout in rule.args for word in unknown_fields(layout)] == []


def rows_of(text):
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


def said(row):
    return row["kernel"], row["category"], row["sub"]


def classified(kernel):
    info = RULES.classify(kernel, None)
    return kernel, info.category, info.sub


# --- rules of one's own


def load(tmp_path: Path, text: str) -> KernelRules:
    path = tmp_path / "rules.json"
    path.write_text(text, encoding="utf-8")
    return KernelRules.load(path)


def one(**rule: object) -> str:
    return json.dumps({"rules": [{"regex": "my_.*", "category": "mine", **rule}]})


def test_own_rules_come_before_the_built_in_ones(tmp_path):
    rules = load(tmp_path, one(regex="mul_mat_q|my_(?P<op>add)"))
    mine = rules.classify("mul_mat_q", None)
    assert (mine.category, mine.family, mine.sub, mine.what) == ("mine", "mul_mat_q", None, None)
    assert mine.rule_source == str(tmp_path / "rules.json")
    assert rules.classify("my_add", None).op == "add"
    assert rules.classify("mul_mat_vec_q", None).category == "matmul_quant"


def test_an_own_rule_may_say_everything_a_built_in_one_may(tmp_path):
    text = one(
        family="mine_q", sub="fork", what="does it", contains="fork::", fused=["norm"],
        args=["quant batch"], quants=[["half", "F16"]],
    )  # fmt: skip
    rules = load(tmp_path, text)
    info = rules.classify(None, "void fork::my_kernel<half, 3>(T1)")
    assert (info.family, info.sub, info.what, info.fused) == ("mine_q", "fork", "does it", ("norm",))
    assert (info.quant, info.batch) == ("F16", 3)
    assert rules.classify(None, "void my_kernel<half, 3>(T1)").category == "other"


def test_a_quant_that_is_no_known_format_stays_as_spelled(tmp_path):
    rules = load(tmp_path, one(regex="my_(?P<quant>\\w+)"))
    assert [rules.classify(name, None).quant for name in ("my_q4_k", "my_odd")] == ["Q4_K", "odd"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "are not JSON"),
        ("[]", "hold no list 'rules'; write {\"rules\""),
        ('{"rules": {}}', "hold no list 'rules'"),
        ('{"rules": [{"regex": "a", "category": "b"}, 3]}', r"rule 2 of .*rules.json is not an object"),
        ('{"rules": [{"category": "b"}]}', "rule 1 of .* lacks 'regex'; give each rule"),
        ('{"rules": [{"regex": "a"}]}', "lacks 'category'"),
        (one(category=""), "lacks 'category'"),
        (
            one(familly="a"),
            "has a key 'familly'; use only args, category, contains, family, fused, quants, regex, sub, what",
        ),
        (one(regex="my_("), r"rule 1 of .*: 'my_\(' is no regular expression: missing \)"),
        (one(quants=[["(", "F16"]]), r"'\(' is no regular expression"),
        (one(category=3), "'category' is not a text; put it in double quotes"),
        (one(what=["a"]), "'what' is not a text"),
        (one(args="quant"), "'args' is not a list of texts"),
        (one(args=[3]), "'args' is not a list of texts"),
        (one(fused="norm"), "'fused' is not a list of texts"),
        (one(args=["quant badge wedge"]), "'args' has a word 'badge'; see the built-in rules"),
        (one(quants=["F16"]), "'quants' is not a list of pairs"),
        (one(quants={"a": "F16"}), "'quants' is not a list of pairs"),
        (one(quants=[["a"]]), "'quants' is not a list of pairs"),
        (one(quants=[["a", "F16", "b"]]), "'quants' is not a list of pairs"),
    ],
)
def test_a_bad_rule_file_is_one_clear_line(tmp_path, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_missing_rule_file(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read kernel rules .*none\.json: No such file or directory"):
        KernelRules.load(tmp_path / "none.json")


def test_a_rule_file_that_is_not_text(tmp_path):
    path = tmp_path / "rules.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="are not JSON"):
        KernelRules.load(path)
