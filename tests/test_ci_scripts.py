"""The scripts of the checks can fail: at a licence off the list, a bound that cannot be read, answers that differ."""

import importlib.util
import tomllib
from email.message import Message
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script(name):
    spec = importlib.util.spec_from_file_location(f"ci_{name}", ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


licences, lowest, same = script("licences"), script("lowest"), script("same")


class Fake:
    """A distribution by its metadata alone."""

    def __init__(self, name, *, needs=(), **facts: str) -> None:
        self.metadata = Message()
        self.metadata["Name"] = name
        for key, value in facts.items():
            self.metadata[key.replace("_", "-")] = value
        self.requires = list(needs)
        self.version = "1"


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ("MIT", True), ("BSD-3-Clause AND MIT AND Zlib", True), ("Apache License, Version 2.0", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True), ("Apache-2.0 OR BSD-2-Clause", True), ("Public Domain", True),
        ("", False), ("UNKNOWN", False), ("GPL-3.0-only", False), ("GNU Lesser General Public License (LGPL)", False),
        ("MIT AND GPL-2.0", False), ("MIT AND Custom", False), ("AGPL-3.0", False), ("NVIDIA Proprietary", False),
    ],
)  # fmt: skip
def test_licences(said, allowed):
    assert licences.is_allowed(said) is allowed


def test_a_licence_deep_below_is_found(monkeypatch, capsys):
    there = {
        "top": Fake("top", needs=["middle[fast]>=1", "elsewhere; sys_platform == 'other'"], License_Expression="MIT"),
        "middle": Fake("middle", needs=["deep; extra == 'fast'", "top"], Classifier="License :: MIT License"),
        "deep": Fake("deep", License="GPL-3.0"),
    }
    found = list(licences.closure("top", [], there.__getitem__))
    assert [one.metadata["Name"] for one in found] == ["top", "middle", "deep"]
    monkeypatch.setattr(licences, "closure", lambda *_: found)
    assert licences.main(["top"]) == 1
    assert "not on the list of licences: deep;" in capsys.readouterr().out
    monkeypatch.setattr(licences, "closure", lambda *_: found[:2])
    assert licences.main(["top"]) == 0


def test_what_an_install_brings_here():
    try:
        assert licences.main(["nsyskit"]) == 0
    except PackageNotFoundError as error:
        pytest.skip(f"not installed: {error}")


def test_lowest_versions():
    project = {
        "dependencies": ["polars>=1.34", "click>=8.1"],
        "optional-dependencies": {"a": ["dask >= 2024.8", "polars>=2"], "b": ["numpy"]},
    }
    assert lowest.constraints(project) == ["click==8.1", "dask==2024.8", "polars==1.34"]
    with pytest.raises(ValueError, match=r"cannot read 'click<9'"):
        lowest.constraints({"dependencies": ["click<9"]})
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(lowest.constraints(own)) >= len(own["dependencies"])


def test_every_dependency_is_explained():
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    words = [*own["dependencies"], *(word for extra in own["optional-dependencies"].values() for word in extra)]
    rows = [line for line in (ROOT / "docs" / "dependencies.md").read_text().splitlines() if line.startswith("| ")]
    explained = {name.strip() for row in rows for name in row.split("|")[1].split("(")[0].split(",")}
    assert {word.split(">")[0] for word in words} == explained - {"package"}


def test_documents_that_differ():
    assert same.differences({"a": [1, 0.1 + 0.2]}, {"a": [1, 0.3]}) == []
    assert same.differences({"a": [1]}, {"a": [2]}) == [".a[0]: 1 != 2"]
    assert same.differences({"a": 1}, {"b": 1}) == [".a: 1 != None", ".b: None != 1"]
    assert same.differences([1], [1, 2])
    assert same.differences(1, 1.0)
    assert same.differences(0.1, 0.1000001)
