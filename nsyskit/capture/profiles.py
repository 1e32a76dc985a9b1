"""Capture profiles: which of nsys's options suit which question, and which of them this nsys can deliver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsyskit.errors import UsageError
from nsyskit.nsys import Nsys, exports_graph_rows, options

if TYPE_CHECKING:
    from collections.abc import Mapping

NOT_MEASURED = "not measured"
DISABLE_GRAPHS = "GGML_CUDA_DISABLE_GRAPHS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What to ask of nsys.

    Attributes:
        name: as on the command line.
        question: what a trace of this profile answers.
        launch: options that belong to ``nsys launch``: what is injected into the program.
        start: options that belong to ``nsys start``: what the window collects.
        graph_rows: whether it relies on whole-graph rows, which old exports do not have.
        slowdown: what it costs on a GPU, in words, once somebody has measured it.
    """

    name: str
    question: str
    launch: tuple[str, ...]
    start: tuple[str, ...]
    graph_rows: bool
    slowdown: str = NOT_MEASURED


# With --sample=none alone the other still defaults to process-tree.
_NO_CPU = ("--sample=none", "--cpuctxsw=none")
# Buffers of runs over 30 s are lost when they are flushed at the end only.
_FLUSH = "--cuda-flush-interval=10000"

PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="spans",
            question="how long does the GPU work and idle, undistorted (graphs as a whole)",
            launch=("--trace=cuda,nvtx,osrt", "--cuda-graph-trace=graph", _FLUSH),
            start=_NO_CPU,
            graph_rows=True,
        ),
        Profile(
            name="kernels",
            question="which kernels take the GPU's time (every graph node; short tokens are distorted)",
            launch=("--trace=cuda,nvtx,osrt", "--cuda-graph-trace=node", _FLUSH),
            start=_NO_CPU,
            graph_rows=False,
        ),
        Profile(
            name="cpu",
            question="what does the host do while the GPU idles (sampling, context switches, call chains)",
            launch=("--trace=cuda,nvtx,osrt", "--cuda-graph-trace=node", _FLUSH, "--osrt-backtrace-threshold=20000"),
            start=("--sample=process-tree", "--cpuctxsw=process-tree"),
            graph_rows=False,
        ),
        Profile(
            name="light",
            question="long runs: graphs as a whole, only OS calls of 100 µs and more",
            launch=("--trace=cuda,osrt", "--cuda-graph-trace=graph", _FLUSH, "--osrt-threshold=100000"),
            start=_NO_CPU,
            graph_rows=True,
        ),
    )
}


def check_profile(profile: Profile, nsys: Nsys, environment: Mapping[str, str]) -> None:
    """Refuse a profile that this nsys cannot deliver.

    Without CUDA graphs in the program there are no whole-graph rows to miss.

    Raises:
        UsageError: with the reason.
    """
    if profile.graph_rows and not exports_graph_rows(nsys) and not environment.get(DISABLE_GRAPHS):
        raise UsageError(
            f"the profile {profile.name} needs whole-graph rows, and nsys {nsys.version_text} cannot export them: "
            "graph launches would show without any work",
            hint=f"use --profile kernels, nsys of 2024 or later, or set {DISABLE_GRAPHS}=1",
        )
    for option in (*profile.launch, *profile.start):
        name = option.partition("=")[0]
        if name not in options(nsys, "profile"):
            raise UsageError(
                f"nsys {nsys.version_text} does not know {name}, which the profile {profile.name} needs",
                hint="use a newer nsys: name it with --nsys",
            )
