"""The Perfetto export, read back by a decoder of the tests' own."""

from __future__ import annotations

import subprocess
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from shutil import which

import polars as pl
import pytest
from click.testing import CliRunner
from protobuf import every, one
from tiny_trace import PID, TID, allocation, api, kernel, memcpy, open_tiny, os_call, process, thread_name

from nsyskit.analysis.pairing import api_calls, gpu_ops
from nsyskit.cli import cli
from nsyskit.errors import MissingTableError
from nsyskit.ingest import open_trace
from nsyskit.report.perfetto import write_perfetto
from nsyskit.trace import Window

pytest.importorskip("perfetto", reason="needs the extra perfetto")

BEGIN, END, COUNTER = 1, 2, 4
DEMO = Path(__file__).resolve().parents[2] / "traces" / "demo" / "trace.sqlite"


@dataclass
class Decoded:
    """What a reader of the file finds: tracks by uuid, slices (track, begin, end, name), flows, counter samples."""

    names: dict[int, str] = field(default_factory=dict)
    parents: dict[int, int | None] = field(default_factory=dict)
    slices: list[tuple[int, int, int, str]] = field(default_factory=list)
    starts: Counter = field(default_factory=Counter)
    ends: Counter = field(default_factory=Counter)
    samples: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def on(self, name: str) -> list[tuple[int, int, str]]:
        return [(begin, end, text) for track, begin, end, text in self.slices if self.names[track] == name]


def decode(content: bytes) -> Decoded:
    found, open_slices, table = Decoded(), defaultdict(list), defaultdict(dict)
    last: dict[int, int] = {}
    for packet in every(content, 1):
        sequence, at = one(packet, 10), one(packet, 8, 0)
        assert at >= last.get(sequence, 0), "time order within a sequence"
        last[sequence] = at
        if descriptor := one(packet, 60):
            _track(found, descriptor)
        if interned := one(packet, 12):
            assert one(packet, 13) == 1
            table[sequence] = {one(entry, 1): one(entry, 2).decode() for entry in every(interned, 2)}
        if event := one(packet, 11):
            _event(found, event, at, table[sequence], open_slices)
    assert not any(open_slices.values()), "every slice ends"
    return found


def _track(found: Decoded, descriptor: bytes) -> None:
    uuid, name = one(descriptor, 1), one(descriptor, 2, b"").decode()
    if told := one(descriptor, 3):
        name = f"process {one(told, 1)} {one(told, 6).decode()}"
    if told := one(descriptor, 4):
        name = f"thread {one(told, 1)}/{one(told, 2)} {one(told, 5).decode()}"
    found.names[uuid], found.parents[uuid] = name, one(descriptor, 5)


def _event(found: Decoded, event: bytes, at: int, names: dict[int, str], open_slices: dict) -> None:
    kind, track = one(event, 9), one(event, 11)
    assert track in found.names, "a track is described before its first event"
    if kind == BEGIN:
        assert not open_slices[track] or open_slices[track][-1][0] <= at
        open_slices[track].append((at, names[one(event, 10)]))
        found.starts.update(every(event, 47))
        found.ends.update(every(event, 48))
    elif kind == END:
        begin, name = open_slices[track].pop()
        found.slices.append((track, begin, at, name))
    else:
        assert kind == COUNTER
        found.samples[track].append((at, one(event, 30)))


def written(trace, **options: Window) -> Decoded:
    file = BytesIO()
    told = write_perfetto(trace, file, **options)
    found = decode(file.getvalue())
    assert told.tracks == len(found.names)
    assert told.slices == len(found.slices)
    assert told.flows == sum(found.ends.values())
    assert told.samples == sum(map(len, found.samples.values()))
    return found


ROWS = (
    process("/usr/bin/llama-bench"), thread_name("main"),
    api("cudaLaunchKernel_v7000", 0, 2, corr=1), kernel("void mul<int>(int)", 3, 8, short="mul", corr=1),
    api("cudaMemcpyAsync", 4, 5, corr=2), memcpy("DtoH", 8, 9, 64, corr=2), os_call("poll", 6, 7),
)  # fmt: skip


def test_tracks_slices_flows_and_queue_depth(tmp_path):
    found = written(open_tiny(tmp_path, *ROWS))
    thread, stream = f"thread {PID}/{TID} main", f"stream 7 of process {PID}"
    assert set(found.names.values()) == {
        f"process {PID} llama-bench", thread, "OS calls", "GPU 0", stream, "queue depth",
    }  # fmt: skip
    assert found.on(thread) == [(0, 2, "cudaLaunchKernel"), (4, 5, "cudaMemcpyAsync")]
    assert found.on(stream) == [(3, 8, "mul"), (8, 9, "memcpy DtoH 64 B")]
    assert found.on("OS calls") == [(6, 7, "poll")]
    (samples,) = found.samples.values()
    assert samples == [(2, 1), (5, 2), (8, 1)]


def test_parents_exist(tmp_path):
    found = written(open_tiny(tmp_path, *ROWS))
    named = {name: found.names.get(found.parents[uuid]) for uuid, name in found.names.items()}
    assert named["OS calls"] == f"thread {PID}/{TID} main"
    assert named[f"stream 7 of process {PID}"] == named["queue depth"] == "GPU 0"
    assert all(parent is None or parent in found.names for parent in found.parents.values())


def test_flows_pair(tmp_path):
    found = written(open_tiny(tmp_path, *ROWS))
    assert found.starts == found.ends == Counter({1: 1, 2: 1})


def test_what_overlaps_on_a_stream_goes_beside_it(tmp_path):
    """0–5, 3–8 overlap; 6–7 fits the first track again, though it lies within 3–8."""
    found = written(open_tiny(tmp_path, kernel("a", 0, 5), kernel("b", 3, 8), kernel("c", 6, 7)))
    stream = f"stream 7 of process {PID}"
    assert found.on(stream) == [(0, 5, "a"), (6, 7, "c")]
    assert found.on(f"{stream} (2)") == [(3, 8, "b")]


def test_calls_nest(tmp_path):
    found = written(open_tiny(tmp_path, api("cudaMalloc", 0, 9), api("cuMemAlloc_v2", 2, 5), kernel("k", 20, 21)))
    assert sorted(found.on(f"thread {PID}/{TID} thread {TID}")) == [(0, 9, "cudaMalloc"), (2, 5, "cuMemAlloc")]


def test_instants_stay(tmp_path):
    found = written(open_tiny(tmp_path, kernel("a", 3, 3), kernel("b", 3, 3), kernel("c", 3, 4)))
    assert found.on(f"stream 7 of process {PID}") == [(3, 3, "a"), (3, 3, "b"), (3, 4, "c")]


def test_a_window_cuts(tmp_path):
    found = written(open_tiny(tmp_path, *ROWS), window=Window("explicit", 4, 6))
    assert found.on(f"stream 7 of process {PID}") == [(4, 6, "mul")]
    assert found.on(f"thread {PID}/{TID} main") == [(4, 5, "cudaMemcpyAsync")]
    assert not found.starts, "its call or its operation is outside"


def test_steps_are_slices():
    steps = written(open_trace(DEMO)).on("llama.cpp steps")
    assert {name.split(" of ")[0] for _, _, name in steps} == {"prefill", "decode", "mixed"}


def test_real_traces_are_whole(real_trace):
    trace = open_trace(real_trace)
    try:
        found = written(trace)
    except MissingTableError:
        pytest.skip("holds no rows")
    of_streams = [slice_ for slice_ in found.slices if found.names[slice_[0]].startswith("stream")]
    ops = gpu_ops(trace)
    assert len(of_streams) == ops.height
    assert sum(end - begin for _, begin, end, _ in of_streams) == (ops["end_ns"] - ops["start_ns"]).sum()
    of_threads = [slice_ for slice_ in found.slices if found.names[slice_[0]].startswith("thread")]
    assert len(of_threads) == api_calls(trace).height
    assert found.starts == found.ends
    assert set(found.starts.values()) <= {1}
    assert sum(found.starts.values()) == ops.filter(pl.col("call").is_not_null())["call"].n_unique()


@pytest.mark.skipif(which("protoc") is None, reason="needs protoc")
def test_protoc_reads_it(tmp_path):
    file = BytesIO()
    write_perfetto(open_tiny(tmp_path, *ROWS), file)
    text = subprocess.run([which("protoc"), "--decode_raw"], input=file.getvalue(), capture_output=True, check=True)
    assert text.stdout.decode().count('2: "cudaLaunchKernel"') == 1


def test_the_command(tmp_path):
    target = tmp_path / "out.pftrace"
    argv = ["export", str(DEMO), "--to", "perfetto", "-o", str(target), "--window", "steady"]
    assert CliRunner().invoke(cli, argv).exit_code == 0
    assert decode(target.read_bytes()).slices
    refused = CliRunner().invoke(cli, argv)
    assert (refused.exit_code, "--force" in refused.stderr) == (6, True)


def test_the_same_bytes_again():
    files = [BytesIO(), BytesIO()]
    for file in files:
        write_perfetto(open_trace(DEMO), file)
    assert files[0].getvalue() == files[1].getvalue()


def test_memory_is_a_counter_of_its_gpu(tmp_path):
    """5 bytes at 1, 13 at 3, 5 at 6; a window from 4 on begins with what is held then."""
    rows = (
        api("cudaLaunchKernel", 0, 1, corr=1), kernel("k", 2, 9, corr=1),
        allocation(1, 5), allocation(3, 8), allocation(6, 8, release=True),
    )  # fmt: skip
    trace = open_tiny(tmp_path, *rows)
    for window, expected in ((None, [(1, 5), (3, 13), (6, 5)]), (Window("explicit", 4, 9), [(4, 13), (6, 5)])):
        file = BytesIO()
        write_perfetto(trace, file, window=window)
        found = decode(file.getvalue())
        (track,) = (track for track, name in found.names.items() if name == f"memory held by process {PID}")
        assert found.samples[track] == expected
        assert found.names[found.parents[track]] == "GPU 0"
