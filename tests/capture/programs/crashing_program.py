"""Ends at once: with the exit code or by the signal (negative) that it is given."""

import os
import sys

print("error: out of memory", file=sys.stderr)
code = int(sys.argv[1])
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
