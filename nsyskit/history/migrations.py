"""The history's tables, one migration after the other. A released migration is never edited; another is added."""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        (
            "CREATE TABLE runs (id INTEGER PRIMARY KEY, name TEXT NOT NULL, added TEXT NOT NULL, build TEXT, "
            "model TEXT, gpu TEXT, nsys TEXT, facts TEXT NOT NULL)"
        ),
        (
            "CREATE TABLE metrics (run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE, name TEXT NOT NULL, "
            "value REAL NOT NULL, unit TEXT NOT NULL, PRIMARY KEY (run, name))"
        ),
        "CREATE INDEX metrics_name ON metrics(name)",
        (
            "CREATE TABLE steps (run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE, phase TEXT NOT NULL, "
            "parquet BLOB NOT NULL, PRIMARY KEY (run, phase))"
        ),
        (
            "CREATE TABLE tags (tag TEXT NOT NULL, run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE, "
            "PRIMARY KEY (tag, run))"
        ),
    ),
    (
        (
            "CREATE TABLE cells (id INTEGER PRIMARY KEY, sweep TEXT NOT NULL, key TEXT NOT NULL, "
            "settings TEXT NOT NULL, state TEXT NOT NULL, error TEXT, trace TEXT, added TEXT NOT NULL, "
            "UNIQUE (sweep, key))"
        ),
        (
            "CREATE TABLE results (cell INTEGER NOT NULL REFERENCES cells(id) ON DELETE CASCADE, label TEXT NOT NULL, "
            "phase TEXT, tokens_per_s REAL, stddev REAL, samples INTEGER, n_prompt INTEGER, n_gen INTEGER, "
            "n_depth INTEGER, facts TEXT NOT NULL, PRIMARY KEY (cell, label))"
        ),
    ),
)
"""Statements that lead from schema version n (its place in the tuple) to n + 1; ``PRAGMA user_version`` holds n."""
