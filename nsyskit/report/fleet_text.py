"""A fleet in a few lines for the terminal; all of it is in the files."""

from __future__ import annotations

import polars as pl

from nsyskit.fleet.result import FleetResult
from nsyskit.report.fleet_words import HEADLINES, headline, metric_text, outlier_sentence
from nsyskit.report.words import HEADLINES as BOTTLENECKS
from nsyskit.units import printable

_SHOWN = 8


def render_text(result: FleetResult) -> str:
    """Headline, what bounds the runs, distributions over all traces, what differs, what failed."""
    lines = [headline(result), ""]
    lines += [f"{count:>6}  {name}: {BOTTLENECKS.get(name, '–')}" for name, count in bottlenecks(result)]
    everyone = result.groups.filter((pl.col("by") == "all") & pl.col("metric").is_in(list(HEADLINES)))
    if everyone.height:
        lines += ["", f"{'over traces':24} {'traces':>6} {'p05':>10} {'median':>10} {'p95':>10} {'max':>10}"]
    for row in everyone.iter_rows(named=True):
        values = " ".join(f"{metric_text(row[name], row['unit']):>10}" for name in ("p05", "p50", "p95", "max"))
        lines.append(f"{HEADLINES[row['metric']].replace(', ms per', ' per'):24} {row['count']:>6} {values}")
    lines += _listed("Differs from its peers", [outlier_sentence(one) for one in result.outliers])
    lines += _listed("Failed", [one.error for one in result.failed])
    lines += _listed("Counted once only", [f"{one.name} is the same as {one.same_as}" for one in result.duplicates])
    return "\n".join(printable(line).rstrip() for line in lines) + "\n"


def bottlenecks(result: FleetResult) -> list[tuple[str, int]]:
    """How many traces have which verdict, most first."""
    counted = result.traces.group_by("bottleneck").agg(pl.len()).sort(["len", "bottleneck"], descending=[True, False])
    return [(str(name), int(count)) for name, count in counted.iter_rows()]


def _listed(title: str, found: list[str]) -> list[str]:
    if not found:
        return []
    more = [f"  … and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return ["", title, *(f"  {one}" for one in found[:_SHOWN]), *more]
