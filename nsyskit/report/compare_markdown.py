"""A comparison as Markdown, for pull requests and job summaries."""

from __future__ import annotations

from collections.abc import Sequence

from nsyskit.compare.gate import GateResult
from nsyskit.compare.result import Comparison, PhaseComparison
from nsyskit.report.compare_rows import gate_text, line_rows, micros, part_rows, sides
from nsyskit.units import human_ns, printable


def render_markdown(comparison: Comparison, gates: Sequence[GateResult] = (), *, every: bool = False) -> str:
    """Verdict and gates first, then setup, explanation and lines as tables."""
    out = [
        f"## nsyskit compare: {comparison.verdict}",
        "",
        escaped(comparison.sentence),
        "",
        sides(comparison) + ".",
        "",
    ]
    out += [f"- {'❌' if r.outcome == 'violated' else '✅' if r.outcome == 'passed' else '⚠️'} "
            f"{escaped(gate_text(r))}" for r in gates]  # fmt: skip
    out += [f"- **{reason.level}**: {escaped(reason.message)}" for reason in comparison.reasons]
    out += ["", *_setup(comparison)]
    for found in comparison.phases:
        out += ["", *_phase(found, every=every)]
    return "\n".join(out).rstrip() + "\n"


def _setup(comparison: Comparison) -> list[str]:
    if not comparison.setup:
        return ["No difference in the setup is known."]
    rows = [[item.name, item.base or "–", item.candidate or "–"] for item in comparison.setup]
    return table(["setup", "baseline", "candidate"], rows)


def _phase(found: PhaseComparison, *, every: bool) -> list[str]:
    parts, total = part_rows(found)
    rows = [[row.words, micros(row.ns)] for row in parts]
    out = [f"### {found.phase}", "", escaped(found.sentence), ""]
    out += table(["part of the difference", "µs per token"], [*rows, ["**sum**", f"**{micros(total)}**"]], right={1})
    if found.total.verdict != "too few steps" or every:
        lines = [[r.name, r.base, r.candidate, r.diff, r.interval, r.verdict] for r in line_rows(found, every=every)]
        heads = ["per token", "baseline", "candidate", "diff", "95 % interval", "verdict"]
        out += ["", *table(heads, lines, right={1, 2, 3, 4})]
    for word, kernels in (("New", found.new_kernels), ("Vanished", found.vanished_kernels)):
        if kernels:
            out += ["", f"{word} kernels:", ""]
            out += [f"- `{name.replace('`', '')}`: {human_ns(ns)} per token" for name, ns in kernels]
    return out


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: set[int] | None = None) -> list[str]:
    """A Markdown table whose cells cannot break it."""
    rule = ["---:" if right and at in right else "---" for at in range(len(heads))]
    return [f"| {' | '.join(line)} |" for line in (heads, rule, *([escaped(cell) for cell in row] for row in rows))]


def escaped(value: str) -> str:
    """Text that Markdown shows as it is."""
    return printable(value).replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_")
