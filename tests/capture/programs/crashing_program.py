"""Ends at once: with the exit code or by the signal (negative) that it is given."""

import os
import sys

sys.stderr.write("error: out of memory\n")
sys.stderr.flush()
code = int(sys.argv[1])
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
