"""The report in Markdown, short enough for an issue or a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nsyskit import __version__
from nsyskit.analysis.analyze import Report
from nsyskit.analysis.devices import BUSY_PARTS, DeviceLedger, DevicesResult
from nsyskit.analysis.step_costs import StepsResult
from nsyskit.analysis.sums import SumResult
from nsyskit.analysis.timeline import gpu_label
from nsyskit.report.names import shortened
from nsyskit.report.words import HEADLINES, PARTS
from nsyskit.units import human_count, human_ns, human_share, printable

_SMALL = 0.002
_NAME_CHARACTERS = 80


def render_markdown(report: Report, *, top: int = 10) -> str:
    """Verdict, trust, phases, ledgers and the ``top`` kernels. Names cannot become markup or mention anybody."""
    blocks = [_head(report), _trust(report), _phases(report.sections.get("steps")), _ledgers(report)]
    kernels: SumResult | None = report.sections.get("kernel_sum")
    if kernels is not None and kernels.rows.height:
        rows = [_kernel(row) for row in kernels.rows.head(top).iter_rows(named=True)]
        blocks.append("### Kernels\n\n" + _table(("kernel", "time", "total", "count", "p50"), rows))
    blocks.append(f"<sub>nsyskit {__version__}</sub>")
    return "\n\n".join(block for block in blocks if block) + "\n"


def _head(report: Report) -> str:
    window = "" if report.window is None else f", window `{report.window.kind}` {human_ns(report.window.dur_ns)}"
    facts = f"`{_code(report.meta.name)}`{window}"
    if report.verdict is None:
        return facts
    label = report.verdict.bottleneck
    return f"## {HEADLINES.get(label, label)} (`{label}`)\n\n{_text(report.verdict.sentence)}\n\n{facts}"


def _trust(report: Report) -> str:
    return "\n".join(f"- **{note.level}**: {_text(note.message)}" for note in report.trust)


def _phases(steps: StepsResult | None) -> str:
    if steps is None or not steps.by_phase:
        return ""
    rows = [
        (cost.phase, human_count(cost.count), human_count(cost.tokens),
         "–" if cost.tokens_per_s is None else f"{cost.tokens_per_s:,.1f}",
         *("–" if value is None else f"{value:.3f}" for value in cost.ms_per_token.values()))
        for cost in steps.by_phase.values()
    ]  # fmt: skip
    heads = ("phase", "steps", "tokens", "tokens/s", "ms/token p50", "p95", "p99", "max")
    return "### Phases\n\n" + _table(heads, rows)


def _ledgers(report: Report) -> str:
    steps: StepsResult | None = report.sections.get("steps")
    devices: DevicesResult | None = report.sections.get("devices")
    if steps is not None:
        return _ledger(steps.ledger, " inside steps")
    return "\n\n".join(_ledger(ledger, "") for ledger in devices.devices) if devices is not None else ""


def _ledger(ledger: DeviceLedger, where: str) -> str:
    name = gpu_label(ledger.use)
    parts = {part: int(getattr(ledger, f"{part}_ns")) for part in BUSY_PARTS} | dict(ledger.idle)
    shown = sorted((-ns, part) for part, ns in parts.items() if ns and ns >= _SMALL * ledger.window_ns)
    rows = [(part, PARTS[part], human_ns(-ns), human_share(-ns / ledger.window_ns)) for ns, part in shown]
    head = f"### {_text(name)}: busy {human_share(ledger.busy_share)} of {human_ns(ledger.window_ns)}{where}"
    return f"{head}\n\n{_table(('part', 'what', 'time', 'share'), rows)}"


def _kernel(row: Mapping[str, Any]) -> tuple[str, ...]:
    name = shortened(row["name"] or "")
    cut = name if len(name) <= _NAME_CHARACTERS else f"{name[: _NAME_CHARACTERS - 1]}…"
    return (f"`{_code(cut)}`", human_share(row["time_share"]), human_ns(row["total_ns"]), human_count(row["count"]),
            human_ns(row["med_ns"]))  # fmt: skip


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column reads from the left, the others are figures."""
    return "\n".join(_lines(heads, rows))


def _lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|---|{'---:|' * (len(heads) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _text(value: str) -> str:
    """Text outside of code: characters of Markdown, of tables and of mentions stay themselves."""
    escaped = printable(value)
    for char in "\\`*_[]<>|#@":
        escaped = escaped.replace(char, f"\\{char}" if char != "@" else "&#64;")
    return escaped


def _code(value: str) -> str:
    """Text within backquotes and table cells."""
    return printable(value).replace("`", "'").replace("|", "\\|")
