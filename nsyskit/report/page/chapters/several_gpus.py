"""Several GPUs on the page: which worked when, who waited for whom, what passed between them."""

from __future__ import annotations

from nsyskit.analysis.several_gpus import SeveralGpusResult
from nsyskit.report.figures import drawing
from nsyskit.report.page.elements import NOTHING, Html, join, tag, text
from nsyskit.report.page.sections import Sections, block
from nsyskit.report.page.tables import count, decimal, ns, share, size, table, words
from nsyskit.report.several_gpus import busy_sentence, copy_rows, phase_sentences, wait_rows


@block.register
def _several_gpus(result: SeveralGpusResult, made: Sections, name: str) -> Html:
    told = [tag("p", text(f"{line}.")) for line in (busy_sentence(result), *phase_sentences(result))]
    plot = made.drawn(name, drawing(result), "The window by which GPUs were at work")
    waits, copied = wait_rows(result), copy_rows(result)
    over = "Of that, with work of the idle GPU handed over already: a pipeline bubble"
    pairs = table(
        "One GPU idle while another of its process was busy",
        waits,
        [
            words("pair", lambda row: row["pair"]),
            ns("idle", "idle_ns"),
            share("of the window", "share"),
            ns("handed over", "peer_ns", over),
        ],
    )
    between = table(
        "Copies between GPUs",
        copied,
        [
            words("from → to", lambda row: row["pair"]),
            count("count", "count"),
            size("bytes", "bytes"),
            ns("time", "total_ns"),
            decimal("GB/s", "gb_per_s", ".2f"),
        ],
    )
    return join([*told, plot, pairs if waits else NOTHING, between if copied else NOTHING])
