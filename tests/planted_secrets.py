"""Secrets of more than thirty kinds, and a small trace that holds each of them where nsys would put it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tiny_trace import (
    Row,
    api,
    awaited,
    diagnostic,
    exporter,
    fact,
    global_tid,
    kernel,
    memcpy,
    nvtx,
    os_call,
    os_chain,
    process,
    sample,
    string,
    switch,
    thread_name,
    write_sqlite,
)

PID = 10
_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----b3BlbnNzaC1rZXk-----END OPENSSH PRIVATE KEY-----"
_JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJxIn0.c2lnbmF0dXJl"

VARIABLES: Final = {
    "OPENAI_API_KEY": "sk-proj-Zx81hQw0", "HF_TOKEN": "hf_PlantedTokenAbc", "AWS_ACCESS_KEY_ID": "AKIAPLANTED0KEY12",
    "AWS_SECRET_ACCESS_KEY": "wJalrPlanted/K7MDENG", "GITHUB_TOKEN": "ghp_plantedplanted123", "PGPASSWORD": "swordfish",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567", "NPM_TOKEN": "npm_plantedABCDEF",
    "SLACK_TOKEN": "xoxb-planted-12345", "GITLAB": "glpat-plantedplanted", "SESSION_COOKIE": "chocolatechip",
    "USER": "mallory", "LOGNAME": "mallory", "HOME": "/home/mallory", "HOSTNAME": "gpubox17.corp.example.com",
    "SSH_CONNECTION": "203.0.113.9 50022 198.51.100.7 22", "SSH_AUTH_SOCK": "/tmp/ssh-XXplant/agent.99",
    "HTTPS_PROXY": "http://proxyuser:proxypass@proxy.corp.example.com:3128", "SMTP_FROM": "mallory@example.com",
    "DATABASE_URL": "postgres://dbuser:dbpassword@db.internal/prod", "KUBECONFIG": "/home/mallory/.kube/config",
    "PWD": "/data/acme-merger", "GCP": "ya29.plantedGcpToken", "NVIDIA_KEY": "nvapi-plantedNvapi",
    "CUDA_VISIBLE_DEVICES": "0", "GGML_CUDA_FORCE_MMQ": "1", "GCE_HOST_MAC": "de:ad:be:ef:00:17",
}  # fmt: skip

ARGUMENTS: Final = (
    "-m", "/home/mallory/models/tiny.gguf", "-ngl", "99", "--api-key", "argkey-one,argkey-two",
    "--api-key=argkey-three", "-hft", "hf_ArgTokenXyz", "-p", "the secret prompt of the merger",
    "--host", "192.0.2.44", "--rpc", "198.51.100.9:50052",
    "--alias", "projectbluebird", "--ssl-key-file", "/home/mallory/tls/key.pem",
    "-H", "Authorization: Bearer plantedbearer",
    "-hfr", "acme-private/bluebird", "--password", "734918265550",
)  # fmt: skip

PLANTED: Final = frozenset({
    "sk-proj-Zx81hQw0", "hf_PlantedTokenAbc", "AKIAPLANTED0KEY12", "wJalrPlanted", "ghp_plantedplanted123", "swordfish",
    "0123456789abcdef0123456789abcdef01234567", "npm_plantedABCDEF", "xoxb-planted-12345", "glpat-plantedplanted",
    "chocolatechip", "mallory", "gpubox17", "corp.example", "203.0.113.9", "198.51.100.7", "XXplant", "proxyuser",
    "proxypass", "dbpassword", "db.internal", "acme-merger", "plantedGcpToken", "plantedNvapi", "de:ad:be:ef:00:17",
    "argkey-one", "argkey-two", "argkey-three", "hf_ArgTokenXyz", "secret prompt", "192.0.2.44", "198.51.100.9",
    "projectbluebird", "plantedbearer", "acme-private", "734918265550", "OPENSSH PRIVATE", "b3BlbnNzaC1rZXk", _JWT,
    "2001:db8:", "printed by the program", "uid=1017", "ssh-ed25519", "AAAAC3Planted", "secondhost", "evilyn",
    "D:\\Users", "\\\\fileserver", "quarterly", "diagnosticsecret", "unknownfact77", "OPENAI_API_KEY", "SSH_CONNECTION",
})  # fmt: skip
"""What no output may hold: pieces that occur in nothing else."""

KEPT: Final = (
    "mul_mat_q",
    "cudaLaunchKernel_v7000",
    "ggml_backend_sched_graph_compute",
    "prefill of user 7",
    "llama-srv",
)
"""What a clean trace still holds."""


def environment() -> str:
    return "\0".join(f"{name}={value}" for name, value in VARIABLES.items())


def rows() -> list[Row | list[Row]]:
    return [
        *_events(), *_facts(), *_strings(),
    ]  # fmt: skip


def plant(path: Path) -> Path:
    """Write the trace."""
    return write_sqlite(path, *rows())


def _events() -> list[Row | list[Row]]:
    return [
        api("cudaLaunchKernel_v7000", 0, 3, corr=1), kernel("mul_mat_q", 5, 13, corr=1),
        api("cudaMemcpyAsync_v3020", 14, 16, corr=2), memcpy("HtoD", 17, 21, 640, corr=2),
        api("cudaStreamSynchronize_v3020", 22, 30, corr=3), awaited(3), api("cudaLaunchKernel_v7000", 31, 33, corr=4),
        kernel("mul_mat_q", 35, 45, corr=4), os_call("poll", 46, 60, chain=1), nvtx("prefill of user 7", 0, 40),
        os_chain(1, "poll", "ggml_backend_sched_graph_compute"),
        sample(6, "ggml_backend_sched_graph_compute", number=1, module="/home/mallory/build/bin/libggml-cuda.so"),
        sample(7, "inner", number=2, module="/data/acme-merger/quarterly/libllama.so"),
        sample(8, "inner", number=3, module="D:\\Users\\evilyn\\build\\llama.dll"),
        sample(9, "inner", number=4, module="\\\\fileserver\\share\\x.dll"),
        switch(1, runs=True), thread_name("llama-srv"), thread_name("mallory@secondhost", tid=12),
        process("/home/mallory/llama.cpp/build/bin/llama-server"), process("/home/evilyn/x/python3", pid=77),
        diagnostic("Could not read /home/mallory/.ssh/id: password diagnosticsecret, 3 events dropped"),
        diagnostic("Target gpubox17.corp.example.com (203.0.113.9) with token sk-proj-Zx81hQw0"),
    ]  # fmt: skip


def _facts() -> list[Row | list[Row]]:
    target = "TARGET_INFO_SYSTEM_ENV"
    captured = [("CAPTURE_EVENT_TYPE", "Cuda"), ("DEVICE_DISPLAY_NAME", "gpubox17"), ("PROCESS_0:USER_NAME", "mallory")]
    captured += [("PROCESS_0:COMMAND", "/home/mallory/llama.cpp/build/bin/llama-server")]
    captured += [("PROCESS_0:WORKING_DIR", "/data/acme-merger"), ("NOTE", "unknownfact77 (uid=1017)")]
    captured += [("PROCESS_0:CUDA_GRAPH_TRACE_OPTIONS:MODE", "Graph"), ("PROXY_PASSWORD", "swordfish")]
    captured += [(f"PROCESS_0:ARGUMENT_{at}", word) for at, word in enumerate(ARGUMENTS)]
    captured += [("PROCESS_0:ENVIRONMENT_VARIABLE", f"{name}={value}") for name, value in VARIABLES.items()]
    exported = [
        ("EXPORT_HOST", "gpubox17"),
        ("EXPORT_USER", "mallory"),
        ("EXPORT_PARAM_INPUT_FILE", "quarterly.nsys-rep"),
    ]
    exported += [("EXPORT_PARAM_INPUT_PATH_ABS", "/home/mallory/acme-merger/quarterly.nsys-rep")]
    devices = [("DeviceEnvironment", environment()), ("Hostname", "gpubox17.corp.example.com"), ("CpuCores", "16")]
    devices += [("NicInfo", '{"mac":"de:ad:be:ef:00:17","ip":"2001:db8::17"}'), ("OsDescription", "Debian 12")]
    return [
        *exporter(), *(fact(name, value) for name, value in captured),
        *(fact(name, value, table="META_DATA_EXPORT") for name, value in exported),
        *(Row(target, {"name": name, "devStateName": "Local (CLI)", "value": value}) for name, value in devices),
        Row("TARGET_INFO_SESSION_START_TIME", {"utcEpochNs": 5, "utcTime": "2026-01-01T00:00:00"}),
    ]  # fmt: skip


def _strings() -> list[Row | list[Row]]:
    streams = {"filenameId": 902, "contentId": 903, "globalPid": global_tid(PID, 0)}
    return [
        string(900, environment()), string(901, "OPENAI_API_KEY=sk-proj-Zx81hQw0"),
        string(902, "/tmp/nvidia/streams/mallory/pid_10_stdout.log"),
        string(903, f"printed by the program: {_KEY} {_JWT} ssh-ed25519 AAAAC3Planted mallory@gpubox17\n"),
        string(904, "uid=1017(mallory)"), string(905, _JWT),
        string(906, "ssh mallory@198.51.100.7 -i /home/mallory/.ssh/id"),
        string(907, "2001:db8::17"), string(908, "D:\\Users\\evilyn\\quarterly.xlsx"), string(909, _KEY),
        Row("ProcessStreams", streams),
    ]  # fmt: skip
