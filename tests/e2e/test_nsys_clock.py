"""What aligning reports rests on: an event's time plus the session's start in UTC is the system clock's time."""

from statistics import median

import polars as pl
import pytest

from nsyskit.analysis.ranks import ONE_MACHINE_NS
from nsyskit.ingest import open_trace

SLEEPS = "import time\nfor n in range(40):\n    print(time.time_ns(), flush=True)\n    time.sleep(0.004 + n * 1e-4)\n"
QUIET = ["-s", "none", "--cpuctxsw=none"]


@pytest.mark.parametrize("way", ["profile", "session"])
def test_time_zero_is_the_sessions_start(root, way):
    (root.work / "sleeps.py").write_text(SLEEPS)
    out = f"clock-{way}"
    if way == "profile":
        done = root.run("nsys", "profile", "-t", "osrt", *QUIET, "-f", "true", "-o", out, "python3", "sleeps.py")
        printed = done.out
    else:
        program = root.start("nsys", "launch", "--session-new=clock", "-t", "osrt", "sh", "-c",
                             "sleep 2; python3 sleeps.py")  # fmt: skip
        root.run("sh", "-c", "until nsys sessions list | grep -q clock; do sleep 0.1; done")
        started = root.run("nsys", "start", "--session=clock", "-o", out, "-f", "true", *QUIET)
        assert started.code == 0, started.err
        printed, _ = program.communicate(timeout=60)
        root.run("nsys", "stop", "--session=clock")
        root.run("nsys", "shutdown", "--session=clock")
    assert root.run("nsys", "export", "--type=sqlite", "-f", "true", "-o", f"{out}.sqlite", f"{out}.nsys-rep").code == 0
    trace = open_trace(root.work / f"{out}.sqlite")
    told = [int(line) for line in printed.splitlines() if line.isdigit()]
    calls = trace.os_calls.join(trace.strings, left_on="name_id", right_on="string_id")
    sleeps = calls.filter(pl.col("value").str.contains("nanosleep"), pl.col("end_ns") - pl.col("start_ns") < 10**9)
    begun = [trace.meta.capture.session_start_utc_ns + at for at in sleeps.sort("start_ns").collect()["start_ns"]]
    # each sleep begins a moment after its line was printed
    late = [min((at - before for before in told if before <= at), default=0) for at in begun]
    assert len(late) >= 20
    # the machine may be busy; a wrong zero would be off by milliseconds, for the sleeps are that far apart
    assert 0 < median(late) < 20 * ONE_MACHINE_NS
