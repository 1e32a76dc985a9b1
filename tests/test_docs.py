"""The documentation is run: transcripts, Python blocks, options, twins, examples."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import nsyskit
from nsyskit.cli import COMMANDS, cli

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = 34  # lines of a long output; the rest is an ellipsis
WIDTH = "80"


def blocks(kind: str) -> list[str]:
    return [body for found, body in BLOCK.findall(README.read_text()) if found == kind]


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder in which the documented commands find the samples and may leave files."""
    (tmp_path / "traces").symlink_to(ROOT / "traces")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", WIDTH)
    return tmp_path


def recipe(target: str) -> list[str]:
    """The commands of nsyskit that a target of the Makefile runs."""
    body = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    return [line.strip().removeprefix("$(BIN)/") for line in body.splitlines() if "/nsyskit " in line]


def output_of(command: str) -> str:
    """What a documented command prints, cut where it is long."""
    lines: list[str] = []
    for line in recipe(command.removeprefix("make ")) if command.startswith("make ") else [command]:
        program, *arguments = shlex.split(line)
        assert program == "nsyskit"
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        lines += [text.rstrip() for text in result.output.rstrip("\n").splitlines()]
    return "\n".join(lines if len(lines) <= SHOWN else [*lines[:SHOWN], "…"]) + "\n"


def rendered(block: str) -> str:
    """A transcript block as it ought to be."""
    commands = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    return "\n".join(f"$ {command}\n{output_of(command)}" for command in commands)


def test_transcripts(checkout, request):
    text = README.read_text()
    fresh = BLOCK.sub(
        lambda found: f"```{found[1]}\n{rendered(found[2])}```" if found[1] == "console" else found[0], text
    )
    if request.config.getoption("--refresh"):
        README.write_text(fresh)
    assert fresh == text, "run: pytest tests/test_docs.py --refresh"


@pytest.mark.parametrize("block", blocks("python"))
def test_python(checkout, block):
    exec(compile(block, "README.md", "exec"), {})  # noqa: S102 - the documentation's own code


@pytest.mark.parametrize(
    "line", [line for block in blocks("sh") for line in block.splitlines() if line.startswith("nsyskit ")]
)
def test_options_of_shell_blocks_exist(line):
    """What cannot run here must at least be spelled right."""
    name, *arguments = shlex.split(line, comments=True)[1:]
    command = cli.get_command(None, name)
    known = {option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts}
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    assert not [argument for argument in own if argument.startswith("-") and argument not in known]


def test_every_command_is_in_the_table_with_its_twin():
    table = dict(re.findall(r"^\| `nsyskit (\w+)[^`]*` \|[^|]*\|(.*)\|$", README.read_text(), re.MULTILINE))
    assert set(table) == set(COMMANDS)
    for twins in table.values():
        found = re.findall(r"nsyskit((?:\.\w+)+)", twins)
        assert found
        for dotted in found:
            assert resolved(dotted.strip(".").split(".")) is not None


def resolved(names: list[str]) -> object:
    """The object behind ``nsyskit.a.b.c``."""
    for cut in range(len(names), -1, -1):
        try:
            value: object = importlib.import_module(".".join(["nsyskit", *names[:cut]]))
        except ModuleNotFoundError:
            continue
        for name in names[cut:]:
            value = getattr(value, name)
        return value
    return None


def test_exit_codes_are_those_of_the_errors():
    listed = {int(code) for code in re.findall(r"^\| (\d) \|", README.read_text(), re.MULTILINE)}
    family, codes = [nsyskit.NsyskitError], {0, 1}
    while family:
        error = family.pop()
        codes.add(error.exit_code)
        family += error.__subclasses__()
    assert listed == codes


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples(example):
    trace = ROOT / "traces" / "demo" / "trace.sqlite"
    done = subprocess.run([sys.executable, str(example), str(trace)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    expected = {
        "decode_cost": r"^\d+ tokens in \d+ steps: \d\.\d+ ms per token \(median\)\n(\w+ +[\d.]+ µs\n)+$",
        "figures": r"^(\w+ +\d+ traces\n)+$",
        "was_it_waiting": r"trace.sqlite: [\d.]+ % of API time in waiting calls; the GPU was busy in [\d.]+ % of it\n$",
    }
    assert re.search(expected[example.stem], done.stdout)


def test_the_packages_own_example(checkout):
    """The docstring of the package, on the sample."""
    lines = re.findall(r"^>>> (.*)$", nsyskit.__doc__, re.MULTILINE)
    code = "\n".join(lines).replace("trace.sqlite", "traces/demo/trace.sqlite")
    exec(code, {})  # noqa: S102 - the documentation's own code


def test_the_changelog_names_the_version():
    assert f"\n## {nsyskit.__version__}" in (ROOT / "CHANGELOG.md").read_text()
