"""``capture``: a config becomes a run folder."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from nsyskit import __version__
from nsyskit.capture.clean import clean_trace
from nsyskit.capture.clock import Clock
from nsyskit.capture.disk import DiskWatch, full_error, full_folder
from nsyskit.capture.endpoints import ServerSamples
from nsyskit.capture.facts import host_facts, llama_build, model_facts
from nsyskit.capture.gpubounds import gpu_bounds
from nsyskit.capture.interrupts import Interrupted, Interrupts
from nsyskit.capture.nvml import NvmlSampler
from nsyskit.capture.outcome import Outcome, State, exit_code, program_code
from nsyskit.capture.plan import beside_config, build_plan
from nsyskit.capture.processes import Processes
from nsyskit.capture.program import run_program
from nsyskit.capture.run import Run, check_session_free
from nsyskit.capture.secrets import (
    blank_own_process,
    hide_secrets,
    program_environment,
    relevant_environment,
    secret_values,
    strike,
)
from nsyskit.capture.server import run_server
from nsyskit.capture.serverlog import log_clock, match_tasks, read_tasks
from nsyskit.capture.store import write_json, write_nvml, write_requests
from nsyskit.capture.summary import load_summary, memory_summary, program_results
from nsyskit.capture.tax import all_parts
from nsyskit.capture.ui import Silent, Ui
from nsyskit.capture.verify import verify_file
from nsyskit.errors import CaptureError, NsyskitError, OutputError, UsageError
from nsyskit.nsys import Nsys, export
from nsyskit.runfolder import SCHEMA, RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from nsyskit.capture.config import CaptureConfig

_JUMP_NS = 5_000_000
_NOT_EXPORTED = "the rep file was not exported: nsyskit export does it"


def capture(config: CaptureConfig, nsys: Nsys | None, *, ui: Ui | None = None) -> Outcome:
    """Make one run: the program under nsys, the trace exported and looked at, everything kept in a folder.

    What goes wrong after the folder is there is told by the outcome and in ``run.json``.

    Raises:
        UsageError: the program does not exist.
        OutputError: the folder cannot be made.
    """
    _check_program(config)
    make_folder(config.folder)
    with Interrupts() as interrupts:
        run = _new_run(config, nsys, interrupts, ui or Silent())
        error: NsyskitError | None = None
        try:
            error = _recorded(run)
        except Interrupted:
            pass
        finally:
            with interrupts.deferred():
                left = run.processes.end_all(grace_s=0.5 if run.disk.found_full else 3.0)
        if left:
            run.note(f"had to be killed at the end: {', '.join(left)}")
        with interrupts.deferred():
            return _conclude(run, error)


def make_folder(folder: Path) -> None:
    """Make an empty run folder.

    Raises:
        OutputError: it holds something or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise OutputError(f"{folder} is not empty", hint="choose another folder with -o")
    except OSError as error:
        raise OutputError(f"cannot make {folder} ({error.strerror})", hint="choose another folder with -o") from error


def _check_program(config: CaptureConfig) -> None:
    for program in (config.program, *config.beside):
        if shutil.which(program[0]) is None:
            raise UsageError(f"{program[0]} is not a program that can be run", hint="check its path and your PATH")


def _new_run(config: CaptureConfig, nsys: Nsys | None, interrupts: Interrupts, ui: Ui) -> Run:
    blank_own_process()
    downloads = any(word in {"-hf", "-hfr", "--hf-repo", "-hft", "--hf-token"} for word in config.program)
    environment = program_environment(os.environ, llama=config.kind != "other", downloads=downloads)
    clock = Clock()
    return Run(
        config=config,
        nsys=nsys if config.profile is not None else None,
        folder=RunFolder(config.folder),
        ui=ui,
        processes=Processes(environment),
        interrupts=interrupts,
        nvml=NvmlSampler(config.nvml_hz, clock=clock),
        disk=DiskWatch(config.folder),
        clock=clock,
    )


def _recorded(run: Run) -> NsyskitError | None:
    """Run the stages; an error is returned, after whatever was won has been put away."""
    try:
        write_json(run.folder.run_json, _facts(run, {"state": "running"}))
        run.nvml.start()
        check_session_free(run)
        full = full_folder(run.folder.path)
        if full is not None:
            raise full_error(full)
        with ExitStack() as stack:
            stack.callback(run.nvml.stop)
            stack.enter_context(_key_file(run.config))
            stack.enter_context(_beside(run))
            (run_server if run.config.kind == "server" else run_program)(run)
    except NsyskitError as error:
        return error
    except OSError as error:
        return OutputError(f"the run folder cannot be written ({error.strerror})", hint="free space or use -o")
    return None


def _conclude(run: Run, error: NsyskitError | None) -> Outcome:
    """Put away what was won, and say how it ended."""
    summary: dict[str, Any] = {}
    for put_away in (_put_logs, _put_trace, _put_load, _put_results, _put_nvml, _put_clean):
        try:
            summary |= put_away(run)
        except NsyskitError as failure:
            error = error or failure
        except OSError as failure:
            error = error or OutputError(f"the run folder cannot be written ({failure.strerror})", hint="free space")
    if run.disk.found_full:
        run.returncode = None  # nsys's code more likely than the program's
    code = None if run.returncode is None else program_code(run.returncode, ended_by_us=run.ended_by_us)
    if run.ended_by_us and error is not None:
        code = None  # it was ended because the capture had failed
    if error is None and code and run.interrupts.first is None:
        error = _program_error(run, code)
    outcome = Outcome(
        state=_state(run, error),
        folder=run.folder.path,
        exit_code=exit_code(
            interrupted=run.interrupts.first,
            program=code,
            error=error,
        ),
        program_exit=code,
        message=str(error) if error is not None else "",
        notes=tuple(run.notes),
        summary=summary,
    )
    return _with_run_json(run, outcome)


def _with_run_json(run: Run, outcome: Outcome) -> Outcome:
    ending = {
        "state": outcome.state,
        "exit_code": outcome.exit_code,
        "program_exit": outcome.program_exit,
        "message": outcome.message,
        "notes": list(outcome.notes),
    }
    try:
        write_json(run.folder.run_json, _facts(run, ending) | {"summary": dict(outcome.summary)})
    except OutputError as error:
        if not outcome.message:
            return replace(outcome, state="failed", message=str(error), exit_code=outcome.exit_code or error.exit_code)
    return outcome


def _program_error(run: Run, code: int) -> NsyskitError:
    from nsyskit.capture.run import last_errors  # noqa: PLC0415

    said = last_errors(run.folder.program_err, run.folder.program_out)
    return CaptureError(
        f"the program ended with exit code {code}{f': {said}' if said else ''}",
        hint=f"its output is in {run.folder.path}, with the trace up to its end",
    )


def _state(run: Run, error: NsyskitError | None) -> State:
    if run.interrupts.first is not None:
        return "interrupted"
    return "failed" if error is not None else "complete"


def _facts(run: Run, ending: Mapping[str, Any]) -> dict[str, Any]:
    config, nsys = run.config, run.nsys
    load = None if config.load is None else asdict(config.load) | {"prompts": _name(config.load.prompts)}
    return {
        "schema": SCHEMA,
        "nsyskit_version": __version__,
        "kind": config.kind,
        "command": list(hide_secrets(config.program)),
        "environment": relevant_environment(os.environ),
        "model": model_facts(config.program),
        "llama": llama_build(config.program) if config.kind != "other" and ending["state"] != "running" else None,
        "nsys": None if nsys is None else {"version": nsys.version_text, "path": str(nsys.path)},
        "profile": None if config.profile is None else config.profile.name,
        "tracing_cost": None if config.profile is None else config.profile.slowdown,
        "steps": [{"purpose": s.purpose, "argv": list(hide_secrets(s.argv))} for s in build_plan(config, nsys)],
        "driver": run.nvml.driver,
        "gpus": run.nvml.gpus,
        "host": host_facts(),
        "url": None if config.address is None else config.address.url,
        "load": load,
        "times": dict(run.times),
        "arms": [f"beside-{index + 1}" for index in range(len(config.beside))],
        "outcome": dict(ending),
    }


def _name(path: Path | None) -> str | None:
    return None if path is None else path.name


@contextmanager
def _key_file(config: CaptureConfig) -> Iterator[None]:
    """The server's keys in a file that only this user can read, for as long as the server lives."""
    if config.key_file is None:
        yield
        return
    path, keys = config.key_file, config.keys
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(keys) + "\n")
        yield
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _beside(run: Run) -> Iterator[None]:
    """Programs beside this one, each captured into a folder of its own."""
    from nsyskit.capture.beside import run_beside  # noqa: PLC0415

    if not run.config.beside:
        yield
        return
    with run_beside(run, [beside_config(run.config, index) for index in range(len(run.config.beside))]):
        yield


def _put_logs(run: Run) -> dict[str, Any]:
    run.nvml.stop()
    run.notes += run.nvml.notes
    strike(run.folder.logs, {*secret_values(run.config.program, os.environ), *run.config.keys})
    return {}


def _put_trace(run: Run) -> dict[str, Any]:
    if run.nsys is None or not run.folder.rep.exists() or not run.config.export:
        return {}
    if run.interrupts.hurry():
        run.note(_NOT_EXPORTED)
        return {}
    nsys, scratch = run.nsys, run.folder.path / ".export.sqlite"
    with run.ui.stage("exporting the trace") as advance:

        def progress(share: float) -> None:
            if run.interrupts.hurry():
                raise Interrupted(run.interrupts.first or signal.SIGINT)
            advance(share, "")

        try:
            export(nsys, run.folder.rep, scratch, kind="sqlite", progress=progress)
        except Interrupted:
            run.note(_NOT_EXPORTED)
            return {}
    scratch.replace(run.folder.sqlite)
    return _verified(run)


def _verified(run: Run) -> dict[str, Any]:
    window = None
    if "window_begin_ns" in run.times and "window_end_ns" in run.times:
        window = run.times["window_end_ns"] - run.times["window_begin_ns"]
    trace, verified = verify_file(run.folder.sqlite, gpu=bool(run.nvml.gpus), window_ns=window)
    for note in verified.notes:
        run.note(note)
    run.trace = trace
    return {"trace": {"rows": dict(verified.rows), "first_ns": verified.first_ns, "last_ns": verified.last_ns}}


def _put_load(run: Run) -> dict[str, Any]:
    if run.config.load is None or not run.requests:
        return {}
    log = _read(run.folder.program_err) + _read(run.folder.program_out)
    tasks = read_tasks(log.splitlines())
    load = [request for request in run.requests if request.error is None]
    matched = match_tasks(load, tasks)
    clock = log_clock(load, matched)
    gpu = gpu_bounds(run.trace, load) if run.trace is not None and _clock_held(run) else {}
    parts = all_parts(load, matched, clock, gpu)
    write_requests(
        run.folder.requests, run.requests, matched=matched, clock=clock, parts=parts,
        samples=run.samples or ServerSamples(),
    )  # fmt: skip
    summary = load_summary(run.requests, parts, clock)
    if summary.get("cached_share", 0) > 0.5:
        run.note("more than half of the prompt tokens came from the prompt cache: the prefill was not measured")
    if summary.get("failed"):
        run.note(f"{summary['failed']} of {summary['requests']} requests failed: see requests.sqlite")
    return {"load": summary}


def _clock_held(run: Run) -> bool:
    """Whether requests and trace can be tied: nsys tells by the machine's clock when it began."""
    jump = run.clock.jump_ns()
    if abs(jump) > _JUMP_NS:
        run.note(f"the machine's clock was set by {jump / 1e9:+.3f} s meanwhile: requests are not tied to the trace")
    return abs(jump) <= _JUMP_NS


def _put_results(run: Run) -> dict[str, Any]:
    found = program_results(run.folder, run.config)
    memory = memory_summary(run.folder, run.nvml)
    first = {}
    if run.first_output_ns is not None:
        first = {"first_text_ns": run.first_output_ns - run.times["begin_ns"]}
    return found | first | ({"memory": memory} if memory else {})


def _put_nvml(run: Run) -> dict[str, Any]:
    write_nvml(run.folder.nvml, run.nvml)
    return {}


def _put_clean(run: Run) -> dict[str, Any]:
    if run.config.redact:
        run.trace = None  # read from the file that is about to be replaced
        with run.ui.stage("cleaning the trace"):
            for note in clean_trace(run.folder):
                run.note(note)
    return {}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
