"""Two sides of runs: what differs per token, by how much, how surely, and why."""
