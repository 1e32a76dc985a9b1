"""Nothing of a fleet's output names a host, a home or a key of its traces."""

from __future__ import annotations

import polars as pl
from click.testing import CliRunner
from planted_secrets import PLANTED, plant
from test_discreet_outputs import BY_NATURE, found, with_secrets

from nsyskit.cli import cli


def test_no_file_holds_a_secret(tmp_path):
    folder = tmp_path / "in" / "gpubox17"
    folder.mkdir(parents=True)
    with_secrets(folder / "a.sqlite")
    plant(folder / "gpubox17.corp.example.com_rank0.sqlite")
    (folder / "gpubox17-broken.sqlite").write_text("no trace")
    result = CliRunner().invoke(cli, ["fleet", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--workers", "1"])
    assert result.exit_code == 0, result.output
    said = [result.output.encode()]
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            said += [str(file).removeprefix(str(tmp_path)).encode(), file.read_bytes()]
        if file.suffix == ".parquet":
            said.append(str(pl.read_parquet(file).to_dicts()).encode())
    for content in said:
        assert found(content) == []
        assert b"/home/mallory" not in content
    names = pl.read_parquet(tmp_path / "out" / "traces.parquet")["name"].to_list()
    assert names == ["host-1/a.sqlite", "host-1/host-1_rank0.sqlite"]
    assert pl.read_parquet(tmp_path / "out" / "failed.parquet")["name"].to_list() == ["host-1/host-1-broken.sqlite"]


def test_names_are_shown_when_asked_for(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    plant(folder / "a.sqlite")
    arguments = ["fleet", str(folder), "-o", str(tmp_path / "out"), "--host-names", "--scheduler", "local"]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    assert pl.read_parquet(tmp_path / "out" / "traces.parquet")["host"].to_list() == ["gpubox17.corp.example.com"]
    other = (PLANTED - BY_NATURE) - {"gpubox17", "corp.example"}
    page = (tmp_path / "out" / "fleet.html").read_bytes()
    assert not [secret for secret in other if secret.encode() in page]
