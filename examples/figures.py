"""Every figure of a trace as an HTML file of its own: python examples/figures.py TRACE [FOLDER]."""

import sys
from pathlib import Path

import nsyskit
from nsyskit.report.figures import figure, has_figure

report = nsyskit.analyze(nsyskit.open_trace(sys.argv[1]))
folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
for name, result in report.sections.items():
    if not has_figure(result) or name == "kern_exec_sum":
        continue
    drawn = figure(result)
    if folder is None:
        print(f"{name:16} {len(drawn.data)} traces")
    else:
        folder.mkdir(exist_ok=True)
        drawn.write_html(folder / f"{name}.html", include_plotlyjs="directory")
        print(folder / f"{name}.html")
