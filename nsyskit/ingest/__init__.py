"""One door for every container nsys writes: ``open_trace``."""

from __future__ import annotations

from nsyskit.ingest.open import OpenOptions, open_shares, open_trace
from nsyskit.ingest.rep import export_sqlite

__all__ = ["OpenOptions", "export_sqlite", "open_shares", "open_trace"]
