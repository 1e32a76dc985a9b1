"""The log's clock and the parts of a request, with numbers that fit in the head."""

from nsyskit.capture.gpubounds import alone
from nsyskit.capture.load import Request
from nsyskit.capture.serverlog import LogClock, log_clock, match_tasks, read_tasks
from nsyskit.capture.tax import GpuBounds, request_parts, tax_ns

LOG = """\
0.00.100.000 I slot launch_slot_: id  0 | task 3 | processing task, is_child = 0
0.00.105.000 I slot print_timing: id  0 | task 3 | prompt eval time =       3.00 ms /    23 tokens
0.00.105.000 I slot print_timing: id  0 | task 3 |        eval time =       2.00 ms /     8 tokens
0.00.106.000 I slot      release: id  0 | task 3 | stop processing: n_tokens = 30, truncated = 0
other
0.00.200.000 I slot launch_slot_: id  1 | task 9 | processing task, is_child = 0
"""
MS = 1_000_000
# The log's zero is at 1000 ms: slot launched at 1100, timings printed at 1105.
REQUEST = Request(
    index=0, send_ns=1098 * MS, first_byte_ns=1099 * MS, first_token_ns=1104 * MS, end_ns=1107 * MS, status=200,
    prompt_n=23, predicted_n=8, timings={"prompt_ms": 3.001, "predicted_ms": 1.999},
)  # fmt: skip


def test_tasks_in_a_log():
    first, second = read_tasks(LOG.splitlines())
    assert (first.id_task, first.launch_us, first.timing_us, first.release_us) == (3, 100_000, 105_000, 106_000)
    assert (first.prompt_n, first.predicted_n, first.prompt_ms, first.predicted_ms) == (23, 8, 3.0, 2.0)
    assert (second.id_slot, second.timing_us) == (1, None)


def test_the_clock_is_bounded_by_what_the_client_saw():
    matched = match_tasks([REQUEST], read_tasks(LOG.splitlines()))
    # sent at 1098, taken at log 100: zero is at 998 or later; last byte at 1107, printed at log 105: 1002 or earlier
    assert log_clock([REQUEST], matched) == LogClock(1000 * MS, 2 * MS)


def test_two_tasks_with_the_same_numbers_are_no_match():
    tasks = read_tasks((LOG + LOG.replace("task 3", "task 4")).splitlines())
    assert match_tasks([REQUEST], tasks) == {}
    assert log_clock([REQUEST], {}) is None


def test_bounds_that_exclude_each_other_are_no_clock():
    tasks = read_tasks(LOG.splitlines())
    late = Request(index=1, send_ns=1200 * MS, end_ns=1203 * MS)
    assert log_clock([REQUEST, late], {0: tasks[0], 1: tasks[0]}) is None


def test_the_parts_sum_to_the_request():
    task = read_tasks(LOG.splitlines())[0]
    parts = request_parts(REQUEST, task, LogClock(1000 * MS, 2 * MS))
    assert [(part.part, part.dur_ns // MS) for part in parts] == [
        ("accept", 2),  # 1098 to 1100
        ("prefill", 3),  # to 1103; the first byte (headers) came before and is left out
        ("deliver", 1),  # to 1104
        ("decode", 1),  # to 1105
        ("close", 2),  # to 1107
    ]
    assert sum(part.dur_ns for part in parts) == REQUEST.total_ns


def test_the_gpu_bounds_prefill_and_decode():
    task = read_tasks(LOG.splitlines())[0]
    parts = request_parts(REQUEST, task, LogClock(1000 * MS, 0), GpuBounds(1101 * MS, 1104 * MS))
    assert [(part.part, part.dur_ns // MS) for part in parts] == [
        ("accept", 2), ("prepare", 1), ("prefill", 2), ("deliver", 1), ("decode", 0), ("finish", 1), ("close", 2),
    ]  # fmt: skip


def test_without_the_log_the_wait_for_the_first_byte_is_unattributed():
    parts = request_parts(REQUEST)
    assert [(part.part, part.dur_ns // MS) for part in parts] == [("unattributed", 1), ("deliver", 5), ("stream", 3)]


def test_the_tax_is_what_the_server_does_not_report():
    assert tax_ns(REQUEST) == 4 * MS  # 9 ms less 5
    assert tax_ns(Request(index=0, end_ns=1)) is None


def test_requests_that_had_the_server_to_themselves():
    spans = [(0, 5), (5, 8), (7, 9), (20, 21), (20, 30)]
    requests = [Request(index=index, send_ns=begin, end_ns=end) for index, (begin, end) in enumerate(spans)]
    assert [request.index for request in alone(requests)] == [0]
