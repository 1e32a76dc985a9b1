"""The cells of a sweep: settings, what they are called, and the command line of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Final

from nsyskit.errors import UsageError

FLAGS: Final[dict[str, str]] = {
    "-t": "n_threads", "-b": "n_batch", "-ub": "n_ubatch", "-ngl": "n_gpu_layers", "-ncmoe": "n_cpu_moe",
    "-fa": "flash_attn", "-ctk": "type_k", "-ctv": "type_v", "-sm": "split_mode", "-ts": "tensor_split",
    "-nkvo": "no_kv_offload", "-mg": "main_gpu", "-d": "n_depth",
}  # fmt: skip
"""Flags that span the grid, in the order in which they vary (the first slowest), and llama-bench's names of them."""

_TOLD_FOLDERS: Final = 2  # old/build and new/build; what lies above is the user's own business


@dataclass(frozen=True, slots=True)
class Tests:
    """What every cell measures."""

    n_prompt: tuple[str, ...] = ("512",)
    n_gen: tuple[str, ...] = ("128",)
    repetitions: int = 3

    def words(self) -> list[str]:
        return ["-p", ",".join(self.n_prompt), "-n", ",".join(self.n_gen), "-r", str(self.repetitions)]


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination.

    Attributes:
        model: the GGUF file.
        build: the folder that holds llama-bench, None for the one on the PATH.
        flags: flag -> value, in the order of ``FLAGS``.
        env: variable -> value; an empty value unsets it.
        rpc: servers for ``--rpc``.
    """

    model: Path
    build: Path | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    rpc: str | None = None
    tests: Tests = Tests()

    def settings(self) -> dict[str, str]:
        """What tells this cell apart; of folders only the names that are likely to differ."""
        named = {"model": self.model.name}
        if self.build is not None:
            named["build"] = "/".join(self.build.parts[-_TOLD_FOLDERS:])
        named |= {FLAGS[flag]: value for flag, value in self.flags.items()}
        named |= {f"env {name}": value for name, value in self.env.items()}
        return named | ({"rpc": "yes"} if self.rpc else {})

    def key(self) -> str:
        """Stable over runs, and different for every cell that measures something else."""
        folder = None if self.build is None else str(self.build.absolute())
        told = [str(self.model.absolute()), folder, self.settings(), self.rpc, self.tests.words()]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def argv(self, bench: Sequence[str]) -> list[str]:
        """The command line of llama-bench."""
        words = [*bench, "-m", str(self.model)]
        words += [word for flag, value in self.flags.items() for word in (flag, value)]
        words += ["--rpc", self.rpc] if self.rpc else []
        return [*words, *self.tests.words(), "-o", "jsonl"]


@dataclass(frozen=True, slots=True)
class Axes:
    """What is varied: every value of an axis with every value of the others."""

    models: tuple[Path, ...]
    builds: tuple[Path | None, ...] = (None,)
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    env: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rpc: str | None = None
    tests: Tests = Tests()


def cells(axes: Axes) -> list[Cell]:
    """The cross product, in a fixed order: models, builds, environment, then flags; the last varies fastest."""
    flags = [flag for flag in FLAGS if axes.flags.get(flag)]
    names = list(axes.env)
    return [
        Cell(
            model,
            build,
            dict(zip(flags, chosen, strict=True)),
            dict(zip(names, values, strict=True)),
            axes.rpc,
            axes.tests,
        )
        for model, build in product(axes.models, axes.builds)
        for values in product(*(axes.env[name] for name in names))
        for chosen in product(*(axes.flags[flag] for flag in flags))
    ]


def one_at_a_time(axes: Axes, experiments: Iterable[Mapping[str, Sequence[str]]]) -> tuple[list[Cell], list[str]]:
    """Cells for experiments (flag or ``env NAME`` -> values) beside the plain cell; and flags llama-bench lacks."""
    found, lacking = cells(axes), []
    plain = list(found)
    for experiment in experiments:
        known = {name: tuple(values) for name, values in experiment.items() if _spelled(name) is not None}
        lacking += [name for name in experiment if name not in known]
        for values in zip(*_even(list(known.values())), strict=True) if known else ():
            for cell in plain:
                flags, env = dict(cell.flags), dict(cell.env)
                for name, value in zip(known, values, strict=True):
                    spelled = _spelled(name) or name
                    if spelled.startswith("env "):
                        env[spelled.removeprefix("env ")] = value
                    else:
                        flags[spelled] = value
                found.append(replace(cell, flags={flag: flags[flag] for flag in FLAGS if flag in flags}, env=env))
    return list({cell.key(): cell for cell in found}.values()), sorted(set(lacking))


def _spelled(name: str) -> str | None:
    """An experiment's flag as llama-bench spells it, None where it has none."""
    if name.startswith("env "):
        return name
    return {"--n-cpu-moe": "-ncmoe"}.get(name, name if name in FLAGS else None)


def _even(values: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Flags that go together, value by value; a single value is repeated."""
    longest = max((len(one) for one in values), default=0)
    return [one * longest if len(one) == 1 else one for one in values]


def parse_values(text: str) -> tuple[str, ...]:
    """``1,2,4`` or ``1-4`` or ``16-64*2``, as llama-bench writes lists.

    Raises:
        UsageError: a value is empty.
    """
    found: list[str] = []
    for part in text.split(","):
        if not part.strip():
            raise UsageError(f"{text!r} has an empty value", hint="write values like 1,2,4")
        found += _range(part.strip())
    return tuple(dict.fromkeys(found))


def _range(part: str) -> list[str]:
    first, dash, rest = part.partition("-")
    sign = next((sign for sign in "+*" if sign in rest), None)
    last, step = rest.split(sign, 1) if sign else (rest, "1")
    if not (dash and first.isdigit() and last.isdigit() and step.isdigit()):
        return [part]
    low, high, by = int(first), int(last), int(step)
    if (sign == "*" and (by < 2 or not low)) or not by or high < low:
        raise UsageError(f"{part!r} is no range", hint="write first-last, first-last+step or first-last*factor")
    values = []
    while low <= high:
        values.append(str(low))
        low = low * by if sign == "*" else low + by
    return values


def parse_env(text: str) -> tuple[str, tuple[str, ...]]:
    """``GGML_CUDA_DISABLE_GRAPHS=0,1``: a variable and its values; an empty value unsets it.

    Raises:
        UsageError: there is no ``=``, or the name promises a secret.
    """
    name, equals, values = text.partition("=")
    if not equals or not name.replace("_", "").isalnum():
        raise UsageError(f"{text!r} sets nothing", hint="write NAME=VALUE or NAME=VALUE,VALUE")
    if any(word in name.upper() for word in ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "APIKEY")):
        raise UsageError(f"{name} looks like a secret, which a sweep would keep", hint="export it instead")
    return name, tuple(values.split(","))


def sweep_name(found: Sequence[Cell]) -> str:
    """The name of a sweep that nobody named: the same for the same cells, so that it goes on where it stopped."""
    return f"sweep-{hashlib.sha256(' '.join(sorted(cell.key() for cell in found)).encode()).hexdigest()[:8]}"
