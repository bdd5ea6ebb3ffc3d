"""The systems that vectors are exported to, by name; each module has `export_documents` and `export_queries`."""

from types import ModuleType

from splade.interop import anserini, ciff, milvus_rows, opensearch, pisa, qdrant, seismic

TARGETS: dict[str, ModuleType] = {"anserini": anserini, "ciff": ciff, "pisa": pisa, "seismic": seismic}
TARGETS |= {"opensearch": opensearch, "qdrant": qdrant, "milvus": milvus_rows}
