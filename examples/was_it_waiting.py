"""Was the time in synchronizing calls lost? python examples/was_it_waiting.py TRACE…"""

import sys

import nsyskit
from nsyskit.analysis.sync import sync
from nsyskit.units import human_share

for path in sys.argv[1:]:
    try:
        found = sync(nsyskit.open_trace(path))
    except nsyskit.NsyskitError as error:
        print(f"{path}: {error}")
        continue
    if found.wait_share is None:
        print(f"{path}: hardly any time in waiting calls")
        continue
    share, busy = human_share(found.sync_copy_share), human_share(found.wait_share)
    print(f"{path}: {share} of API time in waiting calls; the GPU was busy in {busy} of it")
