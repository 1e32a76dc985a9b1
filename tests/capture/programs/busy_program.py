"""Sleeps and opens files for some seconds: something for the OS runtime trace. --deaf ignores SIGTERM and SIGINT."""

import os
import signal
import sys
import time

if "--deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
end = time.monotonic() + float(sys.argv[1])
sys.stdout.write("begun\n")
sys.stdout.flush()
while time.monotonic() < end:
    time.sleep(0.01)
    os.close(os.open("/dev/null", os.O_RDONLY))
