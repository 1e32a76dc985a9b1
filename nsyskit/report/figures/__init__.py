"""One figure an analysis: ``figure(result)`` is a plotly Figure for a notebook, ``drawing(result)`` is for the page.

Figures carry no colours of a theme: backgrounds are transparent, so that the same figure stands on light and dark.
"""

from nsyskit.report.figures import results, served, several_gpus, timelines  # noqa: F401 - they register their figures
from nsyskit.report.figures.base import Drawing, device_name, drawing, figure, has_figure

__all__ = ["Drawing", "device_name", "drawing", "figure", "has_figure"]
