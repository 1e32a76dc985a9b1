"""The JSON document ``nsyskit.sweep/1``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from nsyskit.sweep.ledgers import CellLedger
from nsyskit.sweep.table import SweepTable, quantisations

SCHEMA: Final = "nsyskit.sweep/1"


def render_json(name: str, table: SweepTable, ledgers: Sequence[CellLedger] = ()) -> str:
    """The document as text: cells, quantisations side by side, and the ledgers (ns per token) of traced cells."""
    body = {
        "schema": SCHEMA,
        "name": name,
        "axes": list(table.axes),
        "cells": list(table.rows),
        "quantisations": [asdict(one) for one in quantisations(table)],
        "ledgers": [asdict(one) for one in ledgers],
    }
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"
