"""NVML absent, present (a stand-in: no GPU here), and failing on the way."""

import time
from types import SimpleNamespace

import sqlite_utils

from nsyskit.capture.nvml import NvmlSampler
from nsyskit.capture.store import write_nvml


def stand_in(**changes: object):
    def not_supported(*_: object) -> None:
        raise RuntimeError("Not Supported")

    api = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: b"550.54",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 12040,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda _: "Some GPU",
        "nvmlDeviceGetUUID": lambda _: "GPU-1",
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=8, used=3),
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=50, memory=25),
        "nvmlDeviceGetPowerUsage": lambda _: 5000,
        "nvmlDeviceGetClockInfo": lambda _, kind: 1000 + kind,
        "nvmlDeviceGetTemperature": not_supported,
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: 4,
        "NVML_CLOCK_SM": 1,
        "NVML_CLOCK_MEM": 2,
        "NVML_TEMPERATURE_GPU": 0,
    }
    return SimpleNamespace(**(api | changes))


def sampled(nvml, seconds=0.2):
    sampler = NvmlSampler(50, load=lambda: nvml)
    sampler.start()
    time.sleep(seconds)
    sampler.stop()
    return sampler


def test_samples(tmp_path):
    sampler = sampled(stand_in())
    assert sampler.driver == {"driver_version": "550.54", "cuda_version": "12.4"}
    assert sampler.gpus == [{"gpu": 0, "name": "Some GPU", "uuid": "GPU-1", "memory_bytes": 8}]
    assert len(sampler.rows) > 3
    row = sampler.rows[0] | {"at_ns": 0}
    assert row == {
        "at_ns": 0, "gpu": 0, "memory_used_bytes": 3, "sm_share": 0.5, "memory_share": 0.25, "power_mw": 5000,
        "sm_clock_mhz": 1001, "memory_clock_mhz": 1002, "temperature_c": None, "throttle_reasons": 4,
    }  # fmt: skip
    write_nvml(tmp_path / "nvml.sqlite", sampler)
    assert sqlite_utils.Database(tmp_path / "nvml.sqlite")["samples"].count == len(sampler.rows)


def test_no_nvml_is_a_note(tmp_path):
    def absent() -> None:
        raise OSError("NVML Shared Library Not Found")

    sampler = NvmlSampler(50, load=absent)
    sampler.start()
    sampler.stop()
    assert sampler.notes == ["no GPU samples: NVML is not available (NVML Shared Library Not Found)"]
    write_nvml(tmp_path / "nvml.sqlite", sampler)
    assert not (tmp_path / "nvml.sqlite").exists()


def test_no_pynvml_is_a_note():
    def absent() -> None:
        raise ImportError

    sampler = NvmlSampler(50, load=absent)
    sampler.start()
    assert "install nvidia-ml-py" in sampler.notes[0]


def test_a_driver_that_goes_away_disturbs_nothing():
    def gone(*_: object) -> None:
        raise RuntimeError("GPU is lost")

    sampler = sampled(stand_in(nvmlDeviceGetMemoryInfo=gone, NVML_CLOCK_SM=None))
    assert sampler.rows[0]["memory_used_bytes"] is None
    broken = stand_in()
    del broken.NVML_CLOCK_SM
    ended = sampled(broken)
    assert ended.rows == []
    assert "GPU samples end early" in ended.notes[0]
