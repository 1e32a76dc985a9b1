"""Call classes: by name, by frame, and that the shipped patterns say what the project's definitions say."""

import json
from importlib import resources
from pathlib import Path

import polars as pl
import pytest

from nsyskit.analysis.calls import api_class, base_name, classify_calls, os_class


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("cudaLaunchKernel_v7000", "cudaLaunchKernel"),
        ("cudaGraphLaunch_v10000", "cudaGraphLaunch"),
        ("cuMemcpyHtoD_v2", "cuMemcpyHtoD"),
        ("cudaMemcpyAsync_ptsz", "cudaMemcpyAsync"),
        ("cuMemcpyDtoH_v2_ptds", "cuMemcpyDtoH"),
        ("cudaLaunchKernel_ptsz_v7000", "cudaLaunchKernel"),
        ("cudaFree", "cudaFree"),
        ("cudaMalloc_v", "cudaMalloc_v"),
        ("a_v2_b", "a_v2_b"),
    ],
)
def test_base_name(name, base):
    assert base_name(name) == base


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cudaStreamSynchronize_v3020", "sync"),
        ("cuStreamSynchronize", "sync"),
        ("cudaDeviceSynchronize", "sync"),
        ("cudaEventSynchronize", "sync"),
        ("cuCtxSynchronize", "sync"),
        ("cudaMemcpy_v3020", "sync"),
        ("cudaMemcpy2D", "sync"),
        ("cuMemcpyHtoD_v2", "sync"),
        ("cudaMemcpyToSymbol", "sync"),
        ("cudaMemcpyAsync_v3020", "submit"),
        ("cuMemcpyHtoDAsync_v2", "submit"),
        ("cudaMemcpyPeerAsync", "submit"),
        ("cudaLaunchKernel", "submit"),
        ("cudaLaunchKernelExC_v11060", "submit"),
        ("cuLaunchKernelEx", "submit"),
        ("cudaGraphLaunch_v10000", "submit"),
        ("cuGraphLaunch", "submit"),
        ("cudaMemset", "submit"),
        ("cudaMemsetAsync", "submit"),
        ("cudaMemPrefetchAsync", "submit"),
        ("cudaMalloc", "cuda"),
        ("cudaGraphInstantiate_v12000", "cuda"),
        ("cudaStreamWaitEvent", "cuda"),
        ("cudaStreamQuery", "cuda"),
        ("mycudaMemcpy", "cuda"),
        ("", "cuda"),
    ],
)
def test_api_class(name, expected):
    assert api_class(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("poll", "blocked"),
        ("ppoll", "blocked"),
        ("select", "blocked"),
        ("epoll_wait", "blocked"),
        ("epoll_pwait2", "blocked"),
        ("sem_wait", "blocked"),
        ("sem_clockwait", "blocked"),
        ("pthread_cond_timedwait", "blocked"),
        ("pthread_mutex_lock", "blocked"),
        ("pthread_rwlock_rdlock", "blocked"),
        ("pthread_join", "blocked"),
        ("clock_nanosleep", "blocked"),
        ("__recvfrom", "blocked"),
        ("accept4", "blocked"),
        ("waitpid", "blocked"),
        ("sched_yield", "blocked"),
        ("sem_post", "os"),
        ("pthread_cond_signal", "os"),
        ("pthread_mutex_trylock", "os"),
        ("read", "os"),
        ("ioctl", "os"),
        ("polling", "os"),
        ("odd\nname", "os"),
    ],
)
def test_os_class(name, expected):
    assert os_class(name) == expected


def test_classify_calls_keeps_rows_and_their_order():
    names = pl.DataFrame({"name_id": [8, 3, 5, 9], "name": ["cudaFree", "cudaLaunchKernel_v7000", None, "cudaFree"]})
    assert classify_calls(names, "api").rows() == [
        (8, "cudaFree", "cudaFree", "cuda"),
        (3, "cudaLaunchKernel_v7000", "cudaLaunchKernel", "submit"),
        (5, None, "", "cuda"),
        (9, "cudaFree", "cudaFree", "cuda"),
    ]


def test_classify_calls_of_the_os():
    names = pl.DataFrame({"name_id": [1, 2], "name": ["poll", "read"], "more": [0, 0]})
    assert classify_calls(names, "os").get_column("class").to_list() == ["blocked", "os"]


def test_classify_calls_of_nothing():
    nothing = pl.DataFrame(schema={"name_id": pl.Int64, "name": pl.String})
    assert classify_calls(nothing, "api").schema == {
        "name_id": pl.Int64, "name": pl.String, "base_name": pl.String, "class": pl.String,
    }  # fmt: skip


def test_shipped_patterns_are_the_reference_ones():
    reference = Path(__file__).parents[2] / "shared" / "call-classes.json"
    if not reference.exists():
        pytest.skip(f"{reference} is not there")
    shipped = json.loads(resources.files("nsyskit.analysis").joinpath("call-classes.json").read_text())
    expected = json.loads(reference.read_text())
    assert [list(shipped[kind].items()) for kind in ("api", "os")] == [
        list(expected[kind].items()) for kind in ("api", "os")
    ]
