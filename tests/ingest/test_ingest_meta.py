"""Facts about a trace: versions, what was collected, which GPU an ordinal means."""

from __future__ import annotations

import pytest
from tiny_trace import (
    Row,
    api,
    cuda_device,
    exporter,
    fact,
    gpu,
    kernel,
    nvtx,
    open_tiny,
    os_call,
    process,
    sample,
    switch,
)

from nsyskit.ingest import open_trace
from nsyskit.trace import Gpu, Process

T4 = gpu(0, "Tesla T4", ordinal=0, uuid="GPU-5", memoryBandwidth=320, totalMemory=16, smCount=40, clockRate=3,
         computeMajor=7, computeMinor=5)  # fmt: skip


def test_versions_of_every_schema(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "none").mkdir()
    new = open_tiny(tmp_path / "new", exporter("2025.3.1.90", "3.20.2")).meta
    old = open_tiny(tmp_path / "old", fact("EXPORT_SCHEMA_VERSION", "2.9.1", table="EXPORT_META_DATA")).meta
    none = open_tiny(tmp_path / "none", kernel("k", 3, 5)).meta
    assert (new.nsys_version, new.schema_version) == ("2025.3.1.90", "3.20.2")
    assert (old.nsys_version, old.schema_version) == (None, "2.9.1")
    assert (none.nsys_version, none.schema_version) == (None, None)


@pytest.mark.parametrize(
    ("row", "source"),
    [
        (kernel("k", 3, 5), "cuda"), (api("cudaFree", 3, 5), "cuda"), (os_call("poll", 3, 5), "osrt"),
        (nvtx("x", 3, 5), "nvtx"), (switch(3, runs=True), "sched"), (sample(3, "f", number=1), "samples"),
        (fact("CAPTURE_EVENT_TYPE", "Cuda"), "cuda"), (fact("CAPTURE_EVENT_TYPE", "OSRuntime"), "osrt"),
        (fact("CAPTURE_EVENT_TYPE", "NvtxEvents"), "nvtx"),
    ],
)  # fmt: skip
def test_a_source_was_collected_when_rows_or_metadata_say_so(tmp_path, row, source):
    sources = open_tiny(tmp_path, row).meta.sources
    assert [name for name, collected in sources.items() if collected] == [source]


def test_metadata_that_says_no_proves_nothing(tmp_path):
    trace = open_tiny(tmp_path, kernel("k", 3, 5), fact("CUDA_OPTIONS:ENABLED", "false"))
    assert trace.meta.sources["cuda"]


def test_row_counts_are_those_of_the_file_without_nsyss_enumerations(tmp_path):
    meta = open_tiny(
        tmp_path, kernel("k", 3, 5), kernel("k", 5, 8), Row("ENUM_CUDA_MEM_KIND", {"id": 0, "name": "x"}), eager=True
    ).meta
    assert dict(meta.tables) == {"CUPTI_ACTIVITY_KIND_KERNEL": 2, "StringIds": 1}


def test_facts_of_a_gpu(tmp_path):
    assert open_tiny(tmp_path, T4).meta.gpus == (
        Gpu(0, "Tesla T4", "GPU-5", memory_bandwidth=320, memory_bytes=16, sm_count=40, compute_capability=(7, 5),
            clock_hz=3),
    )  # fmt: skip


def test_what_a_gpu_does_not_say_is_none(tmp_path):
    assert open_tiny(tmp_path, gpu(3, None)).meta.gpus == (Gpu(3, "unknown GPU"),)


class TestWhichGpu:
    def test_by_the_files_own_table(self, tmp_path):
        meta = open_tiny(tmp_path, gpu(0, "A", ordinal=3), gpu(1, "B", ordinal=0), cuda_device(1, 0, pid=5)).meta
        assert meta.gpu_of(5, 0) == Gpu(1, "B")

    def test_two_processes_see_different_gpus_under_one_ordinal(self, tmp_path):
        meta = open_tiny(tmp_path, gpu(0, "A"), gpu(1, "B"), cuda_device(0, 0, pid=3), cuda_device(1, 0, pid=5)).meta
        assert [meta.gpu_of(pid, 0).name for pid in (3, 5)] == ["A", "B"]

    def test_never_by_id(self, tmp_path):
        """A real file has GPU 0 under ordinal 3."""
        assert open_tiny(tmp_path, gpu(0, "A", ordinal=3), gpu(1, "B", ordinal=0)).meta.gpu_of(5, 0) is None

    def test_the_only_gpu_needs_no_table(self, tmp_path):
        assert open_tiny(tmp_path, gpu(0, "A", ordinal=0)).meta.gpu_of(5, 0) == Gpu(0, "A")

    @pytest.mark.parametrize(("variable", "known"), [("HOME=/root", "B"), ("CUDA_VISIBLE_DEVICES=1", None)])
    def test_of_several_only_where_the_environment_hides_none(self, tmp_path, variable, known):
        meta = open_tiny(
            tmp_path, gpu(0, "A", ordinal=3), gpu(1, "B", ordinal=0), fact("PROCESS_0:ENVIRONMENT_VARIABLE", variable)
        ).meta
        found = meta.gpu_of(5, 0)
        assert (found and found.name) == known

    def test_the_systems_environment_counts_too(self, tmp_path):
        hidden = Row("TARGET_INFO_SYSTEM_ENV", {"name": "DeviceEnvironment", "value": "A=1\nCUDA_VISIBLE_DEVICES=0"})
        assert open_tiny(tmp_path, gpu(0, "A", ordinal=0), gpu(1, "B", ordinal=1), hidden).meta.gpu_of(5, 0) is None


def test_programs_lose_their_folders(tmp_path):
    meta = open_tiny(tmp_path, process("/home/jane/llama-server", pid=5), process("C:\\Users\\jane\\a.exe", pid=3)).meta
    assert meta.processes == (Process(3, "a.exe"), Process(5, "llama-server"))
    assert meta.program_of(5) == "llama-server"
    assert meta.program_of(8) is None


def test_how_nsys_was_told_to_look(tmp_path):
    capture = open_tiny(
        tmp_path, fact("PROCESS_0:COMMAND", "llama-bench"), fact("PROCESS_0:ARGUMENT_1", "b"),
        fact("PROCESS_0:ARGUMENT_0", "a"), fact("CUDA_OPTIONS:CUDA_GRAPH_TRACE_OPTIONS:MODE", "Node"),
        fact("OS_RUNTIME_OPTIONS:DURATION_THRESHOLD_NS", "1000"),
        Row("TARGET_INFO_SESSION_START_TIME", {"utcEpochNs": 8_000_000_000}),
    ).meta.capture  # fmt: skip
    assert capture.command == ("llama-bench", "a", "b")
    assert (capture.cuda_graph_trace, capture.osrt_threshold_ns) == ("node", 1000)
    assert capture.session_start_utc_ns == 8_000_000_000


@pytest.mark.parametrize(
    ("name", "version", "schema", "sources"),
    [
        ("rtx6000-2021-export", None, None, {"cuda", "osrt"}),
        ("rtx6000-2021-reexport", "2023.4.4.54", "3.7.2", {"cuda", "osrt", "nvtx"}),
        ("cpu-llama-bench", "2023.4.4.54", "3.7.2", {"cuda", "osrt", "nvtx"}),
        ("a100-cloverleaf", "2024.5.1.113", "3.13.2", {"cuda", "osrt", "nvtx", "sched", "samples"}),
        ("rtx5060-no-kernels", "2025.1.3.140", "3.17.2", None),
        ("t4-power-iteration", "2025.3.1.90", "3.20.2", {"cuda", "osrt", "nvtx", "sched", "samples"}),
        ("rtx4060-no-kernels", "2025.5.1.121", "3.23.3", None),
        ("rtx3080-two-kernels", "2026.1.1.204", "3.24.14", None),
        ("h100x2-train", "2026.2.1.210", "3.25.0", {"cuda", "nvtx"}),
    ],
)
def test_real_exports_of_every_schema(real, name, version, schema, sources):
    meta = open_trace(real(name)).meta
    assert (meta.nsys_version or "").startswith(version or ""), meta.nsys_version
    assert meta.schema_version == schema
    if sources is not None:
        assert {source for source, collected in meta.sources.items() if collected} == sources


def test_the_same_report_through_two_exporters_holds_the_same_events(real):
    old, new = (open_trace(real(name)) for name in ("rtx6000-2021-export", "rtx6000-2021-reexport"))
    for table in ("kernels", "memcpys", "memsets", "api_calls", "syncs", "os_calls"):
        numbers = [column for column in old.tables[table].collect_schema() if not column.endswith("name_id")]
        assert old.tables[table].select(numbers).collect().equals(new.tables[table].select(numbers).collect()), table
