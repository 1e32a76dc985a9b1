"""The program's own numbers beside the trace's: which steps a tool timed, and what both say."""

from __future__ import annotations

import pytest
from synthetic import synthesize

from nsyskit import analyze, open_trace
from nsyskit.analysis.program import ProgramResult, ProgramRow, kept_texts, program, program_notes
from nsyskit.analysis.program_runs import Asked, Pass, bench_ns, perf_ns, served
from nsyskit.errors import MissingTableError
from nsyskit.ggml.outputs import ProgramNumbers


def passes(*shapes: tuple[int, int], took: int = 8, pause: int | None = 2) -> list[Pass]:
    """Steps of ``(tokens, outputs)`` one after the other, each 8 long and 2 before the next."""
    starts = range(0, 10 * len(shapes), 10)
    return [Pass(n, outputs, at, at + took, pause) for at, (n, outputs) in zip(starts, shapes, strict=True)]


def record(n_prompt: int = 0, n_gen: int = 0, *, repetitions: int = 2, n_depth: int = 0) -> ProgramNumbers:
    return ProgramNumbers(
        tool="llama-bench", label="", n_prompt=n_prompt, n_gen=n_gen, n_depth=n_depth,
        extra={"samples_ns": (1.0,) * repetitions, "n_batch": 8, "n_ubatch": 4},
    )  # fmt: skip


PP4, TOKEN = (4, 1), (1, 1)


class TestBench:
    def test_a_prompt_after_its_warm_up(self):
        assert bench_ns([record(4)], passes(PP4, PP4, PP4)) == [[8, 8]]

    def test_without_a_warm_up(self):
        assert bench_ns([record(4)], passes(PP4, PP4)) == [[8, 8]]

    def test_ubatches_of_batches(self):
        shape = [(4, 0), (4, 1), (2, 1)] * 3
        assert bench_ns([record(10)], passes(*shape)) == [[28, 28]]

    def test_generation_has_one_token_of_warm_up_and_a_pause_for_each_token(self):
        """Three tokens: begin to wait is 28, and the pause of 2 before the first is the usual one."""
        assert bench_ns([record(n_gen=3)], passes(*[TOKEN] * 7)) == [[30, 30]]

    def test_several_tests(self):
        shape = [PP4, PP4, TOKEN, TOKEN, TOKEN]
        assert bench_ns([record(4, repetitions=1), record(n_gen=2, repetitions=1)], passes(*shape)) == [
            [10],
            [20],
        ]

    @pytest.mark.parametrize("refills", [1, 2])
    def test_what_fills_the_cache_is_not_timed(self, refills):
        depth = [(4, 0), (4, 1)]
        shape = [TOKEN, *depth, TOKEN, *(depth if refills == 2 else []), TOKEN]
        assert bench_ns([record(n_gen=1, n_depth=8)], passes(*shape)) == [[8, 8]]

    def test_a_trace_that_begins_later(self):
        tests = [record(4, repetitions=2), record(3, repetitions=1)]
        assert bench_ns(tests, passes(PP4, (3, 1), (3, 1))) == [[8], [8]]

    @pytest.mark.parametrize("shape", [[PP4], [(5, 1)] * 3, []])
    def test_what_fits_in_several_places_or_none_is_left_alone(self, shape):
        assert bench_ns([record(4, repetitions=3)], passes(*shape)) == [[]]


def times(requests: list[tuple[int, int]], steps: list[Pass]) -> list[tuple[int, int] | None]:
    return [one and (one.prompt_ns, one.gen_ns) for one in served([Asked(*one) for one in requests], steps)]


class TestServer:
    def test_one_slot(self):
        """The prompt: 8 and the pause of 2; then two more tokens, from wait to wait."""
        assert times([(4, 3)], passes(PP4, TOKEN, TOKEN)) == [(10, 20)]

    def test_a_warm_up_before(self):
        assert times([(4, 2)], passes((2, 1), PP4, TOKEN)) == [(10, 10)]

    def test_two_slots_and_a_third_request(self):
        shape = [(7, 2), (2, 2), (6, 2), (1, 1)]
        assert times([(4, 2), (3, 3), (5, 2)], passes(*shape)) == [(9, 10), (9, 20), (9, 10)]
        assert {one.slack_ns for one in served([Asked(4, 2), Asked(3, 3), Asked(5, 2)], passes(*shape))} == {1}

    def test_a_batch_of_several_ubatches_samples_at_its_end(self):
        shape = [(4, 0), (4, 1), (2, 1), (2, 2)]
        assert times([(5, 2), (5, 2)], passes(*shape)) == [(30, 10), (30, 10)]

    def test_requests_up_to_the_first_that_does_not_fit(self):
        shape = [PP4, TOKEN, (9, 1), TOKEN]
        assert times([(4, 2), (3, 2)], passes(*shape)) == [(10, 10), None]

    def test_what_fits_twice_is_left_alone(self):
        shape = passes(PP4, TOKEN, (2, 1)) + passes(PP4, TOKEN)
        apart = [*shape[:2], Pass(2, 1, 20, 28, None), *shape[3:]]
        assert times([(4, 2)], apart) == [None]


class TestPerfLines:
    def test_forwards_without_sampling(self):
        assert perf_ns(4, 2, passes(PP4, TOKEN, TOKEN), ["prefill", "decode", "decode"]) == {
            "prefill": 8,
            "decode": 16,
        }

    def test_a_warm_up_is_not_counted(self):
        found = perf_ns(4, 1, passes((2, 1), PP4, TOKEN), ["prefill", "prefill", "decode"])
        assert found == {"prefill": 8, "decode": 8}

    def test_other_counts(self):
        assert perf_ns(4, 5, passes(PP4, TOKEN), ["prefill", "decode"]) == {}


class TestNotes:
    @staticmethod
    def row(printed: float, trace: float | None, ms: float = 100.0) -> ProgramResult:
        return ProgramResult((ProgramRow(ProgramNumbers(tool="t", label="pp4", tokens_per_s=printed, ms=ms), trace),))

    @pytest.mark.parametrize("trace", [None, 96.0, 104.9])
    def test_alike(self, trace):
        assert program_notes(self.row(100.0, trace)) == []

    @pytest.mark.parametrize("trace", [94.0, 106.0])
    def test_different(self, trace):
        (note,) = program_notes(self.row(100.0, trace))
        assert (note.level, note.code) == ("warning", "program_differs")
        assert "pp4: 100.0 tokens/s printed" in note.message

    def test_what_is_too_short_to_compare(self):
        assert program_notes(self.row(100.0, 90.0, ms=5.0)) == []

    def test_no_output(self):
        assert program_notes(None) == []


@pytest.mark.parametrize(
    ("recipe", "count"),
    [
        (("bench-graph", "--steps", "12"), 2),
        (("bench-depth",), 1),
        (("cpu-experts",), 2),
        (("prompt-graphs", "--steps", "6"), 2),
        (("server-idle-long-prompt",), 6),
        (("demo",), 8),
        (("slots-32",), 80),
    ],
)
def test_synthetic_programs_agree_with_their_traces(tmp_path, recipe, count):
    result = program(synthesize(tmp_path, *recipe).trace)
    assert len(result.rows) == count
    assert {row.matched for row in result.rows} == {"steps"}
    assert not any(row.differs for row in result.rows)
    if recipe[0] != "slots-32":
        assert max(abs(row.difference) for row in result.rows if row.numbers.phase == "decode") < 0.02
    if result.rows[0].numbers.tool == "llama-bench":
        assert max(abs(row.difference) for row in result.rows) < 0.03


def test_each_process_has_its_own_steps(tmp_path):
    rows = program(synthesize(tmp_path, "bench-node", "--processes", "2", "--steps", "4").trace).rows
    assert len(rows) == 4
    assert all(abs(row.difference) < 0.03 for row in rows)


def test_threads_that_cannot_be_told_apart(tmp_path):
    rows = program(synthesize(tmp_path, "eight-threads", "--steps", "4").trace).rows
    assert {row.trace_tokens_per_s for row in rows} == {None}


def test_a_log_in_place_of_what_the_trace_kept(tmp_path):
    trace = synthesize(tmp_path, "bench-graph", "--steps", "4").trace
    (_, text), *_ = kept_texts(trace)
    wrong = text.replace('"avg_ts": ', '"avg_ts": 9')
    report = analyze(trace, only=["program"], logs=[wrong])
    assert all(row.difference < -0.05 for row in report.sections["program"].rows)
    assert "program_differs" in {note.code for note in report.trust}


class TestRealTraces:
    def test_llama_bench(self, real):
        rows = program(open_trace(real("cpu-llama-bench"))).rows
        assert [(row.numbers.label, row.numbers.tokens_per_s, row.difference) for row in rows] == [
            ("pp128", 8562.013574, None),
            ("tg64", 5120.104137, None),
        ]

    def test_llama_server(self, real):
        rows = program(open_trace(real("cpu-llama-server"))).rows
        assert [row.numbers.n_divisor for row in rows] == [39, 47, 1, 47, 1, 47, 1, 47]
        assert rows[1].numbers.label == "slot 0 task 0 tg48"

    def test_no_output(self, real):
        with pytest.raises(MissingTableError, match="--log"):
            program(open_trace(real("t4-power-iteration")))
