"""What all tests share: the real traces beside the project, where they are, and a cache of their own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import settings

from nsyskit.ingest import columns, tables

TRACES = Path(__file__).resolve().parents[2] / "shared" / "traces"

settings.register_profile("unhurried", deadline=None)  # a busy machine is no bug
settings.load_profile("unhurried")


def pytest_addoption(parser):
    parser.addoption("--refresh", action="store_true", help="write the transcripts of the documentation anew")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch) -> None:
    """Exports of rep files never reach the cache of whoever runs the tests."""
    monkeypatch.setenv("NSYSKIT_CACHE", str(tmp_path_factory.getbasetemp() / "nsyskit-cache"))


@pytest.fixture(autouse=True, scope="session")
def _traced_in_polars_threads() -> None:
    """The reader is called from threads of polars' own, which a tracer's hook for Python's threads never reaches."""
    for kind in (tables._Table, columns.KeptTable):
        kind._scan = _traced(kind._scan)


def _traced(scan: Any) -> Any:
    def traced(table: Any, *request: Any) -> Iterator[pl.DataFrame]:
        sys.settrace(threading.gettrace())
        yield from scan(table, *request)

    return traced


@pytest.fixture(params=sorted(file.parent.name for file in TRACES.glob("*/trace.sqlite")) or [None])
def real_trace(request):
    """The path of every real trace of the collection beside the project, one after the other."""
    if request.param is None:
        pytest.skip("needs the collection of real traces beside the project")
    return TRACES / request.param / "trace.sqlite"


@pytest.fixture
def real():
    """The path of one real trace, by name."""

    def path(name: str) -> Path:
        if not TRACES.is_dir():
            pytest.skip("needs the collection of real traces beside the project")
        return TRACES / name / "trace.sqlite"

    return path
