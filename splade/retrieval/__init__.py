"""Retrievers: anything that ranks documents for queries."""
