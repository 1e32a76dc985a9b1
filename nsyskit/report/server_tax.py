"""The server's tax as text, Markdown and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from io import StringIO
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nsyskit.compare.compare import signed_ns
from nsyskit.compare.server_tax import ServerTax
from nsyskit.report.compare_markdown import escaped, table
from nsyskit.units import human_ns, printable

MEANING: Final = {
    "accept": "HTTP, tokenizing, waiting for a slot", "prepare": "from the slot to the first upload",
    "prefill": "the prompt, beyond llama-bench's", "deliver": "first token on its way to the client",
    "decode": "the tokens, beyond llama-bench's", "stream": "the tokens, beyond llama-bench's",
    "finish": "after the last sync", "close": "end of the response", "unattributed": "between no named timestamps",
}  # fmt: skip


def render_text(found: ServerTax) -> str:
    """What a generated token costs behind the server, part by part."""
    grid = Table(box=None, pad_edge=False)
    for head in ("per generated token", "server", "llama-bench", "tax", ""):
        grid.add_column(head, justify="left" if head in {"", "per generated token"} else "right")
    for part in found.parts:
        shown = [human_ns(float(value)) for value in (part.server, part.bench)]
        grid.add_row(part.name, *shown, signed_ns(float(part.tax)), MEANING.get(part.name, ""))
    whole = [human_ns(float(value)) for value in (found.server_ns, found.bench_ns)]
    grid.add_row("sum", *whole, signed_ns(float(found.tax_ns)), "")
    out = StringIO()
    console = Console(file=out, width=110, highlight=False, no_color=True, markup=False, emoji=False)
    console.print(Text(tax_sentence(found)))
    for reason in found.reasons:
        console.print(Text(f"{reason.level}: {printable(reason.message)}"))
    for item in found.setup:
        console.print(Text(printable(f"differs: {item.name}: {item.base} and {item.candidate}")))
    console.print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def tax_sentence(found: ServerTax) -> str:
    """Both rates, and the most of what lies between."""
    rates = [1e9 / float(value) if value else 0.0 for value in (found.bench_ns, found.server_ns)]
    most = max(found.parts, key=lambda part: part.tax)
    told = (
        f"{found.requests} requests, {found.tokens:,} tokens: {rates[1]:.2f} tokens/s a request behind the server, "
        f"{rates[0]:.2f} by llama-bench's figures"
    )
    return f"{told}; most of the tax: {most.name} {signed_ns(float(most.tax))} a token" if most.tax > 0 else told


def render_markdown(found: ServerTax) -> str:
    """The tax as Markdown, for pull requests and job summaries."""
    rows = [
        [part.name, human_ns(float(part.server)), human_ns(float(part.bench)), signed_ns(float(part.tax)),
         MEANING.get(part.name, "")]
        for part in found.parts
    ]  # fmt: skip
    whole = [human_ns(float(found.server_ns)), human_ns(float(found.bench_ns)), signed_ns(float(found.tax_ns))]
    heads = ["per generated token", "server", "llama-bench", "tax", ""]
    out = ["## The server's tax", "", escaped(tax_sentence(found)) + ".", ""]
    out += [f"- **{reason.level}**: {escaped(reason.message)}" for reason in found.reasons]
    out += [f"- differs: {escaped(f'{item.name}: {item.base} and {item.candidate}')}" for item in found.setup]
    out += ["", *table(heads, [*rows, ["sum", *whole, ""]], right={1, 2, 3})]
    return "\n".join(out) + "\n"


def render_json(found: ServerTax) -> str:
    """The document ``nsyskit.server-tax/1``; ns per generated token, exact fractions beside."""
    body = {
        "schema": "nsyskit.server-tax/1",
        "requests": found.requests,
        "tokens": found.tokens,
        "prompt_tokens": found.prompt_tokens,
        "server_ns": float(found.server_ns),
        "bench_ns": float(found.bench_ns),
        "tax_ns": float(found.tax_ns),
        "exact_tax_ns": str(found.tax_ns),
        "parts": [
            {
                "name": part.name, "server_ns": float(part.server), "bench_ns": float(part.bench),
                "tax_ns": float(part.tax), "exact_tax_ns": str(part.tax),
            }
            for part in found.parts
        ],
        "reasons": [asdict(reason) for reason in found.reasons],
        "setup": [asdict(item) for item in found.setup],
    }  # fmt: skip
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"
