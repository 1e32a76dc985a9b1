"""``nsyskit info``: the facts, and nothing of the user's."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from tiny_trace import (
    Row,
    api,
    diagnostic,
    exporter,
    fact,
    gpu,
    kernel,
    open_tiny,
    os_call,
    process,
    string,
    write_sqlite,
)

from nsyskit.cli import cli
from nsyskit.ingest import open_trace
from nsyskit.report.info import info_document, render_info

SECRETS = ("sk-5ecret", "/home/jane", "jane", "gpu-box-7", "10.0.0.5", "hunter2")
PRIVATE = (
    exporter("2025.3.1.90", "3.20.2"), process("/home/jane/build/bin/llama-server"),
    fact("PROCESS_0:COMMAND", "/home/jane/build/bin/llama-server"),
    fact("PROCESS_0:ARGUMENT_0", "--api-key=sk-5ecret"), fact("PROCESS_0:ENVIRONMENT_VARIABLE", "TOKEN=hunter2"),
    fact("PROCESS_0:WORKING_DIRECTORY", "/home/jane"), fact("HOST_NAME", "gpu-box-7"), fact("USER_NAME", "jane"),
    Row("TARGET_INFO_SYSTEM_ENV", {"name": "Hostname", "value": "gpu-box-7", "devStateName": "x"}),
    Row("TARGET_INFO_SYSTEM_ENV", {"name": "DeviceEnvironment", "value": "SSH_CLIENT=10.0.0.5\nHOME=/home/jane"}),
    string(900, "TOKEN=hunter2"), string(901, "/home/jane/.config"),
    diagnostic("Cannot open /home/jane/x: events dropped"),
    api("cudaLaunchKernel", 0, 3, corr=1), kernel("k", 5, 8, corr=1), os_call("poll", 0, 3),
)  # fmt: skip


def test_the_facts(tmp_path):
    trace = open_tiny(
        tmp_path, exporter("2025.3.1.90", "3.20.2"), fact("PROCESS_0:COMMAND", "/opt/bin/llama-bench"),
        fact("CUDA_GRAPH_TRACE_OPTIONS:MODE", "Node"), fact("OS_RUNTIME_OPTIONS:DURATION_THRESHOLD_NS", "1000"),
        gpu(0, "Tesla T4", totalMemory=16_000_000_000, memoryBandwidth=320_000_000_000, computeMajor=7, computeMinor=5),
        Row("TARGET_INFO_SESSION_START_TIME", {"utcEpochNs": 86_400_000_000_000}), kernel("k", 5, 8),
    )  # fmt: skip
    assert render_info(trace.meta) == (
        "trace.sqlite (sqlite)\n"
        "nsys        2025.3.1.90\n"
        "schema      3.20.2\n"
        "program     llama-bench\n"
        "captured    1970-01-02T00:00:00Z\n"
        "collected   cuda\n"
        "absent      osrt, nvtx, sched, samples, gpu_metrics\n"
        "graphs      traced by node\n"
        "OS calls    from 1.000 µs on\n"
        "GPU 0       Tesla T4, 16.00 GB at 320.0 GB/s\n"
        "rows                   1  CUPTI_ACTIVITY_KIND_KERNEL\n"
        "rows                   3  META_DATA_CAPTURE\n"
        "rows                   2  META_DATA_EXPORT\n"
        "rows                   1  StringIds\n"
        "rows                   1  TARGET_INFO_GPU\n"
        "rows                   1  TARGET_INFO_SESSION_START_TIME\n"
    )
    assert info_document(trace.meta)["gpus"][0]["compute_capability"] == "7.5"


def test_a_file_that_says_little(tmp_path):
    said = render_info(open_tiny(tmp_path, string(1, "x")).meta)
    assert "nsys        unknown: the export names none" in said
    assert "schema      unknown: 2021 or older" in said
    assert "collected   nothing" in said


@pytest.mark.parametrize(
    "command",
    [
        ["info"], ["info", "--format", "json"], ["analyze"], ["analyze", "--format", "json"],
        ["analyze", "--format", "csv", "-a", "sums"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_environment_no_home_no_host_no_user(tmp_path, command):
    path = write_sqlite(tmp_path / "trace.sqlite", *PRIVATE)
    result = CliRunner().invoke(cli, [command[0], str(path), *command[1:]])
    assert result.exit_code == 0, result.output
    assert "llama-server" in result.output or command[0] == "analyze"
    assert not [secret for secret in SECRETS if secret in result.output]


def test_no_private_fact_of_a_real_trace(real_trace):
    body = json.dumps(info_document(open_trace(real_trace).meta))
    assert "/home/" not in body
    assert "ENVIRONMENT" not in body
