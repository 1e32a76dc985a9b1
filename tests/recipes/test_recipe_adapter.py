"""What the adapters do with nsys's base class, by a stand-in with the same names; tests/e2e has the real one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from nsyskit.recipes.adapter import Adapter

DEMO = Path(__file__).parents[2] / "traces" / "demo" / "trace.sqlite"


class Base:
    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        self._parsed_args, self._folder = given, folder
        self._output_files: dict[str, str] = {}
        self._analysis_dict: dict[str, object] = {}

    def run(self, _context: object) -> None:
        self._analysis_dict = {"Mode": "none"}

    def get_recipe_name(self) -> str:
        return "llama_gpu_gaps"

    def add_output_file(self, name: str, kind: str) -> Path:
        self._output_files[name] = kind
        return self._folder / name

    def create_analysis_file(self) -> None:
        (self._folder / "facts.json").write_text(json.dumps(self._analysis_dict))


class Gaps(Adapter, Base):
    pass


class Parser(argparse.ArgumentParser):
    def add_recipe_argument(self, option: str, **more: object) -> None:
        self.add_argument(option, **more)


CONTEXT = SimpleNamespace(
    map=lambda function, *lists, **more: [function(*row, **more) for row in zip(*lists, strict=True)],
    wait=lambda told: told,
)


def test_tables_and_facts(tmp_path, capsys):
    inputs = [DEMO, tmp_path / "gone.sqlite"]
    given = Gaps.with_options(Parser(), "--output").parse_args(["--window", "gpu", "--input", *map(str, inputs)])
    given.csv = False
    Gaps(tmp_path, given).run(CONTEXT)
    devices = pl.read_parquet(tmp_path / "devices.parquet")
    assert devices["file"].to_list() == ["trace.sqlite"]
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["InputFiles"] == ["trace.sqlite", "gone.sqlite"]
    assert set(facts["Outputs"]) == {path.name for path in tmp_path.glob("*.parquet")}
    assert capsys.readouterr().err.startswith("nsyskit: gone.sqlite is left out: ")


def test_nothing_to_tell(tmp_path):
    given = Gaps.with_options(Parser()).parse_args(["--input", str(tmp_path / "gone.sqlite")])
    with pytest.raises(SystemExit, match="no trace holds what this recipe is about"):
        Gaps(tmp_path, given).run(CONTEXT)
    assert not list(tmp_path.iterdir())
