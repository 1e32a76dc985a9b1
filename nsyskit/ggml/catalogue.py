"""The catalogue of ggml's CUDA kernels: what a kernel is, from its name alone.

Two levels. A *category* is what the time went to (``matmul_quant``, ``attention``, ``kv_copy``, …). A *family* is the
implementation that did it, under one slug for all versions of llama.cpp: ``mul_mat_q``, ``mul_mat_vec_q``,
``mul_mat_vec_f``, ``flash_attn_ext_vec``, ``library_gemm``, …; hotspots are split by family, and prefixes such as
``mul_mat_`` and ``flash_attn_`` group them.

The rules are data, ``kernel_rules.json`` beside this file; a user's rules come before them. A kernel that no rule
matches is ``other``: nothing is guessed.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from nsyskit.errors import UsageError
from nsyskit.ggml.decode import Layout, decode, format_of, parse_name, unknown_fields

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

OTHER: Final = "other"
"""Category and family of a kernel that no rule matches."""

BUILT_IN: Final = "built-in"

FRAME: Final = {
    "name_id": pl.Int64, "category": pl.String, "family": pl.String, "quant": pl.String, "batch": pl.Int64,
    "tile_cols": pl.Int64, "tile_heads": pl.Int64, "head_k": pl.Int64, "head_v": pl.Int64, "type_k": pl.String,
    "type_v": pl.String, "op": pl.String, "fused": pl.String,
}  # fmt: skip
"""Columns of `KernelRules.classify_frame`."""


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """What a kernel is. A fact that its name does not tell is None.

    Attributes:
        name: base name, without namespaces and template arguments.
        category: what the time went to; ``other`` when no rule matches.
        family: the implementation, one slug for all versions; ``other`` when no rule matches.
        sub: a short label within the category.
        what: one line for people.
        quant: format of the weights of a matrix product, of the rows that are looked up, or of the quantised side of a
            conversion: ``Q4_K``, ``F16``, …
        batch: columns of activations of a vector kernel (``ncols_dst``). Expert kernels of several tokens print 1 in
            builds of early 2026.
        tile_cols: columns that a block works on at a time; of FlashAttention, tokens.
        tile_heads: query heads that a FlashAttention block works on together, sharing keys and values.
        head_k, head_v: head sizes of keys (and queries) and of values.
        type_k, type_v: formats of the KV cache.
        op: what an element-wise kernel computes (``mul``, ``silu``), or from and to of a conversion (``f32_f16``).
        fused: ops fused into the kernel, in order.
        args: template arguments as printed.
        rule: the regular expression that matched.
        rule_source: where it stands: ``built-in`` or the user's file.
    """

    name: str
    category: str = OTHER
    family: str = OTHER
    sub: str | None = None
    what: str | None = None
    quant: str | None = None
    batch: int | None = None
    tile_cols: int | None = None
    tile_heads: int | None = None
    head_k: int | None = None
    head_v: int | None = None
    type_k: str | None = None
    type_v: str | None = None
    op: str | None = None
    fused: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    rule: str | None = None
    rule_source: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a rule file, compiled. The file's own note says what each key means."""

    regex: re.Pattern[str]
    category: str
    family: str | None = None
    sub: str | None = None
    what: str | None = None
    contains: str = ""
    fused: tuple[str, ...] = ()
    quants: tuple[tuple[re.Pattern[str], str], ...] = ()
    args: tuple[Layout, ...] = ()
    source: str = BUILT_IN


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A kernel that some version of llama.cpp has.

    Attributes:
        kernel: base name.
        source: its file in ``ggml-cuda``; empty for a kernel that only older versions have.
        template: its template parameters in the newest version known here.
        in_newest: whether that version still has it.
    """

    kernel: str
    source: str
    template: str
    in_newest: bool


@dataclass(frozen=True, slots=True)
class KernelRules:
    """Rules in order of priority."""

    rules: tuple[Rule, ...]

    @classmethod
    def load(cls, path: Path | None = None) -> KernelRules:
        """The built-in rules, with those of a user's file before them.

        Raises:
            UsageError: the file cannot be read or a rule in it is wrong.
        """
        return cls(((*_read_rules(path),) if path else ()) + _built_in_rules())

    def classify(self, short_name: str | None, demangled: str | None) -> KernelInfo:
        """What one kernel is; without a short name it is derived from the demangled one."""
        parsed = parse_name(demangled or short_name or "")
        short, full = short_name or parsed.short, demangled or short_name or ""
        for rule in self.rules:
            match = rule.regex.fullmatch(short)
            if match and rule.contains in full:
                return _info(rule, match, full=full, args=parsed.args)
        return KernelInfo(short, args=parsed.args)

    def classify_frame(self, names: pl.DataFrame) -> pl.DataFrame:
        """What many kernels are, each distinct name looked at once; columns as in `FRAME`, rows as in ``names``.

        Args:
            names: a frame with name_id, short_name and name (demangled); either name may be null.
        """
        distinct = names.select("short_name", "name").unique()
        facts = [_cells(self.classify(short, full)) for short, full in distinct.iter_rows()]
        schema = {column: kind for column, kind in FRAME.items() if column != "name_id"}
        table = pl.concat([distinct, pl.DataFrame(facts, schema=schema)], how="horizontal")
        found = names.select(pl.col("name_id").cast(pl.Int64), "short_name", "name")
        found = found.join(table, on=["short_name", "name"], how="left", nulls_equal=True, maintain_order="left")
        return found.select(*FRAME)


@cache
def catalogue() -> tuple[CatalogueEntry, ...]:
    """The kernels of four versions of llama.cpp, by name."""
    text = resources.files("nsyskit.ggml").joinpath("kernels.tsv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return tuple(
        CatalogueEntry(row["kernel"], row["source"], row["template"], row["in_newest"] == "yes") for row in rows
    )


def _info(rule: Rule, match: re.Match[str], *, full: str, args: tuple[str, ...]) -> KernelInfo:
    facts = asdict(decode(args, rule.args))
    groups = {name: text for name, text in match.groupdict().items() if text is not None}
    if "quant" in groups:
        facts["quant"] = _canonical(groups["quant"])
    if "op" in groups:
        facts["op"] = groups["op"]
    if rule.quants:
        facts["quant"] = next((quant for pattern, quant in rule.quants if pattern.search(full)), None)
    facts["fused"] = rule.fused + facts["fused"]
    return KernelInfo(
        name=match[0],
        category=rule.category,
        family=rule.family or match[0],
        sub=rule.sub,
        what=rule.what,
        args=args,
        rule=rule.regex.pattern,
        rule_source=rule.source,
        **facts,
    )


def _canonical(quant: str) -> str:
    """``q4_K`` or ``q2_k``, as kernel names spell them, under the format's own name."""
    return format_of(quant) or quant


def _cells(info: KernelInfo) -> dict[str, Any]:
    """One row of a classified frame."""
    cells = {column: getattr(info, column) for column in FRAME if column != "name_id"}
    return cells | {"fused": "+".join(info.fused) or None}


@cache
def _built_in_rules() -> tuple[Rule, ...]:
    text = resources.files("nsyskit.ggml").joinpath("kernel_rules.json").read_text(encoding="utf-8")
    return tuple(_parse_rules(json.loads(text), BUILT_IN))


def _read_rules(path: Path) -> list[Rule]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"cannot read kernel rules {path}: {error.strerror}", hint="give the path of a file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"kernel rules {path} are not JSON: {error}", hint=_HINT) from error
    return _parse_rules(document, str(path))


def _parse_rules(document: Any, source: str) -> list[Rule]:
    rules = document.get("rules") if isinstance(document, dict) else None
    if not isinstance(rules, list):
        raise UsageError(f"kernel rules {source} hold no list 'rules'", hint=_HINT)
    return [_parse_rule(rule, f"rule {number} of {source}", source) for number, rule in enumerate(rules, start=1)]


def _parse_rule(rule: Any, where: str, source: str) -> Rule:
    if not isinstance(rule, dict):
        raise UsageError(f"{where} is not an object", hint=_HINT)
    if unknown := sorted(rule.keys() - _KEYS):
        raise UsageError(f"{where} has a key {unknown[0]!r}", hint=f"use only {', '.join(sorted(_KEYS))}")
    for key in ("regex", "category"):
        if not rule.get(key):
            raise UsageError(f"{where} lacks {key!r}", hint="give each rule a 'regex' and a 'category'")
    for key in _TEXTS & rule.keys():
        if not isinstance(rule[key], str):
            raise UsageError(f"{where}: {key!r} is not a text", hint="put it in double quotes")
    return Rule(
        regex=_compile(rule["regex"], where),
        quants=tuple((_compile(regex, where), quant) for regex, quant in _pairs(rule.get("quants", []), where)),
        args=tuple(_layout(layout, where) for layout in _texts(rule.get("args", []), "args", where)),
        fused=tuple(_texts(rule.get("fused", []), "fused", where)),
        source=source,
        **{key: rule[key] for key in _TEXTS & rule.keys() if key != "regex"},
    )


def _compile(regex: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"{where}: {regex!r} is no regular expression: {error}", hint="correct it") from error


def _layout(text: str, where: str) -> Layout:
    layout = tuple(text.split())
    if unknown := unknown_fields(layout):
        raise UsageError(
            f"{where}: 'args' has a word {unknown[0]!r}", hint="see the built-in rules for the words it knows"
        )
    return layout


def _texts(value: Any, key: str, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError(f"{where}: {key!r} is not a list of texts", hint='write it as ["…", "…"]')
    return value


def _pairs(value: Any, where: str) -> Iterable[tuple[str, str]]:
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise UsageError(f"{where}: 'quants' is not a list of pairs", hint='write it as [["regex", "F16"]]')
    return [(str(regex), str(quant)) for regex, quant in value]


_TEXTS: Final = frozenset({"regex", "category", "family", "sub", "what", "contains"})
_KEYS: Final = _TEXTS | {"fused", "quants", "args"}
_HINT: Final = 'write {"rules": [{"regex": "my_kernel.*", "category": "matmul_quant"}]}'
