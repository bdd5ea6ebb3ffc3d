"""Readers for everything that users bring: collections, queries, judgements, runs, training data."""
