"""Captures: a program run under nsys, kept as a run folder."""
