"""`nsyskit kernels`: one kernel explained, the catalogue listed, a user's rules first."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from nsyskit.cli.kernels import command
from nsyskit.errors import UsageError

MMQ = "void mul_mat_q<(ggml_type)12, (int)128, (bool)0>(const char *, const int *)"


def run(*args: str) -> str:
    result = CliRunner().invoke(command, args, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_explains_a_kernel():
    assert run(MMQ) == (
        "mul_mat_q\n"
        "  category   matmul_quant: mmq (prefill/batched)\n"
        "  family     mul_mat_q\n"
        "  does       quantised weights times many columns of 8-bit activations: prompts and batches above 8\n"
        "  quant      Q4_K, 4.5 bits per weight\n"
        "  tile       128 columns\n"
        "  arguments  (ggml_type)12, (int)128, (bool)0\n"
        "  rule       mul_mat_q (built-in)\n"
    )


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("mul_mat_vec_q<(ggml_type)12, (int)1, (bool)1>", ["batch      1 column", "fused      glu_or_bias"]),
        ("mul_mat_vec_q<(ggml_type)42, (int)2>", ["quant      ggml_type_42", "batch      2 columns"]),
        (
            "flash_attn_ext_f16<576, 512, 4, 16, false, false, false>",
            ["tile       4 columns × 16 heads", "heads      576 keys, 512 values"],
        ),
        (
            "flash_attn_ext_vec<128, 1, (ggml_type)8, (ggml_type)1, false>",
            ["tile       1 column", "KV cache   Q8_0 keys, F16 values"],
        ),
        ("k_bin_bcast<&op_mul, float, float, float>", ["op         mul"]),
        ("flash_attn_combine_results<(int)128>", ["heads      ? keys, 128 values"]),
    ],
)
def test_prints_what_the_name_tells(name, lines):
    printed = [line.strip() for line in run(name).splitlines()]
    assert [line for line in lines if line not in printed] == []


def test_says_that_no_rule_matches():
    assert run("my_kernel") == (
        "my_kernel\n  category  other\n  rule      none matches; add your own with --kernel-rules FILE\n"
    )


def test_json_holds_every_fact():
    document = json.loads(run(MMQ, "--format", "json"))
    assert document == {
        "schema": "nsyskit.kernel/1",
        "name": "mul_mat_q",
        "category": "matmul_quant",
        "family": "mul_mat_q",
        "sub": "mmq (prefill/batched)",
        "what": "quantised weights times many columns of 8-bit activations: prompts and batches above 8",
        "quant": "Q4_K",
        "batch": None,
        "tile_cols": 128,
        "tile_heads": None,
        "head_k": None,
        "head_v": None,
        "type_k": None,
        "type_v": None,
        "op": None,
        "fused": [],
        "args": ["(ggml_type)12", "(int)128", "(bool)0"],
        "rule": "mul_mat_q",
        "rule_source": "built-in",
        "bits_per_weight": 4.5,
    }
    assert json.loads(run("my_kernel", "--format", "json"))["bits_per_weight"] is None


def test_lists_the_catalogue():
    lines = run("--list").splitlines()
    assert len(lines) == 201
    assert lines[0].split() == ["kernel", "category", "family"]
    assert lines[1].split() == ["acc_f32", "elementwise", "elementwise"]
    assert "mul_mat_vec                        matmul_float     mul_mat_vec_f             older versions" in lines


def test_lists_as_json():
    kernels = json.loads(run("--list", "--format", "json"))["kernels"]
    assert len(kernels) == 200
    assert kernels[0] == {
        "kernel": "acc_f32",
        "source": "acc.cu",
        "template": "",
        "in_newest": True,
        "category": "elementwise",
        "family": "elementwise",
        "sub": "elementwise",
        "what": "small arithmetic on each element",
    }


def test_own_rules_come_first(tmp_path):
    rules = tmp_path / "mine.json"
    rules.write_text('{"rules": [{"regex": "my_.*|acc_f32", "category": "mine"}]}')
    assert "category   mine" not in run(MMQ, "--kernel-rules", str(rules))
    assert run("my_kernel", "--kernel-rules", str(rules)) == (
        f"my_kernel\n  category  mine\n  family    my_kernel\n  rule      my_.*|acc_f32 ({rules})\n"
    )
    assert run("--list", "--kernel-rules", str(rules)).splitlines()[1].split() == ["acc_f32", "mine", "acc_f32"]


@pytest.mark.parametrize("args", [[], ["mul_mat_q", "--list"]])
def test_wants_a_name_or_the_list(args):
    with pytest.raises(UsageError, match="a kernel's name or --list"):
        CliRunner().invoke(command, args, catch_exceptions=False)


def test_help_has_examples_and_needs_no_polars():
    assert "nsyskit kernels --list" in run("--help")
    code = "import sys, nsyskit.cli.kernels; sys.exit('polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
