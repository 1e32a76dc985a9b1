"""Timelines as bytes for the page's script: every level, every event; what is drawn depends on the zoom.

A packet is the length of a header (4 bytes, little endian), the header as JSON, and the arrays one after another at
the offsets that the header names, from the first multiple of 8 after the header.
"""

from __future__ import annotations

import json
import struct
from array import array
from typing import Any, Final

import polars as pl

from nsyskit.analysis.timeline import DensityResult, EventsResult, Lane
from nsyskit.report.figures.base import time_unit
from nsyskit.report.figures.timelines import bubble_text, event_name

FULL: Final = 255
"""A share of 1 in a density packet."""


def density_packet(result: DensityResult) -> bytes:
    """Shares in 255ths, level by level, lane by lane, part by part; a lane's full column sums to 255."""
    unit = time_unit(result.window)
    body, levels = bytearray(), []
    for level in result.levels:
        levels.append({"columns": level.height, "offset": len(body)})
        for lane in result.lanes:
            body += b"".join(_shares(level, lane))
    header = {
        "kind": "density",
        "unit": unit.name,
        "unitNs": unit.ns,
        "ns": result.window.dur_ns,
        "levels": levels,
        "lanes": [{"parts": list(lane.parts)} for lane in result.lanes],
    }
    return _packet(header, bytes(body))


def events_packet(result: EventsResult) -> bytes:
    """Events lane by lane: start (from the last one's) and length in ns, part, name, count, bubble."""
    rows, unit = result.events, time_unit(result.window)
    texts = rows["name"].unique().drop_nulls().sort().to_list()
    origin = result.window.start_ns
    starts = rows.select(
        (pl.col("start_ns") - pl.col("start_ns").shift(1).over("lane").fill_null(origin)).cast(pl.Float64)
    )
    columns: dict[str, tuple[str, list[Any]]] = {
        "start": ("d", starts["start_ns"].to_list()),
        "width": ("d", (rows["end_ns"] - rows["start_ns"]).cast(pl.Float64).to_list()),
        "dur": ("d", rows["dur_ns"].cast(pl.Float64).to_list()),
        "name": ("i", rows["name"].cast(pl.Enum(texts)).to_physical().cast(pl.Int64).fill_null(-1).to_list()),
        "count": ("i", rows["count"].to_list()),
        "bubble": ("i", rows["bubble"].fill_null(-1).to_list()),
        "lane": ("B", rows["lane"].to_list()),
        "part": ("B", _part_numbers(result)),
    }
    body, arrays = bytearray(), {}
    for name, (code, values) in columns.items():
        arrays[name] = {"type": code, "offset": len(body), "length": len(values)}
        body += array(code, values).tobytes()
        body += b"\0" * (-len(body) % 8)
    header = {
        "kind": "events",
        "unit": unit.name,
        "unitNs": unit.ns,
        "ns": result.window.dur_ns,
        "arrays": arrays,
        "lanes": [{"parts": list(lane.parts)} for lane in result.lanes],
        "names": [event_name(text) for text in texts],
        "bubbles": [bubble_text(row) for row in result.bubbles.iter_rows(named=True)],
        "total": result.total,
        "aggregated": result.aggregated,
    }
    return _packet(header, bytes(body))


def _packet(header: dict[str, Any], body: bytes) -> bytes:
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return struct.pack("<I", len(head)) + head + b"\0" * (-(4 + len(head)) % 8) + body


def _shares(level: pl.DataFrame, lane: Lane) -> list[bytes]:
    """Rounded so that the sum over the parts is rounded once: what sums to the column sums to ``FULL``."""
    width = level["end_ns"] - level["start_ns"]
    done = upto = pl.repeat(0, level.height, dtype=pl.Int64, eager=True)
    shares = []
    for part in lane.parts:
        done = done + level[f"{lane.key}/{part}"]
        now = ((2 * FULL * done + width) // (2 * width)).fill_null(0)
        shares.append(_bytes((now - upto).clip(0, FULL)))
        upto = now
    return shares


def _bytes(values: pl.Series) -> bytes:
    """Numbers below 256, a byte each: without a Python object for each of them."""
    packed: bytes = values.cast(pl.UInt8).implode().cast(pl.Binary).item()
    return packed


def _part_numbers(result: EventsResult) -> list[int]:
    """Of each event the place of its part among those of its lane."""
    places = [(at, part, place) for at, lane in enumerate(result.lanes) for place, part in enumerate(lane.parts)]
    numbers = pl.DataFrame(places, schema={"lane": pl.Int64, "part": pl.String, "place": pl.Int64}, orient="row")
    found = result.events.select("lane", "part").join(numbers, on=["lane", "part"], how="left", maintain_order="left")
    return found["place"].to_list()
