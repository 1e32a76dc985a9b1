"""The server's tax as text and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nsyskit.compare.compare import signed_ns
from nsyskit.compare.server_tax import ServerTax
from nsyskit.units import human_ns, printable

_MEANING = {
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
        grid.add_row(part.name, *shown, signed_ns(float(part.tax)), _MEANING.get(part.name, ""))
    whole = [human_ns(float(value)) for value in (found.server_ns, found.bench_ns)]
    grid.add_row("sum", *whole, signed_ns(float(found.tax_ns)), "")
    rates = [1e9 / float(value) if value else 0.0 for value in (found.bench_ns, found.server_ns)]
    out = StringIO()
    console = Console(file=out, width=110, highlight=False, no_color=True)
    console.print(
        Text(
            f"{found.requests} requests, {found.tokens:,} tokens: {rates[1]:.2f} tokens/s a request behind the server, "
            f"{rates[0]:.2f} by llama-bench's figures"
        )
    )
    for reason in found.reasons:
        console.print(Text(f"{reason.level}: {printable(reason.message)}"))
    for item in found.setup:
        console.print(Text(printable(f"differs: {item.name}: {item.base} and {item.candidate}")))
    console.print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


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
