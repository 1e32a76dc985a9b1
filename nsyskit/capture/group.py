"""Several runs of one command: ``--repeat`` and ``--fused``, as run folders inside one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nsyskit import __version__
from nsyskit.capture.capture import capture, make_folder
from nsyskit.capture.profiles import PROFILES, Profile
from nsyskit.capture.secrets import hide_secrets
from nsyskit.capture.store import write_json
from nsyskit.capture.summary import tokens_per_s
from nsyskit.capture.ui import Silent, Ui
from nsyskit.runfolder import SCHEMA, RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nsyskit.capture.config import CaptureConfig
    from nsyskit.capture.outcome import Outcome
    from nsyskit.nsys import Nsys

FUSED_ARMS: Mapping[str, Profile | None] = {"untraced": None, "graph": PROFILES["spans"], "node": PROFILES["kernels"]}


def repeat(config: CaptureConfig, nsys: Nsys, *, times: int, ui: Ui | None = None) -> Outcome:
    """The same capture several times, in ``run-1``, ``run-2``, …; a failure ends the series."""
    arms = arms_of(config, fused=False, times=times)
    return _series("repeat", config, arms, nsys, ui=ui or Silent(), summarise=lambda _outcomes: {})


def fused(config: CaptureConfig, nsys: Nsys, *, ui: Ui | None = None) -> Outcome:
    """The same load untraced, traced graph by graph and traced node by node, and what tracing did to its speed.

    Spans are to be taken from ``graph`` and shares of kernels from ``node``.
    """
    arms = arms_of(config, fused=True, times=1)
    return _series("fused", config, arms, nsys, ui=ui or Silent(), summarise=distortion)


def arms_of(config: CaptureConfig, *, fused: bool, times: int) -> tuple[CaptureConfig, ...]:
    """The captures that a command line asks for, one after another."""
    if fused:
        return tuple(_arm(config, name, profile) for name, profile in FUSED_ARMS.items())
    if times > 1:
        return tuple(_arm(config, f"run-{number}", config.profile) for number in range(1, times + 1))
    return (config,)


def distortion(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Tokens a second of each arm, and traced against untraced as a share: 0.8 is a fifth slower."""
    rates = {name: tokens_per_s(outcome.summary) for name, outcome in outcomes.items()}
    plain = rates.get("untraced", {})
    shares = {
        name: {label: rate / plain[label] for label, rate in arm.items() if plain.get(label)}
        for name, arm in rates.items()
        if name != "untraced"
    }
    return {"tokens_per_s": rates, "traced_against_untraced": shares}


def _arm(config: CaptureConfig, name: str, profile: Profile | None) -> CaptureConfig:
    return replace(config, folder=config.folder / name, session=f"{config.session}-{name}", profile=profile)


def _series(
    kind: str,
    config: CaptureConfig,
    arms: Sequence[CaptureConfig],
    nsys: Nsys,
    *,
    ui: Ui,
    summarise: Callable[[Mapping[str, Outcome]], dict[str, Any]],
) -> Outcome:
    make_folder(config.folder)
    outcomes: dict[str, Outcome] = {}
    _write(kind, config, arms, None, {})
    for arm in arms:
        ui.note(f"{kind}: {arm.folder.name}")
        outcome = outcomes[arm.folder.name] = capture(arm, nsys, ui=ui)
        if outcome.state != "complete":
            break
    last = outcomes[next(reversed(outcomes))]
    whole = replace(last, folder=config.folder, summary=summarise(outcomes))
    _write(kind, config, arms, whole, whole.summary)
    return whole


def _write(
    kind: str, config: CaptureConfig, arms: Sequence[CaptureConfig], outcome: Outcome | None, summary: Mapping[str, Any]
) -> None:
    ending: dict[str, Any] = {"state": "running"}
    if outcome is not None:
        ending = {
            "state": outcome.state, "exit_code": outcome.exit_code, "program_exit": outcome.program_exit,
            "message": outcome.message, "notes": list(outcome.notes),
        }  # fmt: skip
    facts = {
        "schema": SCHEMA, "nsyskit_version": __version__, "kind": kind, "command": list(hide_secrets(config.program)),
        "arms": [arm.folder.name for arm in arms], "outcome": ending, "summary": dict(summary),
    }  # fmt: skip
    write_json(RunFolder(config.folder).run_json, facts)
