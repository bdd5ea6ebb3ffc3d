"""SPLADE: train, index, retrieve, evaluate and inspect learned sparse retrieval models.

`load` a model, build an `Index` of a collection, search it with a `Retriever`; `SparseVectors` are what passes between
them. Each is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

from splade.processors import set_thread_defaults

if TYPE_CHECKING:
    from splade.encoding.load_sparse import load
    from splade.encoding.sparse_model import SparseModel
    from splade.retrieval.collection_index import Index
    from splade.retrieval.hits import Hit, Hits
    from splade.retrieval.sparse import SparseRetriever as Retriever
    from splade.vectors import SparseVectors

set_thread_defaults()  # before anything imports PyTorch

__version__ = "0.1.0"
__all__ = ["Hit", "Hits", "Index", "Retriever", "SparseModel", "SparseVectors", "__version__", "load"]

_PLACES = {
    "Hit": "splade.retrieval.hits:Hit",
    "Hits": "splade.retrieval.hits:Hits",
    "Index": "splade.retrieval.collection_index:Index",
    "Retriever": "splade.retrieval.sparse:SparseRetriever",
    "SparseModel": "splade.encoding.sparse_model:SparseModel",
    "SparseVectors": "splade.vectors:SparseVectors",
    "load": "splade.encoding.load_sparse:load",
}


def __getattr__(name: str) -> object:
    """Import a name of the front door."""
    if name not in _PLACES:
        raise AttributeError(f"module 'splade' has no attribute '{name}'")
    module, _, attribute = _PLACES[name].partition(":")
    globals()[name] = getattr(importlib.import_module(module), attribute)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
