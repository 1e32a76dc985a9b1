"""What all figures share: the dispatch, names for axes, and the house's layout.

A figure is drawn as the plain values that plotly.js takes. The page needs no more; plotly's own classes check every
one of them, which takes longer than all the rest of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any, Final

from nsyskit.analysis.devices import DeviceLedger
from nsyskit.analysis.timeline import gpu_label
from nsyskit.report.names import shortened
from nsyskit.trace import Window
from nsyskit.units import printable

if TYPE_CHECKING:
    import plotly.graph_objects as go

Drawing = dict[str, Any]
"""``data``, a list of series, and ``layout``."""
Series = dict[str, Any]

_ROW_PX: Final = 26
_UNITS: Final = ((2_000_000, "µs", 1_000), (2_000_000_000, "ms", 1_000_000))
_NAME_CHARACTERS: Final = 48


@singledispatch
def drawing(result: object) -> Drawing:
    """The figure of one result, for the page.

    Raises:
        NotImplementedError: this kind of result has none.
    """
    raise NotImplementedError(f"no figure for {type(result).__name__}")


def figure(result: object) -> go.Figure:
    """The figure of one result, for a notebook.

    Raises:
        NotImplementedError: this kind of result has none.
    """
    import plotly.graph_objects as go  # noqa: PLC0415 - slow to import, and the page needs none of it

    return go.Figure(drawing(result))


def has_figure(result: object) -> bool:
    """Whether ``figure`` knows this kind of result."""
    return drawing.dispatch(type(result)) is not drawing.dispatch(object)


def series(kind: str, **shown: Any) -> Series:
    """A series of a figure, of a kind that plotly has: ``bar``, ``scatter``, …"""
    return {"type": kind, **shown}


def device_name(ledger: DeviceLedger) -> str:
    """A GPU's number and name, or its ordinal and process where the file does not tell its name."""
    use = ledger.use
    return gpu_label(use) if use.name else f"{gpu_label(use)} of process {use.pids[0]}"


def unique_names(names: Sequence[str]) -> list[str]:
    """Short names for an axis; equal ones get a number, or plotly would put their bars on one another."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        short = clipped_name(name)
        seen[short] = seen.get(short, 0) + 1
        out.append(short if seen[short] == 1 else f"{short} ({seen[short]})")
    return out


def clipped_name(name: str, characters: int = _NAME_CHARACTERS) -> str:
    """A name for a figure: printable, without parameters, cut, and not read as markup by plotly."""
    short = printable(shortened(name))
    cut = short if len(short) <= characters else f"{short[: characters - 1]}…"
    return plain(cut)


def plain(value: str) -> str:
    """Text that plotly shows as it is: it reads <b> and its like as markup."""
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def laid_out(
    data: Sequence[Series],
    *,
    rows: int,
    x: str | None = None,
    y: str | None = None,
    legend: int = 0,
    barmode: str = "group",
    x_type: str | None = None,
    x_range: tuple[float, float | None] | None = None,
    **more: Any,
) -> Drawing:
    """The house's layout: height by rows, legend below, nothing but the data. ``more`` goes over it, key by key."""
    lines = -(-legend // 3)
    height = 70 + _ROW_PX * max(rows, 2) + 22 * lines
    axis: dict[str, Any] = {"title": {"standoff": 6}, "automargin": True}
    if x is not None:
        axis["title"]["text"] = x
    if x_type is not None:
        axis["type"] = x_type
    if x_type == "log":
        axis["dtick"] = 1  # one line a power of ten
    if x_range:
        axis |= {"range": list(x_range), "autorange": "max" if x_range[1] is None else False}
    layout = {
        "template": "none",
        "height": height,
        "barmode": barmode,
        "bargap": 0.3,
        "showlegend": legend > 0,
        "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "legend": {
            "orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "traceorder": "normal",
        },
        "xaxis": axis,
        "yaxis": {"automargin": True, "ticklabelstandoff": 4} | ({} if y is None else {"title": {"text": y}}),
        "hoverlabel": {"align": "left"},
    }  # fmt: skip
    return over({"data": list(data), "layout": layout}, **more)


def over(drawn: Drawing, **more: Any) -> Drawing:
    """The drawing with more of a layout over its own: what is a mapping in both, key by key."""
    own = drawn["layout"]
    merged = {key: own[key] | value if isinstance(own.get(key), dict) else value for key, value in more.items()}
    return {"data": drawn["data"], "layout": own | merged}


@dataclass(frozen=True, slots=True)
class TimeUnit:
    """The unit of a figure's time axis, which counts from the window's start."""

    name: str
    ns: int


def time_unit(window: Window) -> TimeUnit:
    """µs below 2 ms, ms below 2 s, else s."""
    for upto, name, factor in _UNITS:
        if window.dur_ns < upto:
            return TimeUnit(name, factor)
    return TimeUnit("s", 1_000_000_000)
