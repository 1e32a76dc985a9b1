"""A llama-server's capture: an nsys session around a loaded window, and nothing left running after it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from nsyskit.capture.address import check_port_free, listens
from nsyskit.capture.disk import full_error, full_folder
from nsyskit.capture.endpoints import ServerSamples
from nsyskit.capture.interrupts import Interrupted
from nsyskit.capture.load import Load
from nsyskit.capture.plan import launch_argv, shutdown_argv, start_argv, stop_argv
from nsyskit.capture.run import TRIES, Run, last_errors, launch_error, missing_rep, nsys_stumbled, try_again
from nsyskit.errors import CaptureError, NsysError, NsyskitError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Callable

    import httpx

    from nsyskit.capture.address import Address
    from nsyskit.capture.config import LoadConfig
    from nsyskit.capture.processes import Found

_START_TRIES_S = 15.0
_NSYS_ENDS_S = 60.0
_STUCK_S = 2.0
_CRASH_S = 2.0
_LAST = 16  # the requests of which some were in flight when a server crashed


def run_server(run: Run) -> None:
    """Capture a server from launch to its end.

    Raises:
        CaptureError: the server never got healthy, died, or answered no request.
        NsysError: nsys could not capture it.
    """
    assert run.config.address is not None  # noqa: S101  complete_program gives every server one
    check_port_free(run.config.address)
    for _ in range(TRIES - 1):
        try:
            return _run_once(Server(run, run.config.address))
        except NsysStumbledError:
            try_again(run)
    return _run_once(Server(run, run.config.address))


def _run_once(server: Server) -> None:
    run = server.run
    server.launch()
    try:
        server.wait_ready()
        server.check_ours()
        if run.config.load is None:
            server.window(server.wait_for_traffic)
        else:
            load = server.prepare_load(run.config.load)
            server.window(lambda: server.drive(load))
    finally:
        with run.interrupts.deferred():
            server.close()


class NsysStumbledError(NsysError):
    """nsys failed before it launched the program; another try may do."""


class Server:
    """One server under one nsys session; without a profile, the same without nsys."""

    def __init__(self, run: Run, address: Address) -> None:
        self.run = run
        self._address = address
        self._process: subprocess.Popen[bytes] | None = None
        self._program: tuple[Found, ...] = ()

    def launch(self) -> None:
        """Start the server, its output going to the run folder."""
        run = self.run
        argv = run.config.program if run.nsys is None else launch_argv(run.config, run.nsys)
        run.mark("begin")
        with run.folder.program_out.open("wb") as out, run.folder.program_err.open("wb") as err:
            self._process = run.processes.start(argv, stdout=out, stderr=err)

    def alive(self) -> bool:
        """Whether the server still runs; nsys may outlive it by the time it takes to write the rep file."""
        if self._process is None or self._process.poll() is not None:
            return False
        return not self._program or any(self.run.processes.still_there(process) for process in self._program)

    def wait_ready(self) -> None:
        """Wait for ``/health`` to answer 200.

        Raises:
            CaptureError: the server died or took too long.
        """
        run = self.run
        begin = time.monotonic()
        last = "no answer yet"
        with run.ui.stage("waiting for the server to load its model") as advance:
            while time.monotonic() - begin < run.config.ready_timeout_s:
                if not self.alive():
                    raise self._death("before it was healthy")
                status, last = _health(self._address)
                if status == 200:
                    run.mark("ready")
                    return
                advance((time.monotonic() - begin) / run.config.ready_timeout_s, last)
                time.sleep(0.1)
        raise CaptureError(
            f"the server was not healthy within {run.config.ready_timeout_s:g} s ({last})",
            hint=f"give it longer with --ready-timeout, or read {run.folder.program_err}",
        )

    def check_ours(self) -> None:
        """Make sure that who answers is the server of this capture.

        Raises:
            CaptureError: another process listens on its port.
        """
        self._program = self.run.processes.program_roots()
        pids = [process.pid for process in self.run.processes.program()]
        if listens(pids, self._address.port) is False:
            raise CaptureError(
                f"another process than this capture's server listens on port {self._address.port}",
                hint="end it (ss -ltnp shows it) or give the server another --port",
            )

    def prepare_load(self, config: LoadConfig) -> Load:
        """Make the prompts and warm the server up.

        Raises:
            CaptureError: no warm-up request succeeded.
        """
        run = self.run
        wanted = config.warmup
        with run.ui.stage("warming up") as advance:
            load = Load(
                self._address,
                config,
                alive=self.alive,
                on_done=lambda count: advance(count / wanted if wanted else None, f"{count} of {wanted}"),
                clock=run.clock,
            )
            load.prepare()
            run.requests = load.requests
            warm = load.warm_up()
        if not self.alive():
            raise self._death("while it was warmed up")
        if warm and all(request.error is not None for request in warm):
            raise CaptureError(f"no warm-up request succeeded ({warm[0].error})", hint="check the endpoint and the key")
        return load

    def window(self, inside: Callable[[], None]) -> None:
        """Capture while something happens; the window is kept however that ends.

        Raises:
            CaptureError: the server died inside.
            NsysError: nsys could not start or stop.
        """
        run = self.run
        self._start()
        run.mark("window_begin")
        problem: NsyskitError | None = None
        try:
            inside()
        finally:
            run.mark("window_end")
            died = not self.alive()
            with run.interrupts.deferred():
                problem = self._stop()
            if problem is not None:
                run.note(str(problem))
        if died:
            raise self._death("under the load")
        if problem is not None:
            raise problem

    def wait_for_traffic(self) -> None:
        """Let the user's own traffic come, until Ctrl-C or for the time asked."""
        run = self.run
        span = run.config.wait_s
        begin = time.monotonic()
        try:
            with run.ui.stage(f"capturing your traffic on {self._address.url}") as advance:
                while self.alive() and (span is None or time.monotonic() - begin < span):
                    passed = time.monotonic() - begin
                    advance(
                        None if span is None else passed / span,
                        f"{passed:.0f} s" + ("" if span else ", Ctrl-C ends it"),
                    )
                    time.sleep(0.1)
        except Interrupted:
            run.interrupts.forget()  # the agreed way to end the window

    def drive(self, load: Load) -> None:
        """Send the load, with the server's own endpoints sampled beside it.

        Raises:
            CaptureError: not one request succeeded.
        """
        run = self.run
        config = run.config.load
        assert config is not None  # noqa: S101  there is a load to drive
        samples = run.samples = ServerSamples()
        begin, warm = time.monotonic(), len(load.requests)

        def beside(client: httpx.AsyncClient) -> AsyncIterator[None]:
            return samples.sample(client, run.clock)

        with run.ui.stage("driving the load") as advance:

            def done(count: int) -> None:
                shares = [
                    *([(count - warm) / config.requests] if config.requests else []),
                    *([(time.monotonic() - begin) / config.duration_s] if config.duration_s else []),
                ]
                advance(max(shares, default=None), f"{count - warm} requests")

            load.on_done = done
            load.run(beside)
        sent = load.requests[warm:]
        if any(request.error is not None and not request.timings for request in sent[-_LAST:]):
            self._await_death()
        if sent and all(request.error is not None for request in sent) and self.alive():
            raise CaptureError(f"no request succeeded ({sent[0].error})", hint="see requests.sqlite in the run folder")

    def _await_death(self) -> None:
        """Give a server whose connections broke a moment to be gone: a crash takes a while."""
        deadline = time.monotonic() + _CRASH_S
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.05)

    def close(self) -> None:
        """End the server: SIGTERM, SIGKILL after the grace; then whatever nsys left."""
        run = self.run
        process = self._process
        if process is None:
            return
        if self.alive():
            run.ended_by_us = True
            with run.ui.stage("ending the server"):
                killed = run.processes.end_program(process, grace_s=run.grace_s, hurry=run.interrupts.hurry)
            if killed:
                run.note(f"the server did not end within {run.config.stop_timeout_s:g} s of SIGTERM and was killed")
        patience = _STUCK_S if run.disk.found_full else _NSYS_ENDS_S
        with run.ui.stage("waiting for nsys"), suppress(TimeoutError):
            _wait(process, patience, run.interrupts.hurry)
        run.returncode = process.poll()
        run.mark("end")
        if run.nsys is not None and not run.disk.found_full and run.processes.alive():
            run.tell_nsys(shutdown_argv(run.config, run.nsys))

    def _start(self) -> None:
        run = self.run
        if run.nsys is None:
            return
        argv = start_argv(run.config, run.nsys)
        deadline = time.monotonic() + _START_TRIES_S
        with run.ui.stage("starting the window"):
            while True:
                code, said = run.tell_nsys(argv)
                if code == 0:
                    return
                full = full_folder(run.folder.path)
                if full is not None:
                    run.disk.found_full = True
                    raise full_error(full)
                # nsys lists a session before it can be used, and dies of an exception then.
                if time.monotonic() > deadline or not self.alive():
                    raise NsysError(f"nsys start failed ({_last(said)})", hint=f"see {run.folder.nsys_log}")
                time.sleep(0.3)

    def _stop(self) -> NsyskitError | None:
        """End the window; what went wrong is returned, for something worse may be on its way."""
        run = self.run
        if run.nsys is None:
            return None
        with run.ui.stage("writing the rep file") as advance:
            try:
                if not self.alive():  # nsys ends the session by itself, and writes what it has
                    with suppress(TimeoutError):
                        _wait(self._process, _NSYS_ENDS_S, run.interrupts.hurry)
                said = ""
                if not run.folder.rep.exists():
                    _, said = run.tell_nsys(stop_argv(run.config, run.nsys), progress=lambda share: advance(share, ""))
            except NsyskitError as error:
                return error
        return None if run.folder.rep.exists() else missing_rep(run, said)

    def _death(self, when: str) -> CaptureError | NsysError:
        run = self.run
        if self._process is not None:
            with suppress(TimeoutError):
                _wait(self._process, _NSYS_ENDS_S, run.interrupts.hurry)
            run.returncode = self._process.poll()
        if run.nsys is not None and nsys_stumbled(run):
            return NsysStumbledError("nsys failed before it launched the server", hint=f"see {run.folder.program_err}")
        complaint = launch_error(run) if when.startswith("before") else None
        if isinstance(complaint, CaptureError | NsysError):
            run.returncode = None  # nsys's code, not the program's
            return complaint
        said = last_errors(run.folder.program_err, run.folder.program_out)
        return CaptureError(
            f"the server ended with exit code {run.returncode} {when}{f': {said}' if said else ''}",
            hint=f"its output is in {run.folder.program_err}",
        )


def _health(address: Address) -> tuple[int | None, str]:
    import httpx  # noqa: PLC0415  an optional dependency, and slow to import

    try:
        answer = httpx.get(f"{address.url}/health", timeout=5.0, trust_env=False, verify=False)  # noqa: S501  own server
    except httpx.HTTPError as error:
        return None, type(error).__name__
    return answer.status_code, f"HTTP {answer.status_code}"


def _wait(process: subprocess.Popen[bytes] | None, timeout_s: float, hurry: Callable[[], bool]) -> None:
    deadline = time.monotonic() + timeout_s
    while process is not None and process.poll() is None:
        if time.monotonic() > deadline or hurry():
            raise TimeoutError
        time.sleep(0.05)


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
