"""GPU memory, use, power, clocks and throttling during a run, sampled by NVML in a thread of its own."""

from __future__ import annotations

import importlib
import threading
import time
from typing import TYPE_CHECKING, Any

from nsyskit.capture.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

Row = dict[str, Any]


class NvmlSampler:
    """Samples every GPU until it is stopped. It never raises: what cannot be read is None or a note.

    Attributes:
        rows: one per GPU and moment.
        gpus: what NVML says about each GPU, and the driver.
        notes: why there is nothing, or less than asked for.
    """

    def __init__(self, hz: float, *, load: Callable[[], Any] | None = None, clock: Clock | None = None) -> None:
        self.rows: list[Row] = []
        self.gpus: list[Row] = []
        self.driver: Row | None = None
        self.notes: list[str] = []
        self._clock = clock or Clock()
        self._interval_s = 1.0 / hz if hz > 0 else 0.0
        self._load = load or (lambda: importlib.import_module("pynvml"))
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._nvml: Any = None

    def start(self) -> None:
        """Begin, if there is anything to sample."""
        handles = self._open() if self._interval_s else []
        if handles:
            self._thread = threading.Thread(target=self._run, args=(handles,), name="nvml", daemon=True)
            self._thread.start()

    def look(self) -> None:
        """Fill ``gpus``, ``driver`` and ``notes`` without sampling."""
        self._open()
        self.stop()

    def stop(self) -> None:
        """End; the rows stay."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        if self._nvml is not None:
            _ask(self._nvml.nvmlShutdown)

    def _open(self) -> list[Any]:
        try:
            self._nvml = self._load()
            self._nvml.nvmlInit()
        except ImportError:
            self._nvml = None
            self.notes.append("no GPU samples: install nvidia-ml-py (pip install nsyskit[capture])")
            return []
        except Exception as error:  # noqa: BLE001  NVML's errors are made at run time; a run goes on without samples
            self._nvml = None
            self.notes.append(f"no GPU samples: NVML is not available ({error})")
            return []
        nvml = self._nvml
        self.driver = {
            "driver_version": _text(_ask(nvml.nvmlSystemGetDriverVersion)),
            "cuda_version": _cuda(_ask(nvml.nvmlSystemGetCudaDriverVersion_v2)),
        }
        handles = [_ask(nvml.nvmlDeviceGetHandleByIndex, index) for index in range(_ask(nvml.nvmlDeviceGetCount) or 0)]
        self.gpus = [self._facts(index, handle) for index, handle in enumerate(handles)]
        return handles

    def _facts(self, index: int, handle: Any) -> Row:
        nvml = self._nvml
        memory = _ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        return {
            "gpu": index,
            "name": _text(_ask(nvml.nvmlDeviceGetName, handle)),
            "uuid": _text(_ask(nvml.nvmlDeviceGetUUID, handle)),
            "memory_bytes": None if memory is None else int(memory.total),
        }

    def _run(self, handles: list[Any]) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            try:
                at_ns = self._clock.now_ns()
                self.rows += [{"at_ns": at_ns, "gpu": index} | self._sample(h) for index, h in enumerate(handles)]
            except Exception as error:  # noqa: BLE001  as above
                self.notes.append(f"GPU samples end early: {error}")
                return
            due += self._interval_s
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _sample(self, handle: Any) -> Row:
        nvml = self._nvml
        memory = _ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        use = _ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        return {
            "memory_used_bytes": None if memory is None else int(memory.used),
            "sm_share": None if use is None else use.gpu / 100,
            "memory_share": None if use is None else use.memory / 100,
            "power_mw": _ask(nvml.nvmlDeviceGetPowerUsage, handle),
            "sm_clock_mhz": _ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": _ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            "temperature_c": _ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            "throttle_reasons": _ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle),
        }


def _ask(question: Callable[..., Any], *arguments: Any) -> Any:
    """An answer of NVML, None when this GPU or driver has none."""
    try:
        return question(*arguments)
    except Exception:  # noqa: BLE001  NVMLError is made at run time, and differs between versions of pynvml
        return None


def _text(value: object) -> str | None:
    return value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else None


def _cuda(value: object) -> str | None:
    return f"{value // 1000}.{value % 1000 // 10}" if isinstance(value, int) else None
