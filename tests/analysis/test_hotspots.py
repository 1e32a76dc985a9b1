"""Kernel time by what the catalogue knows of the kernels."""

from __future__ import annotations

from tiny_trace import kernel, open_tiny

from nsyskit.analysis.hotspots import category_sum, family_sum, kernel_hotspots, quant_sum

MMVQ = "void mul_mat_vec_q<(ggml_type)12, (int)1, (bool)0, (bool)0>(const void *)"
MMQ = "void mul_mat_q<(ggml_type)12, (int)128, (bool)0>(const char *, const int *)"
ROWS = (
    kernel(MMVQ, 0, 5, short="mul_mat_vec_q"), kernel(MMQ, 5, 8, short="mul_mat_q"), kernel("mystery", 8, 10),
)  # fmt: skip


def test_by_category_family_and_quant(tmp_path):
    trace = open_tiny(tmp_path, *ROWS)
    assert category_sum(trace).rows.rows() == [("matmul_quant", 8, 0.8, 2), ("other", 2, 0.2, 1)]
    assert family_sum(trace).rows.select("family", "total_ns").rows() == [
        ("mul_mat_vec_q", 5), ("mul_mat_q", 3), ("other", 2),
    ]  # fmt: skip
    assert quant_sum(trace).rows.rows() == [("Q4_K", 8, 0.8, 2), ("none", 2, 0.2, 1)]


def test_kernels_carry_their_facts(tmp_path):
    rows = kernel_hotspots(open_tiny(tmp_path, *ROWS)).rows
    assert rows.select("category", "family", "quant", "total_ns").rows() == [
        ("matmul_quant", "mul_mat_vec_q", "Q4_K", 5), ("matmul_quant", "mul_mat_q", "Q4_K", 3),
        ("other", "other", None, 2),
    ]  # fmt: skip


def test_the_catalogue_changes_no_sum(tmp_path):
    trace = open_tiny(tmp_path, *ROWS)
    for result in (category_sum(trace), family_sum(trace), quant_sum(trace)):
        assert (result.rows["total_ns"].sum(), result.rows["count"].sum()) == (10, 3)
