"""One door for every container nsys writes: ``open_trace``."""

from __future__ import annotations

from nsyskit.ingest.open import OpenOptions, open_trace

__all__ = ["OpenOptions", "open_trace"]
