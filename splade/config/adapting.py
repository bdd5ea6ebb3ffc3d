"""Keys of adapting a model to a collection."""

from dataclasses import dataclass
from typing import Literal

from splade.config.declare import NOTHING, files_key, key


@dataclass
class AdaptConfig:
    """`adapt`: which queries splade.adapt trains on, how many, and what they learn from."""

    # Training depends on what follows from these keys, which are files and numbers of its own.
    queries: Literal["made", "judged", "both"] | None = key(
        "made from the collection, those with qrels, or first the one and then the other; null: judged where there are "
        "200 with qrels or more, else made",
        affects=NOTHING,
    )
    made: int = key("queries made from the collection, at most", 4000, affects=NOTHING, minimum=20)
    most_documents: int = key(
        "documents that queries are made from and negatives found in; of a larger collection so many, at random",
        10_000,
        affects=NOTHING,
        minimum=20,
    )
    round_trip: int = key(
        "a made query is trained on if the model finds its own document among the best so many",
        20,
        affects=NOTHING,
        minimum=1,
    )
    query_generator: str | None = files_key(
        "a sequence-to-sequence model that reads a document and writes a query, such as one of doc2query; it makes "
        "half of the queries",
        affects=NOTHING,
    )
    teacher: list[str] | None = key(
        "what is fused into the teacher of judged queries, for a loss that needs one, each as in `retriever`; null: "
        "the model, BM25, and the dense model where it is installed; with rerank.model_type_or_dir also that reranker",
        affects=NOTHING,
    )
    held_out: int | None = key(
        "queries held out; null: two fifths of made queries; of judged ones a fifth, at least 25 or half, at most "
        "data.VALIDATION_SIZE_FOR_LOSS",
        affects=NOTHING,
        minimum=1,
    )
    most_epochs: int | None = key(
        "passes over the other judged queries until training ends, or after config.nb_iterations; null: only then",
        10,
        affects=NOTHING,
        minimum=1,
    )
