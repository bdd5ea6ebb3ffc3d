"""What a ranking costs, in one typed record that every summary, table and figure is made from."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from splade.errors import DataError, shown

Number = int | float


@dataclass(frozen=True)
class Costs:
    """Costs of a retriever over a set of queries; None is what it does not have or nobody measured.

    Attributes:
        model: name of the model or method.
        n_docs: documents searched.
        L0_d: mean non-zero terms per document.
        index_bytes: bytes of the index.
        n_queries: queries retrieved for.
        L0_q: mean non-zero terms per query.
        flops: expected number of terms that a query and a document share (arXiv 2004.05665, section 3).
        encoding_ms_per_query: wall-clock milliseconds of encoding.
        search_ms_per_query: wall-clock milliseconds of searching, with `n_threads` threads.
        n_threads: search threads.
        top_k: documents asked for per query.
        search: `approximate` or `two-step`; None: exact, or nobody says.
        overlap_at_10: share of the exact top 10 that such a search finds (of the top k, where k is less).
        n_empty_queries: queries without any term, for which nothing can be found.
        n_empty_results: queries for which nothing was found.
        pairs_per_query: rows that a reranker read per query: documents, or pairs of them where it compares.
        reranking_ms_per_query: wall-clock milliseconds of that.
        n_parameters: weights of the reranker.

    Example:
        >>> Costs(model="bm25", L0_q=3.5).to_json()
        {'model': 'bm25', 'L0_q': 3.5}
        >>> Costs.from_json({"model": "bm25", "L0_q": 3.5, "warnings": []}).L0_q
        3.5
    """

    model: str | None = None
    n_docs: int | None = None
    L0_d: float | None = None
    index_bytes: int | None = None
    n_queries: int | None = None
    L0_q: float | None = None
    flops: float | None = None
    encoding_ms_per_query: float | None = None
    search_ms_per_query: float | None = None
    n_threads: int | None = None
    top_k: int | None = None
    search: str | None = None
    overlap_at_10: float | None = None
    n_empty_queries: int | None = None
    n_empty_results: int | None = None
    pairs_per_query: float | None = None
    reranking_ms_per_query: float | None = None
    n_parameters: int | None = None

    def to_json(self) -> dict[str, str | Number]:
        """Return the known costs as JSON values."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, record: Mapping[str, object], name: str = "costs") -> "Costs":
        """Read what `to_json` wrote; other keys are left alone.

        Args:
            record: JSON object.
            name: where it comes from, for messages.

        Raises:
            DataError: a cost is not a number.
        """
        known = {item.name: record[item.name] for item in fields(cls) if record.get(item.name) is not None}
        for key, value in known.items():
            if key in ("model", "search") and not isinstance(value, str):
                raise DataError(f"{name}: '{key}' must be a name, got {shown(value)}")
            if key not in ("model", "search") and (type(value) not in (int, float) or not 0 <= value < math.inf):  # type: ignore[operator]
                raise DataError(f"{name}: '{key}' must be a number, not negative, got {shown(value)}")
        return cls(**known)  # type: ignore[arg-type]  # checked above
