"""Which learned terms make two texts match: what a comparison of runs shows of the documents it names."""

from collections.abc import Callable

from splade.encoding.sparse_model import SparseModel
from splade.inspection.explanation import explain


def term_scores(model: SparseModel, top: int = 8) -> Callable[[str, str], list[tuple[str, float]]]:
    """Return a function from the texts of a query and a document to their largest shared terms.

    Each term comes with what it adds to the score: query weight times document weight.
    """

    def terms(query: str, document: str) -> list[tuple[str, float]]:
        vectors = model.encode_queries([query]), model.encode_documents([document])
        found = explain(vectors[0].row(0), vectors[1].row(0), model.tokens)
        return [(part.token, part.score) for part in found.contributions[:top]]

    return terms
