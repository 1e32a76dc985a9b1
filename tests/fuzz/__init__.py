"""Hostile input, made at random from a seed: ``python -m tests.fuzz TARGET --cases N``."""
