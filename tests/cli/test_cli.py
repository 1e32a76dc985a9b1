"""The command line as a whole: help, exit codes, what an import costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import nsyskit
from nsyskit import errors
from nsyskit.cli import COMMANDS, cli, main

HEAVY = (
    "polars", "plotly", "plotly.graph_objs", "rich", "httpx", "adbc_driver_sqlite", "numpy", "pyarrow", "sqlite_utils",
)  # fmt: skip
DEMO = Path(__file__).resolve().parents[2] / "traces" / "demo" / "trace.sqlite"


RUN = """
from click.testing import CliRunner
from nsyskit.cli import cli
assert CliRunner().invoke(cli, "{}".split(), catch_exceptions=False).exit_code == 0
"""


def imported(code: str) -> set[str]:
    """Which heavy packages a program has imported at its end."""
    report = f"import sys\n{code}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True).stdout
    return set(eval(said.splitlines()[-1]))  # noqa: S307 - the list that the line above printed


@pytest.mark.parametrize(
    "code",
    [
        "import nsyskit",
        "import nsyskit.cli",
        RUN.format("--help"),
        *(RUN.format(f"{name} --help") for name in sorted(COMMANDS)),
    ],
)
def test_help_imports_nothing_heavy(code):
    assert imported(code) == set()


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("analyze", {"rich"}),
        ("analyze --format json", set()),
        ("report --plotly directory -o {}", {"plotly"}),  # its script, not its classes
    ],
)
def test_a_command_imports_what_it_shows_with(words, needed, tmp_path):
    code = RUN.format(f"{words.format(tmp_path / 'page.html')} {DEMO}")
    assert imported(code) == {"polars", "adbc_driver_sqlite"} | needed


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(name):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: cli {name} ")
    assert "Example" in result.stdout
    assert f"nsyskit {name} " in result.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_explained(name):
    """By its help, or by the choices it lists."""
    command = cli.get_command(None, name)
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert not [option.opts for option in options if not option.help and not isinstance(option.type, click.Choice)]


def test_the_overview_lists_every_command():
    said = CliRunner().invoke(cli, ["--help"]).stdout
    assert not [name for name in COMMANDS if f"\n  {name} " not in said]


def test_an_unknown_command():
    result = CliRunner().invoke(cli, ["analyse"])
    assert result.exit_code == 2
    assert "No such command 'analyse'" in result.stderr


def test_version():
    assert CliRunner().invoke(cli, ["--version"]).stdout == f"nsyskit, version {nsyskit.__version__}\n"
    assert subprocess.run(
        [sys.executable, "-m", "nsyskit", "--version"], capture_output=True, text=True, check=True
    ).stdout.endswith(f"{nsyskit.__version__}\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError, 2), (errors.TraceFormatError, 3), (errors.NsysError, 5), (errors.OutputError, 6),
        (errors.CaptureError, 7),
    ],
)  # fmt: skip
def test_exit_codes(monkeypatch, error, code):
    """One line on stderr, the exit code of the class."""

    @click.command()
    def broken() -> None:
        raise error("it is\nbroken", hint="mend it")

    monkeypatch.setattr(type(cli), "get_command", lambda *_: broken)
    result = CliRunner().invoke(cli, ["info"])
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", "nsyskit: it is broken; mend it\n")


def test_a_missing_table_says_what_and_how():
    error = errors.MissingTableError("CUDA kernels", hint="capture with --trace=cuda")
    assert (error.exit_code, error.what) == (4, "CUDA kernels")
    assert str(error) == "this trace holds no CUDA kernels; capture with --trace=cuda"


def test_a_bug_keeps_its_traceback(monkeypatch):
    @click.command()
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(cli), "get_command", lambda *_: broken)
    assert isinstance(CliRunner().invoke(cli, ["info"]).exception, ZeroDivisionError)


def test_a_closed_pipe_ends_quietly(monkeypatch):
    def gone() -> None:
        raise BrokenPipeError

    monkeypatch.setattr("nsyskit.cli.cli", gone)
    monkeypatch.setattr("sys.stderr", open("/dev/null", "w"))  # noqa: SIM115, PTH123 - main closes it
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1


def test_the_package_offers_its_library_twins():
    assert all(getattr(nsyskit, name) is not None for name in nsyskit.__all__)
    with pytest.raises(AttributeError):
        _ = nsyskit.nothing
