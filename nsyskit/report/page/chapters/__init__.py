"""The page's chapters: each module makes the pieces of its results, through ``sections.block``."""

from nsyskit.report.page.chapters import (  # noqa: F401 - they register their results
    bubbles,
    host,
    kernels,
    launches,
    limits,
    memory,
    program,
    served,
    several_gpus,
    steps,
)
