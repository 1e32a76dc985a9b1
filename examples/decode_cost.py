"""What a decoded token costs, part by part: python examples/decode_cost.py TRACE."""

import sys

import nsyskit
from nsyskit.analysis.step_costs import steps

found = steps(nsyskit.open_trace(sys.argv[1]))
decode = found.by_phase["decode"]
print(f"{decode.tokens} tokens in {decode.count} steps: {decode.ms_per_token['p50']:.3f} ms per token (median)")
for part, ns in sorted(decode.ledger.items(), key=lambda item: -item[1]):
    if ns:
        print(f"{part:10} {ns / 1000:9.1f} µs")
