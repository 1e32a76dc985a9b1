"""``nsyskit kernels``: what a kernel is, from its name; or the whole catalogue."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nsyskit.errors import UsageError

if TYPE_CHECKING:
    from nsyskit.ggml.catalogue import KernelInfo, KernelRules


@click.command("kernels")
@click.argument("name", required=False)
@click.option("--list", "listing", is_flag=True, help="List the kernels of four llama.cpp versions, 2024 to 2026.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output."
)
@click.option(
    "--kernel-rules",
    "rules_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Your own rules (JSON), tried before the built-in ones.",
)
def command(name: str | None, *, listing: bool, form: str, rules_file: Path | None) -> None:
    """Explain the kernel NAME: its category, family, quant type, batch, tile and head sizes.

    NAME is a base name or a whole demangled name, as nsys prints it.

    \b
    Examples:
      nsyskit kernels 'void mul_mat_q<(ggml_type)12, (int)128, (bool)0>(const char *)'
      nsyskit kernels --list
    """  # noqa: D301 - click wants the backspace itself
    from nsyskit.ggml.catalogue import KernelRules

    if listing == bool(name):
        raise UsageError("give a kernel's name or --list", hint="try: nsyskit kernels mul_mat_q")
    rules = KernelRules.load(rules_file)
    if name:
        info = rules.classify(None, name)
        click.echo(_json(info) if form == "json" else _text(info))
    else:
        click.echo(_list(rules, form=form))


def _json(info: KernelInfo) -> str:
    from nsyskit.ggml.quants import bits_per_weight

    bits = bits_per_weight(info.quant) if info.quant else None
    return json.dumps({"schema": "nsyskit.kernel/1", **asdict(info), "bits_per_weight": bits}, indent=2)


def _text(info: KernelInfo) -> str:
    rows = [(label, text) for label, text in _rows(info) if text]
    width = max(len(label) for label, _ in rows)
    return "\n".join([info.name, *(f"  {label:{width}}  {text}" for label, text in rows)])


def _rows(info: KernelInfo) -> list[tuple[str, str | None]]:
    if info.rule is None:
        return [("category", info.category), ("rule", "none matches; add your own with --kernel-rules FILE")]
    return [
        ("category", f"{info.category}: {info.sub}" if info.sub else info.category),
        ("family", info.family),
        ("does", info.what),
        ("quant", _quant(info.quant)),
        ("batch", _counted(info.batch, "column")),
        ("tile", _tile(info)),
        ("heads", f"{info.head_k or '?'} keys, {info.head_v} values" if info.head_v else None),
        ("KV cache", f"{info.type_k} keys, {info.type_v or '?'} values" if info.type_k else None),
        ("op", info.op),
        ("fused", ", ".join(info.fused)),
        ("arguments", ", ".join(info.args)),
        ("rule", f"{info.rule} ({info.rule_source})"),
    ]


def _quant(quant: str | None) -> str | None:
    from nsyskit.ggml.quants import bits_per_weight

    bits = bits_per_weight(quant) if quant else None
    return f"{quant}, {bits:g} bits per weight" if bits else quant


def _tile(info: KernelInfo) -> str | None:
    parts = (_counted(info.tile_cols, "column"), _counted(info.tile_heads, "head"))
    return " × ".join(part for part in parts if part)


def _counted(count: int | None, noun: str) -> str | None:
    return None if count is None else f"{count} {noun}{'' if count == 1 else 's'}"


def _list(rules: KernelRules, *, form: str) -> str:
    from nsyskit.ggml.catalogue import catalogue

    entries = [(entry, rules.classify(entry.kernel, None)) for entry in catalogue()]
    if form == "json":
        kernels = [
            {**asdict(entry), "category": info.category, "family": info.family, "sub": info.sub, "what": info.what}
            for entry, info in entries
        ]
        return json.dumps({"schema": "nsyskit.kernels/1", "kernels": kernels}, indent=2)
    cells = [("kernel", "category", "family", "")]
    cells += [(e.kernel, i.category, i.family, "" if e.in_newest else "older versions") for e, i in entries]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    lines = (
        "  ".join([*(f"{text:{width}}" for text, width in zip(row, widths, strict=False)), row[3]]) for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)
