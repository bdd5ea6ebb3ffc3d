"""Vectors in the formats of other search engines, one file per engine."""
