"""What nsyskit itself keeps: runs, their numbers, tags and sweeps, in one SQLite file.

Seen in Datasette 0.65.5: six tables with their counts and foreign keys, SQL over them; steps are Parquet blobs there.
"""
