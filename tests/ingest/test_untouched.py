"""The input is never changed, and nothing appears beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_trace import api, kernel, write_parquet, write_sqlite

from nsyskit.cli import cli

ROWS = [api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 5, 8, corr=1)]
COMMANDS = [
    ["info"], ["analyze"], ["analyze", "--format", "json"], ["analyze", "--format", "csv", "-a", "sums"],
]  # fmt: skip


def state(path: Path) -> dict[str, tuple[str, int]]:
    """Hash and modification time of a file and of everything in its folder."""
    return {
        str(file): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in path.parent.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("write", [write_sqlite, write_parquet])
def test_a_tiny_trace(tmp_path, command, write):
    path = write(tmp_path / "trace.sqlite", *ROWS)
    before = state(path)
    assert CliRunner().invoke(cli, [command[0], str(path), *command[1:]]).exit_code == 0
    assert state(path) == before


def test_a_real_trace(real_trace, tmp_path):
    path = tmp_path / "trace.sqlite"
    path.write_bytes(real_trace.read_bytes())
    before = state(path)
    assert CliRunner().invoke(cli, ["analyze", str(path)]).exit_code == 0
    assert state(path) == before


def test_a_write_protected_trace_in_a_write_protected_folder(tmp_path):
    folder = tmp_path / "readonly"
    folder.mkdir()
    path = write_sqlite(folder / "trace.sqlite", *ROWS)
    path.chmod(0o400)
    folder.chmod(0o500)
    try:
        assert CliRunner().invoke(cli, ["analyze", str(path)]).exit_code == 0
    finally:
        folder.chmod(0o700)


def test_an_output_never_replaces_its_input(tmp_path):
    path = write_sqlite(tmp_path / "trace.sqlite", *ROWS)
    before = state(path)
    for option in ("-o", "--html"):
        result = CliRunner().invoke(cli, ["analyze", str(path), option, str(path), "--force"])
        assert result.exit_code == 6
        assert result.stderr == f"nsyskit: {path} is the input itself; choose another name\n"
    assert state(path) == before
