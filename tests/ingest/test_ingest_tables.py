"""Raw tables -> canonical tables: one row of each, and what versions of nsys do differently."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import polars as pl
import pytest
from tiny_trace import (
    PID,
    TID,
    Row,
    api,
    awaited,
    diagnostic,
    fact,
    global_tid,
    graph,
    kernel,
    memcpy,
    memset,
    nvtx,
    open_tiny,
    os_call,
    os_chain,
    overhead,
    sample,
    string,
    switch,
    thread_name,
    write_sqlite,
)

from nsyskit.ingest import open_trace
from nsyskit.schema import TABLES, empty


def rows(frame: pl.LazyFrame, *columns: str) -> list[tuple[object, ...]]:
    return frame.select(columns).collect().rows()


def test_a_kernel(tmp_path):
    trace = open_tiny(
        tmp_path,
        kernel("void mul<int>(int)", 5, 8, short="mul", corr=3, device=1, stream=7, gridX=2, blockX=32, contextId=4,
               registersPerThread=40, node=9),
    )  # fmt: skip
    row = trace.kernels.collect().row(0, named=True)
    expected = {
        "start_ns": 5, "end_ns": 8, "pid": PID, "device": 1, "context": 4, "stream": 7, "correlation_id": 3,
        "graph_node_id": 9, "grid_x": 2, "block_x": 32, "registers": 40,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    names = dict(rows(trace.strings, "string_id", "value"))
    assert (names[row["name_id"]], names[row["short_name_id"]]) == ("void mul<int>(int)", "mul")


def test_copies_memsets_and_graphs(tmp_path):
    trace = open_tiny(
        tmp_path,
        memcpy("HtoD", 3, 5, 64, src="pageable", corr=1, srcDeviceId=0, dstDeviceId=1),
        memset(5, 8, 16, corr=2),
        graph(8, 13, corr=3, graphId=5, graphExecId=6),
    )
    assert rows(trace.memcpys, "bytes", "label", "src_memory", "dst_memory", "src_device", "dst_device") == [
        (64, "HtoD", "pageable", "device", 0, 1)
    ]
    assert rows(trace.memsets, "start_ns", "bytes", "memory") == [(5, 16, "device")]
    assert rows(trace.graphs, "start_ns", "end_ns", "graph_id", "graph_exec_id") == [(8, 13, 5, 6)]


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("HtoD", "HtoD"), ("DtoH", "DtoH"), ("DtoD", "DtoD"), ("HtoH", "HtoH"), ("PtoP", "PtoP"), ("HtoA", "array"),
        ("AtoD", "array"), ("unified_HtoD", "unified_HtoD"), ("unified_DtoH", "unified_DtoH"),
        ("unified_DtoD", "unified_DtoD"), ("unknown", "other"),
    ],
)  # fmt: skip
def test_copy_labels_without_an_enum_table(tmp_path, kind, label):
    assert rows(open_tiny(tmp_path, memcpy(kind, 3, 5)).memcpys, "label") == [(label,)]


def test_the_files_own_enum_tables_come_first(tmp_path):
    trace = open_tiny(
        tmp_path,
        memcpy("HtoD", 3, 5),
        Row("ENUM_CUDA_MEMCPY_OPER", {"id": 1, "name": "CUDA_MEMCPY_KIND_DTOH"}),
        Row("ENUM_CUDA_MEM_KIND", {"id": 1, "name": "CUDA_MEMOPR_MEMORY_KIND_MANAGED_STATIC"}),
    )
    assert rows(trace.memcpys, "label", "src_memory", "dst_memory") == [("DtoH", "managed", "unknown")]


def test_calls_syncs_and_overheads(tmp_path):
    trace = open_tiny(
        tmp_path,
        api("cudaFree", 0, 3, corr=1, returnValue=2),
        api("cudaFree", 0, 2, corr=1, eventClass=67),
        awaited(5, stream=13, eventId=21),
        overhead("CUPTI buffer flush", 3, 5),
    )
    assert rows(trace.api_calls, "start_ns", "end_ns", "pid", "tid", "correlation_id", "duplicate", "return_value") == [
        (0, 2, PID, TID, 1, True, 0), (0, 3, PID, TID, 1, False, 2),
    ]  # fmt: skip
    assert rows(trace.syncs, "correlation_id", "stream", "event_id") == [(5, 13, 21)]
    assert rows(trace.overheads, "start_ns", "end_ns", "tid") == [(3, 5, TID)]


def test_os_calls_are_those_of_class_27(tmp_path):
    calls = [os_call("poll", 3, 5), os_call("start", 0, 0, event_class=28), os_call("finish", 9, 9, event_class=29)]
    assert rows(open_tiny(tmp_path, *calls).os_calls, "start_ns", "end_ns", "tid") == [(3, 5, TID)]


def test_an_old_export_without_event_classes_holds_calls_only(tmp_path):
    trace = open_tiny(
        tmp_path, os_call("poll", 3, 5), os_call("read", 8, 9, event_class=28), api("cudaFree", 0, 3, eventClass=67),
        drop=("eventClass",),
    )  # fmt: skip
    assert rows(trace.os_calls, "start_ns") == [(3,), (8,)]
    assert rows(trace.api_calls, "duplicate") == [(False,)]


def test_samples_switches_chains_and_names(tmp_path):
    trace = open_tiny(
        tmp_path,
        sample(5, "matmul", "main", number=1),
        switch(3, runs=True),
        switch(8, runs=False),
        os_chain(4, "poll", "loop"),
        thread_name("worker"),
    )
    names = dict(rows(trace.strings, "string_id", "value"))
    chain = rows(trace.tables["sample_chains"], "chain_id", "depth", "symbol_id")
    assert [(number, depth, names[symbol]) for number, depth, symbol in chain] == [(1, 0, "matmul"), (1, 1, "main")]
    assert rows(trace.tables["samples"], "start_ns", "tid", "sample_id") == [(5, TID, 1)]
    assert rows(trace.tables["sched"], "start_ns", "is_in") == [(3, True), (8, False)]
    assert [names[symbol] for (symbol,) in rows(trace.tables["os_chains"], "symbol_id")] == ["poll", "loop"]
    assert [names[number] for (number,) in rows(trace.tables["thread_names"], "name_id")] == ["worker"]


def test_diagnostics(tmp_path):
    trace = open_tiny(tmp_path, diagnostic("events dropped", severity=2), diagnostic("odd", severity=77))
    assert rows(trace.tables["diagnostics"], "severity", "text") == [("warning", "events dropped"), ("unknown", "odd")]


def test_rows_come_sorted_whatever_their_order_in_the_file(tmp_path):
    kernels = [kernel("c", 8, 9, corr=3), kernel("a", 3, 8, corr=1), kernel("b", 3, 5, corr=2, gridX=2)]
    trace = open_tiny(tmp_path, *kernels)
    assert rows(trace.kernels, "start_ns", "end_ns", "correlation_id") == [(3, 5, 2), (3, 8, 1), (8, 9, 3)]
    assert rows(trace.kernels, "correlation_id", "grid_x") == [(2, 2), (1, 0), (3, 0)], "a wide column, read later"


def test_rows_that_start_and_end_together_keep_the_files_order(tmp_path):
    trace = open_tiny(tmp_path, *(kernel("k", 5, 5, corr=number) for number in (8, 3, 5)))
    assert rows(trace.kernels, "correlation_id") == [(8,), (3,), (5,)]


def test_optional_columns_may_be_absent(tmp_path):
    absent = ("graphNodeId", "correlationId", "contextId", "srcKind", "dstKind", "callchainId", "gridX", "globalPid")
    trace = open_tiny(tmp_path, kernel("k", 3, 5), memcpy("HtoD", 5, 8), api("cudaFree", 0, 3), drop=absent)
    assert rows(trace.kernels, "graph_node_id", "correlation_id", "context", "grid_x", "pid") == [(None,) * 5]
    assert rows(trace.memcpys, "label", "src_memory") == [("HtoD", "unknown")]
    assert rows(trace.api_calls, "correlation_id", "callchain_id") == [(None, None)]


def test_a_table_without_rows_is_an_empty_frame_of_the_right_schema(tmp_path):
    lazily = open_tiny(tmp_path, string(1, "lonely"))
    eagerly = open_trace(write_sqlite(tmp_path / "eager.sqlite", string(1, "lonely"), eager=True))
    for trace in (lazily, eagerly):
        for table in TABLES:
            if table != "strings":
                assert trace.tables[table].collect().equals(empty(table)), table


def test_one_kernel_name_under_two_ids_is_one_kernel(tmp_path):
    trace = open_tiny(
        tmp_path, string(3, "mul"), string(5, "mul"), string(8, "add"),
        kernel("", 0, 1, demangledName=5, shortName=5), kernel("", 1, 2, demangledName=3, shortName=8),
    )  # fmt: skip
    assert rows(trace.kernels, "name_id") == [(3,), (3,)]


def test_process_and_thread_come_out_of_the_global_id(tmp_path):
    largest = 0xFFFFFF
    trace = open_tiny(tmp_path, api("cudaFree", 0, 3, pid=largest, tid=largest), api("cudaFree", 5, 8, pid=1, tid=2))
    assert rows(trace.api_calls, "pid", "tid") == [(largest, largest), (1, 2)]


def test_a_global_id_that_sqlite_shows_as_negative(tmp_path):
    trace = open_tiny(tmp_path, api("cudaFree", 0, 3, globalTid=global_tid(10, 11) - (1 << 63)))
    assert rows(trace.api_calls, "pid", "tid") == [(10, 11)]


class TestNvtx:
    def test_ranges_and_nothing_else(self, tmp_path):
        trace = open_tiny(
            tmp_path, nvtx("step", 3, 8), nvtx("load", 0, 5, style="StartEnd"), nvtx("here", 4, None, style="mark")
        )
        assert rows(trace.nvtx, "start_ns", "end_ns", "style", "text") == [
            (0, 5, "StartEnd", "load"), (3, 8, "PushPop", "step"),
        ]  # fmt: skip

    def test_a_registered_text(self, tmp_path):
        trace = open_tiny(tmp_path, string(5, "registered"), nvtx(None, 3, 8, textId=5))
        assert rows(trace.nvtx, "text") == [("registered",)]

    def test_a_domain_stands_before_its_ranges(self, tmp_path):
        trace = open_tiny(tmp_path, nvtx("NCCL", -2, None, style="domain", domain=3), nvtx("reduce", 3, 8, domain=3))
        assert rows(trace.nvtx, "text") == [("NCCL:reduce",)]

    def test_a_range_that_was_never_closed_lasts_to_the_end_of_the_table(self, tmp_path):
        trace = open_tiny(tmp_path, nvtx("open", 3, None), nvtx("closed", 5, 13))
        assert rows(trace.nvtx, "text", "end_ns") == [("open", 13), ("closed", 13)]


def test_text_that_is_not_utf8_does_not_cost_the_trace(tmp_path):
    path = write_sqlite(tmp_path / "trace.sqlite", kernel("mul", 3, 5), string(99, "stdout of the program"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE StringIds SET value = CAST(x'6fff6b' AS TEXT) WHERE id = 99")
        connection.commit()
    assert dict(rows(open_trace(path).strings, "string_id", "value"))[99] == "o\N{REPLACEMENT CHARACTER}k"


def test_strings_that_are_null_or_odd_stay_text(tmp_path):
    trace = open_tiny(tmp_path, string(1, ""), string(2, "12"), string(3, "a\nb"))
    assert rows(trace.strings, "value") == [("",), ("12",), ("a\nb",)]


def test_a_table_larger_than_one_range_is_read_whole(tmp_path):
    many = 100_001
    path = write_sqlite(tmp_path / "trace.sqlite", [os_call("poll", number, number + 3) for number in range(many)])
    calls = open_trace(path).os_calls.collect()
    assert calls["start_ns"].to_list() == list(range(many))
    assert int((calls["end_ns"] - calls["start_ns"]).sum()) == 3 * many


def test_metadata_pairs_may_repeat_and_be_null(tmp_path):
    trace = open_tiny(
        tmp_path, fact("CAPTURE_EVENT_TYPE", "Cuda"), fact("CAPTURE_EVENT_TYPE", "OSRuntime"),
        Row("META_DATA_CAPTURE", {"name": "NOTHING", "value": None}),
    )  # fmt: skip
    assert trace.meta.capture.events == ("Cuda", "OSRuntime")
