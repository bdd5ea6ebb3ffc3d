"""SPLADE: train, index, retrieve, evaluate and inspect learned sparse retrieval models."""

__version__ = "0.1.0"
