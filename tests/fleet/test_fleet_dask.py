"""A cluster: a Dask scheduler and two workers, processes with folders of their own, one of them killed on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from nsyskit.cli import cli
from nsyskit.errors import UsageError
from nsyskit.fleet import schedulers
from nsyskit.fleet.fleet import Options, Progress, run_fleet
from nsyskit.fleet.schedulers import ClusterError, make_scheduler

pytest.importorskip("distributed")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Cluster:
    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    """A scheduler and two workers without nannies: a killed one stays away."""
    with contextlib.ExitStack() as stack:
        address = f"tcp://127.0.0.1:{free_port()}"
        scheduler = started(stack, tmp_path / "scheduler", "scheduler", "--port", address.rpartition(":")[2],
                            "--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")  # fmt: skip
        workers = [
            started(stack, tmp_path / f"worker-{at}", "worker", address, "--nthreads", "1", "--no-nanny",
                    "--no-dashboard", "--host", "127.0.0.1")
            for at in range(2)
        ]  # fmt: skip
        wait_for(address, len(workers))
        yield Cluster(address, scheduler, workers)


def wait_for(address: str, workers: int) -> None:
    from distributed import Client

    with Client(address, timeout=30, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=30)


def started(stack: contextlib.ExitStack, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli, ["fleet", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_worker_killed_on_the_way_loses_nothing(cluster, traces, tmp_path, monkeypatch):
    """One worker dies as soon as two parts are there; the other makes the rest; the bytes are those of one process."""
    out = tmp_path / "cluster"
    killed: list[int] = []

    def kill_one() -> None:
        while len(list(out.glob("parts/??/*.json"))) < 2:
            time.sleep(0.01)
        killed.append(len(list(out.glob("parts/??/*.json"))))
        os.kill(cluster.workers[0].pid, signal.SIGKILL)

    watcher = threading.Thread(target=kill_one, daemon=True)
    watcher.start()
    monkeypatch.chdir(traces.parent)  # the workers stand elsewhere: what is named relatively must still be found
    printed = run(traces.name, "-o", out, "--scheduler", "dask", "--dask-address", cluster.address)
    watcher.join(timeout=10)
    assert killed
    assert killed[0] < 8
    assert cluster.workers[0].wait(timeout=10) == -signal.SIGKILL
    assert "dashboard: http://127.0.0.1:" in printed
    assert "8 traces of 4 hosts; 1 host differs" in printed
    run(traces, "-o", tmp_path / "local", "--scheduler", "local", "-q")
    assert files(out) == files(tmp_path / "local")
    monkeypatch.setattr(schedulers, "__version__", "9.9.9")
    with pytest.raises(UsageError, match=r"install nsyskit 9\.9\.9 on them"):
        make_scheduler("dask", address=cluster.address)


def test_a_cluster_without_workers_is_waited_for_but_not_for_ever(cluster, traces, tmp_path, monkeypatch):
    monkeypatch.setattr(schedulers, "_NO_WORKERS_S", 0.5)
    seen: list[Progress] = []

    def kill_all(progress: Progress) -> None:
        seen.append(progress)
        if progress.done == 1:
            for worker in cluster.workers:
                worker.kill()

    options = Options(scheduler="dask", dask_address=cluster.address)
    with pytest.raises(ClusterError, match="all workers of the cluster are gone"):
        run_fleet([str(traces)], tmp_path / "out", options=options, tell=kill_all)
    assert "all workers are gone; waiting for others" in [progress.note for progress in seen]
    kept = len(list((tmp_path / "out").glob("parts/??/*.json")))
    assert 1 <= kept < 8
    again: list[Progress] = []
    run_fleet([str(traces)], tmp_path / "out", tell=again.append)
    assert again[-1].kept == kept


def test_no_scheduler_answers(tmp_path, traces, monkeypatch):
    monkeypatch.setattr(schedulers, "_CONNECT_S", 1.0)
    options = Options(scheduler="dask", dask_address=f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(UsageError, match="no Dask scheduler answers"):
        run_fleet([str(traces)], tmp_path / "out", options=options)


def test_a_scheduler_that_dies_ends_the_fleet_with_what_is_done(cluster, traces, tmp_path):
    def kill(progress: Progress) -> None:
        if progress.done == 1:
            cluster.scheduler.kill()

    options = Options(scheduler="dask", dask_address=cluster.address)
    with pytest.raises(ClusterError, match="the Dask scheduler is gone"):
        run_fleet([str(traces)], tmp_path / "out", options=options, tell=kill)
    assert list((tmp_path / "out").glob("parts/??/*.json"))
