"""The report as one HTML file: a first, simple page with verdict, ledger bars and tables; no script, no network."""

from __future__ import annotations

from html import escape

from nsyskit.analysis.analyze import Report
from nsyskit.report.text import render_text

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
pre{font:13px/1.35 ui-monospace,monospace;overflow-x:auto}
"""


def render_html(report: Report) -> str:
    """A self-contained page. Everything that comes from the trace is escaped."""
    verdict = report.verdict.sentence if report.verdict else ""
    body = render_text(report, top=25, width=140, color=False)
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{escape(report.meta.name)} – nsyskit</title><style>{_STYLE}</style>"
        f"<h1>{escape(report.meta.name)}</h1><p><strong>{escape(verdict)}</strong></p><pre>{escape(body)}</pre></html>\n"
    )
