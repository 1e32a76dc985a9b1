"""nsyskit: where each token's time goes in a llama.cpp run traced by NVIDIA Nsight Systems.

>>> import nsyskit
>>> report = nsyskit.analyze(nsyskit.open_trace("trace.sqlite"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsyskit.analysis.analyze import Report, analyze
    from nsyskit.errors import NsyskitError
    from nsyskit.ingest import OpenOptions, export_sqlite, open_trace
    from nsyskit.trace import Trace, Window

__version__ = "0.1.0"

_HOME = {
    "NsyskitError": "nsyskit.errors",
    "OpenOptions": "nsyskit.ingest",
    "Report": "nsyskit.analysis.analyze",
    "Trace": "nsyskit.trace",
    "Window": "nsyskit.trace",
    "analyze": "nsyskit.analysis.analyze",
    "export_sqlite": "nsyskit.ingest",
    "open_trace": "nsyskit.ingest",
}

__all__ = [
    "NsyskitError", "OpenOptions", "Report", "Trace", "Window", "__version__", "analyze", "export_sqlite", "open_trace",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import on first use: `import nsyskit` alone must not cost polars."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(name)
