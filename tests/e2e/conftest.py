"""A root with the real nsys 2023.4 and the real llama.cpp, and nsyskit installed into it from a wheel.

``NSYSKIT_E2E_ROOT`` names the root; ``../shared/e2e/make-root DIR`` builds one. Needs the right to chroot.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).parents[2]
NAME = os.environ.get("NSYSKIT_E2E_NAME", "nsyskit-e2e")  # another one, so that two may test in one root
VENV = f"/opt/{NAME}"
WORK = f"/w/{NAME}"


@dataclass(frozen=True)
class Root:
    """The root, seen from outside, and what runs in it."""

    path: Path

    @property
    def work(self) -> Path:
        return self.path / WORK.lstrip("/")

    def start(self, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen:
        line = f"cd {WORK} && exec {shlex.join(words)}"
        environment = {"PATH": f"{VENV}/bin:/usr/bin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"} | (env or {})
        assignments = [f"{name}={value}" for name, value in environment.items()]
        argv = ["chroot", str(self.path), "env", "-i", *assignments, "sh", "-c", line]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *words: str, env: dict[str, str] | None = None, timeout: float = 300) -> "Done":
        process = self.start(*words, env=env)
        out, err = process.communicate(timeout=timeout)
        return Done(process.returncode, out, err)

    def facts(self, folder: str) -> dict[str, Any]:
        return json.loads((self.work / folder / "run.json").read_text())

    def left_running(self) -> list[str]:
        """Command lines of processes inside the root that belong to a capture."""
        deadline = time.monotonic() + 3
        while left := [line for line in self._inside() if "nsys" in line or "llama" in line]:
            if time.monotonic() > deadline:
                return left
            time.sleep(0.1)
        return []

    def _inside(self) -> list[str]:
        lines = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                cwd = str((entry / "cwd").readlink())
                if cwd.startswith(str(self.work)):
                    lines.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return [line for line in lines if line]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """The root with nsyskit and a tiny model in it."""
    named = os.environ.get("NSYSKIT_E2E_ROOT")
    if not named:
        pytest.skip("NSYSKIT_E2E_ROOT names no root with nsys 2023.4 and llama.cpp")
    path = Path(named)
    if not (path / "usr/bin/llama-server").exists() or os.geteuid() != 0:
        pytest.skip(f"{path} is no such root, or this user may not chroot")
    root = Root(path)
    shutil.rmtree(root.work, ignore_errors=True)
    root.work.mkdir(parents=True)
    install(root, tmp_path_factory.mktemp("wheel"))
    sys.path.insert(0, str(REPO / "tests"))
    from tiny_gguf import write_tiny_gguf

    write_tiny_gguf(root.work / "tiny.gguf", layers=4, width=256)
    return root


def install(root: Root, folder: Path) -> None:
    """Build the wheel and install it, without development dependencies."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, REPO], check=True, capture_output=True
    )
    wheel = next(folder.glob("nsyskit-*.whl"))
    shutil.copy(wheel, root.work)
    shutil.rmtree(root.path / VENV.lstrip("/"), ignore_errors=True)
    for words in (
        ["python3", "-m", "venv", VENV],
        [f"{VENV}/bin/pip", "install", "-q", f"{WORK}/{wheel.name}[capture]"],
    ):
        done = root.run(*words, timeout=600)
        assert done.code == 0, done.err


@pytest.fixture(autouse=True)
def nothing_left(request):
    """After each test nothing runs in the root any more."""
    yield
    if "root" in request.fixturenames:
        assert request.getfixturevalue("root").left_running() == []


def interrupt(process: subprocess.Popen, until: str, *, number: int = signal.SIGINT, after: float = 0.0) -> str:
    """Signal nsyskit once its stderr says something; ``chroot``, ``env`` and ``sh`` have all become nsyskit by then."""
    said = ""
    while until not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    time.sleep(after)
    process.send_signal(number)
    return said
