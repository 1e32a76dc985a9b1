"""``python -m tests.fuzz TARGET --cases N``: run N cases, say what came out; exit code 1 when any crashed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from random import Random

from tests.fuzz import runner


def main() -> int:
    """Parse and run."""
    if sys.argv[1:2] == ["--worker"]:
        name, seed, first, last = sys.argv[2:6]
        runner.worker(name, int(seed), int(first), int(last))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=[*runner.targets(), "all"])
    parser.add_argument("--cases", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so long")
    parser.add_argument("--case", type=int, help="run this one alone, with its traceback")
    options = parser.parse_args()
    if options.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            runner.targets()[options.target](Random(f"{options.seed}:{options.case}"), Path(folder))
        return 0
    crashed = 0
    for name in runner.targets() if options.target == "all" else [options.target]:
        tally = runner.run(name, seed=options.seed, first=options.first, cases=options.cases, minutes=options.minutes)
        counts = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(tally.outcomes.items()))
        print(
            f"{name}: {sum(tally.outcomes.values()):,} cases: {counts}; {len(tally.crashes)} kinds of crash", flush=True
        )
        for detail, case in tally.crashes.items():
            print(f"  case {case}: {detail}")
        crashed += len(tally.crashes)
    return 1 if crashed else 0


if __name__ == "__main__":
    sys.exit(main())
