"""A copy of a trace that may be shown to others: events as they were, without what names a machine and its people."""

from __future__ import annotations

from nsyskit.redact.copy import Redaction, find_secrets, redact
from nsyskit.redact.words import CLASSES

__all__ = ["CLASSES", "Redaction", "find_secrets", "redact"]
