"""What nsyskit itself keeps: runs, their numbers, tags and sweeps, in one SQLite file."""
