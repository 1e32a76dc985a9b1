"""Kernel names taken apart, and what their template arguments say, in the spellings of nsys and of other tools."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nsyskit.ggml.decode import Facts, KernelName, decode, format_of, parse_name, unknown_fields
from nsyskit.ggml.quants import BITS, TYPES, bits_per_weight, type_name


@pytest.mark.parametrize(
    ("name", "short", "args"),
    [
        ("scale_f32(const float *, float *, float, int)", "scale_f32", ()),
        ("scale_f32", "scale_f32", ()),
        ("nvjet_tst_192x192_64x4_2x1_v_bz_TNN", "nvjet_tst_192x192_64x4_2x1_v_bz_TNN", ()),
        ("void mul_mat_q<(ggml_type)12, (int)128>(const char *)", "mul_mat_q", ("(ggml_type)12", "(int)128")),
        ("void mul_mat_q<8,128>", "mul_mat_q", ("8", "128")),
        ("void f<&(op_mul(float, float)), float>(float const*)", "f", ("&(op_mul(float, float))", "float")),
        ("void f<&g<float, __half>, 3>(int)", "f", ("&g<float, __half>", "3")),
        ("void cub::_V_300::detail::DeviceTopKKernel<int>(T1)", "DeviceTopKKernel", ("int",)),
        ("void at::native::<unnamed>::norm_kernel<float>(int)", "norm_kernel", ("float",)),
        ("void (anonymous namespace)::norm_kernel(int)", "norm_kernel", ()),
        ("std::enable_if<true, void>::type ns::f<int>(T1)", "f", ("int",)),
        ("void ns<int>::f(int)", "f", ()),
        ("void f<3>(const std::array<int, 4> &)", "f", ("3",)),
        (
            "void f<a(int)::[lambda(int, int) (instance 1)], 5>(R, T1)",
            "f",
            ("a(int)::[lambda(int, int) (instance 1)]", "5"),
        ),
        ("void f<std::array<int, 4>, {1, 2}>", "f", ("std::array<int, 4>", "{1, 2}")),
        ("void mul_mat_vec_q<(ggml_type)12, (int)1, (bo…", "mul_mat_vec_q", ("(ggml_type)12", "(int)1")),
        ("void mul_mat_vec_q<(ggml", "mul_mat_vec_q", ()),
        ("mul_mat_vec_q<(ggml_type)12, (int)1, (bo…", "mul_mat_vec_q", ("(ggml_type)12", "(int)1")),
        ("", "", ()),
        ("void ", "void", ()),
    ],
)
def test_parse_name(name, short, args):
    assert parse_name(name) == KernelName(short, args)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("(ggml_type)12", "Q4_K"),
        ("12", "Q4_K"),
        ("GGML_TYPE_IQ4_XS", "IQ4_XS"),
        ("ggml_type::GGML_TYPE_Q8_0", "Q8_0"),
        ("(ggml_type)42", "ggml_type_42"),
        ("(ggml_type)0", "F32"),
        ("42", None),
        ("half", "F16"),
        ("__half", "F16"),
        ("__half2", "F16"),
        ("nv_bfloat16", "BF16"),
        ("__nv_bfloat16", "BF16"),
        ("const float *", "F32"),
        ("float", "F32"),
        ("block_q4_K", "Q4_K"),
        ("&dequantize_q4_0", "Q4_0"),
        ("&(dequantize_iq2_xxs(void const*, long))", "IQ2_XXS"),
        ("&vec_dot_q6_K_q8_1", "Q6_K"),
        ("block_mxfp4", "MXFP4"),
        ("bf16", "BF16"),
        ("(int)12", None),
        ("(bool)1", None),
        ("true", None),
        ("&op_mul", None),
        ("xq4_0", None),
        ("q4_01", None),
    ],
)
def test_format_of(text, name):
    assert format_of(text) == name


def test_format_names_and_sizes():
    assert [type_name(number) for number in (0, 1, 2, 8, 12, 14, 30, 39)] == [
        "F32", "F16", "Q4_0", "Q8_0", "Q4_K", "Q6_K", "BF16", "MXFP4",
    ]  # fmt: skip
    assert type_name(4) == "ggml_type_4"
    assert (bits_per_weight("Q4_K"), bits_per_weight("Q6_K"), bits_per_weight("ggml_type_4")) == (4.5, 6.5625, None)
    assert len(BITS) == len(TYPES)


@pytest.mark.parametrize(
    ("bytes_", "weights", "name"),
    # Bytes of a block and the weights in it, from ggml's block structures.
    [
        (18, 32, "Q4_0"), (20, 32, "Q4_1"), (22, 32, "Q5_0"), (24, 32, "Q5_1"), (34, 32, "Q8_0"), (36, 32, "Q8_1"),
        (84, 256, "Q2_K"), (110, 256, "Q3_K"), (144, 256, "Q4_K"), (176, 256, "Q5_K"), (210, 256, "Q6_K"),
        (292, 256, "Q8_K"), (66, 256, "IQ2_XXS"), (74, 256, "IQ2_XS"), (98, 256, "IQ3_XXS"), (50, 256, "IQ1_S"),
        (18, 32, "IQ4_NL"), (110, 256, "IQ3_S"), (82, 256, "IQ2_S"), (136, 256, "IQ4_XS"), (56, 256, "IQ1_M"),
        (54, 256, "TQ1_0"), (66, 256, "TQ2_0"), (17, 32, "MXFP4"), (36, 64, "NVFP4"), (4, 1, "F32"), (2, 1, "F16"),
        (2, 1, "BF16"), (8, 1, "F64"), (1, 1, "I8"), (2, 1, "I16"), (4, 1, "I32"), (8, 1, "I64"),
    ],
)  # fmt: skip
def test_bits_per_weight_follow_from_the_block(bytes_, weights, name):
    assert bits_per_weight(name) == bytes_ * 8 / weights


# --- layouts


def test_the_first_layout_that_fits_wins():
    layouts = [("batch", "int"), ("int", "tile_cols"), ("int", "batch")]
    assert decode(["3", "5"], layouts) == Facts(batch=3)
    assert decode(["3", "5"], layouts[1:]) == Facts(tile_cols=5)


@pytest.mark.parametrize(
    ("layout", "args", "fits"),
    [
        ("int", ["(int)3"], True),
        ("int", ["(unsigned long)3"], True),
        ("int", ["3ul"], True),
        ("int", ["-3"], True),
        ("int", ["(bool)1"], False),
        ("int", ["true"], False),
        ("bool", ["(bool)0"], True),
        ("bool", ["false"], True),
        ("bool", ["1"], True),
        ("bool", ["2"], False),
        ("bool", ["(int)1"], False),
        ("true", ["(bool)1"], True),
        ("true", ["true"], True),
        ("true", ["false"], False),
        ("false", ["(bool)0"], True),
        ("false", ["(bool)1"], False),
        ("type", ["const float *"], True),
        ("type", ["unsigned int"], True),
        ("type", ["ns::T"], True),
        ("type", ["true"], False),
        ("type", ["3"], False),
        ("type", ["&op_mul"], False),
        ("op", ["&op_mul"], True),
        ("op", ["(int)3"], False),
        ("op", ["true"], False),
        ("op", ["3"], False),
        ("convert", ["&other_f32_f16"], False),
        ("-", ["anything at all"], True),
        ("int", [], False),
        ("int", ["3", "5"], False),
        ("int ...", ["3"], True),
        ("int ...", ["3", "5", "float"], True),
        ("int ...", [], False),
        ("op operands", ["&op_add", "x", "y"], True),
        ("...", [], True),
    ],
)
def test_a_layout_fits_by_count_and_kind(layout, args, fits):
    assert decode(["7", *args], [("head_v", *layout.split())]).head_v == (7 if fits else None)


@pytest.mark.parametrize(
    ("layout", "args", "facts"),
    [
        ("head", ["128"], Facts(head_k=128, head_v=128)),
        ("cols", ["2"], Facts(batch=2, tile_cols=2)),
        ("fused:mul fused:add", ["(bool)1", "(bool)0"], Facts(fused=("mul",))),
        ("fused:mul fused:add", ["true", "true"], Facts(fused=("mul", "add"))),
        ("src dst", ["float", "__half"], Facts(op="f32_f16")),
        ("src dst", ["float", "block_q8_0"], Facts(op="f32_q8_0", quant="Q8_0")),
        ("src", ["float"], Facts()),
        ("type_k type_v", ["(ggml_type)8", "(ggml_type)1"], Facts(type_k="Q8_0", type_v="F16")),
        ("tile_cols tile_heads", ["8", "4"], Facts(tile_cols=8, tile_heads=4)),
        ("op", ["&op_mul"], Facts(op="mul")),
        ("op", ["&(op_mul(float, float))"], Facts(op="mul")),
        ("op", ["op_add"], Facts(op="add")),
        ("op", ["&ns::op_gelu_quick"], Facts(op="gelu_quick")),
        ("op", ["&ggml_cuda_op_silu_single"], Facts(op="silu")),
        ("op operands", ["&op_add"], Facts(op="add")),
        ("op operands", ["&op_add", "const float *"], Facts(op="add")),
        ("op operands", ["&op_add", "const float *", "const float *", "float"], Facts(op="add", fused=("add", "add"))),
        ("convert", ["&cpy_1_f32_f16"], Facts(op="f32_f16")),
        ("convert", ["&cpy_1_scalar<float, __half>"], Facts(op="f32_f16")),
        ("convert", ["&(cpy_1_f32_f16(char const*, char*))"], Facts(op="f32_f16")),
        ("convert", ["&cpy_blck_f32_q8_0"], Facts(op="f32_q8_0", quant="Q8_0")),
        ("convert", ["&cpy_blck_q8_0_f32"], Facts(op="q8_0_f32", quant="Q8_0")),
        ("convert", ["&cpy_blck_q_f32<&dequantize_q4_0, (int)32>"], Facts(op="q4_0_f32", quant="Q4_0")),
        ("convert", ["&cpy_1_scalar<float, MyType>"], Facts()),
        ("convert", ["&cpy_1_f32"], Facts()),
        ("convert", ["&cpy_f32_f16_q8_0"], Facts()),
        ("src dst", ["block_q4_0", "block_q8_0"], Facts(op="q4_0_q8_0", quant="Q4_0")),
    ],
)
def test_fields(layout, args, facts):
    assert decode(args, [tuple(layout.split())]) == facts


def test_nothing_fits_nothing_is_decoded():
    assert decode(["float"], [("int",), ("bool",)]) == Facts()
    assert decode([], []) == Facts()


def test_unknown_fields():
    assert unknown_fields(("quant", "fused:x", "tile_cols", "...")) == []
    assert unknown_fields(("quant", "operands")) == []
    assert unknown_fields(("quant", "what", "int")) == ["what"]
    assert unknown_fields(("...", "int")) == ["..."]
    assert unknown_fields(()) == [""]


TRACES = Path(__file__).parents[2] / "shared" / "traces"


@pytest.mark.parametrize(
    ("trace", "count"), [("a100-cloverleaf", 102), ("h100x2-train", 27), ("t4-power-iteration", 10)]
)
def test_derived_base_names_are_those_that_nsys_stores(trace, count):
    path = TRACES / trace / "trace.sqlite"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        names = db.execute(
            "SELECT DISTINCT f.value, s.value FROM CUPTI_ACTIVITY_KIND_KERNEL"
            " JOIN StringIds f ON f.id = demangledName JOIN StringIds s ON s.id = shortName"
        ).fetchall()
    assert len(names) == count
    assert [full for full, short in names if parse_name(full).short != short] == []
