"""One figure an analysis: ``figure(result)`` is a plotly Figure for a notebook, and what the HTML report shows.

Figures carry no colours of a theme: backgrounds are transparent, so that the same figure stands on light and dark.
"""

from nsyskit.report.figures import results, served, several_gpus, timelines  # noqa: F401 - they register their figures
from nsyskit.report.figures.base import device_name, figure, has_figure

__all__ = ["device_name", "figure", "has_figure"]
