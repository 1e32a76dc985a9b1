"""``nsyskit model``: what a GGUF file says about its model, without loading it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsyskit.units import human_bytes, human_count, human_share, printable

if TYPE_CHECKING:
    from nsyskit.ggml.gguf_file import ModelFacts


@click.command("model")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--ctx", type=click.IntRange(min=1), metavar="N", help="Context to size the KV cache for [the model's].")
@click.option("--ctk", default="f16", show_default=True, metavar="TYPE", help="Type of the cache's keys.")
@click.option("--ctv", default="f16", show_default=True, metavar="TYPE", help="Type of the cache's values.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output."
)
def command(file: Path, *, ctx: int | None, ctk: str, ctv: str, form: str) -> None:
    """Facts of the model in the GGUF file FILE: its shape, its bytes by role and type, what a token reads.

    Only the header is read. Of a split model, any part will do.

    \b
    Examples:
      nsyskit model tiny.gguf
      nsyskit model tiny.gguf --ctx 8192 --ctk q8_0 --ctv q8_0
    """  # noqa: D301 - click wants the backspace itself
    from nsyskit.ggml.gguf_file import read_model

    facts = read_model(file)
    document = _document(facts, n_ctx=ctx or facts.context, type_k=ctk, type_v=ctv)
    click.echo(json.dumps(document, indent=2) if form == "json" else _text(facts, document))


def _document(facts: ModelFacts, *, n_ctx: int | None, type_k: str, type_v: str) -> dict[str, Any]:
    from nsyskit.ggml.gguf_file import bytes_per_token, kv_bytes, kv_bytes_per_token, weights_per_token

    plain = (
        "file", "parts", "file_bytes", "architecture", "name", "layers", "heads", "kv_heads", "head_size_k",
        "head_size_v", "context", "embedding", "vocab", "experts", "experts_used", "sliding_window", "tied",
        "parameters", "total_bytes",
    )  # fmt: skip
    return {
        "schema": "nsyskit.model/1",
        **{name: getattr(facts, name) for name in plain},
        "roles": [{"role": role, "bytes": size, "types": _types(facts, role)} for role, size in _roles(facts)],
        "types": [{"type": kind, "bytes": size} for kind, size in facts.bytes_by_type.items()],
        "bytes_per_token": bytes_per_token(facts),
        "weights_per_token": weights_per_token(facts),
        "n_ctx": n_ctx,
        "type_k": type_k,
        "type_v": type_v,
        "kv_bytes_per_token": kv_bytes_per_token(facts, type_k=type_k, type_v=type_v),
        "kv_bytes": kv_bytes(facts, n_ctx, type_k=type_k, type_v=type_v) if n_ctx else None,
    }


def _roles(facts: ModelFacts) -> list[tuple[str, int]]:
    return list(facts.bytes_by_role.items())


def _types(facts: ModelFacts, role: str) -> dict[str, int]:
    """Type -> tensors of a role, the most frequent first."""
    return dict(Counter(tensor.type for tensor in facts.tensors if tensor.role == role).most_common())


def _text(facts: ModelFacts, document: dict[str, Any]) -> str:
    title = f"{printable(facts.name or facts.file)}: {printable(facts.architecture)}"
    size = f"{human_count(facts.parameters)} parameters, {human_bytes(facts.total_bytes)}"
    parts = f" in {facts.parts} files" if facts.parts > 1 else ""
    blocks = [[f"{title}, {size}{parts}"], _table(_shape(facts)), ["", "weights by role"], _table(_role_rows(facts))]
    blocks += [["", "weights by type"], _table(_type_rows(facts)), ["", "one decoded token, one sequence"]]
    blocks += [_table(_token_rows(facts, document))]
    return "\n".join(line.rstrip() for block in blocks for line in block)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows in aligned columns, numbers of the second column to the right where there is a third."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [f"{row[0]:{widths[0]}}"]
        cells += [f"{cell:>{width}}" for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  " + "  ".join([*cells, row[-1]]))
    return lines


def _shape(facts: ModelFacts) -> list[tuple[str, ...]]:
    experts = f"{facts.experts}, {facts.experts_used} of them read for a token" if facts.experts else None
    rows = {
        "layers": str(facts.layers),
        "heads": _each(facts.heads),
        "KV heads": _each(facts.kv_heads),
        "head size": _head_size(facts),
        "embedding": _maybe(facts.embedding),
        "vocabulary": _maybe(facts.vocab),
        "context": _maybe(facts.context),
        "window": f"{facts.sliding_window:,} tokens in the layers with a sliding window"
        if facts.sliding_window
        else None,
        "experts": experts,
        "output": "tied to token_embd" if facts.tied else None,
        "data": None if facts.has_data else "none: the file ends with its header",
    }
    return [(label, text) for label, text in rows.items() if text]


def _maybe(count: int | None) -> str | None:
    return None if count is None else human_count(count)


def _head_size(facts: ModelFacts) -> str | None:
    if facts.head_size_k == facts.head_size_v:
        return _maybe(facts.head_size_k)
    return f"{facts.head_size_k or '?'} keys, {facts.head_size_v or '?'} values"


def _each(counts: tuple[int, ...]) -> str | None:
    """One number where all layers agree, else how many layers have which."""
    if len(set(counts)) <= 1:
        return str(counts[0]) if counts else None
    return ", ".join(f"{count} in {layers} layers" for count, layers in sorted(Counter(counts).items()))


def _role_rows(facts: ModelFacts) -> list[tuple[str, ...]]:
    return [
        (
            printable(role),
            human_bytes(size),
            human_share(size / facts.total_bytes if facts.total_bytes else None),
            ", ".join(f"{count} × {kind}" for kind, count in _types(facts, role).items()),
        )
        for role, size in _roles(facts)
    ] or [("none listed", "", "", "")]


def _type_rows(facts: ModelFacts) -> list[tuple[str, ...]]:
    return [
        (kind, human_bytes(size), human_share(size / facts.total_bytes if facts.total_bytes else None))
        for kind, size in facts.bytes_by_type.items()
    ] or [("none listed", "", "")]


def _token_rows(facts: ModelFacts, document: dict[str, Any]) -> list[tuple[str, ...]]:
    kinds = f"{document['type_k']} keys, {document['type_v']} values"
    cached = f"{human_bytes(document['kv_bytes_per_token'])} read per token in context ({kinds})"
    rows: list[tuple[str, ...]] = [
        ("weights read", human_bytes(document["bytes_per_token"])),
        ("KV cache", cached),
    ]
    if document["n_ctx"]:
        most = "at most " if facts.sliding_window else ""
        # llama.cpp prints the cache in MiB: the number to find again in its log
        size = f"{most}{human_bytes(document['kv_bytes'])} ({document['kv_bytes'] / 2**20:.2f} MiB)"
        rows.append((f"KV cache at {human_count(document['n_ctx'])}", size))
    return rows
