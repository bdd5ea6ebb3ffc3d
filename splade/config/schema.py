"""Every configuration key, with its type, default and meaning: the one place where keys are defined.

Hydra composes the files of `conf/` over these defaults (`conf/README.md` explains the groups). The text of `--help`,
the check of unknown keys and the types all come from here.
"""

from dataclasses import dataclass, field
from typing import Any

MATCHING_TYPES = ("splade", "splade_doc", "splade_topk", "splade_lexical", "splade_idf")
DATA_TYPES = ("triplets", "triplets_with_distil", "hard_negatives")


def key(help_text: str, default: Any = None, choices: tuple[str, ...] = (), minimum: float | None = None) -> Any:
    """Declare a key: its one-line description, its default (copied per instance) and the values it may take."""
    metadata = {"help": help_text, "choices": choices, "minimum": minimum}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ModelConfig:
    """`init_dict`: which model, and how its token logits become one sparse vector."""

    model_type_or_dir: str | None = key("document (and query) encoder: hub name, folder, or pkg://package/path")
    model_type_or_dir_q: str | None = key("separate query encoder, or null to share the document encoder")
    freeze_d_model: bool = key("train the query encoder only (needs model_type_or_dir_q)", False)
    agg: str = key("pooling over tokens", "max", choices=("max", "sum"))
    fp16: bool = key("run the encoders under fp16 autocast at inference (CUDA only)", False)
    top_d: int | None = key("splade_topk: terms kept per document vector", minimum=1)
    top_q: int | None = key("splade_topk: terms kept per query vector", minimum=1)
    lexical_type: str | None = key(
        "splade_lexical: side(s) limited to their own tokens", choices=("query", "document", "both")
    )
    idf_path: str | None = key("splade_idf: JSON {token: weight} of initial query weights; null: 1 each")


@dataclass
class RegularizerConfig:
    """`config.regularizer.<NAME>`: one sparsity term of the loss."""

    reg: str | None = key("null: the name of the entry", choices=("FLOPS", "L1", "anti_zero"))
    lambda_q: float | None = key("weight on query vectors, or absent", minimum=0)
    lambda_d: float | None = key("weight on document vectors, or absent", minimum=0)
    T: int | None = key("steps over which lambda grows quadratically to its value; null: constant", minimum=0)
    targeted_rep: str | None = key("sides it applies to; rep: each with a lambda", choices=("rep", "q", "d"))


@dataclass
class RunConfig:
    """`config`: where things go, and how training, encoding, search and evaluation run."""

    checkpoint_dir: str | None = key("folder of the trained model, its config and its logs")
    index_dir: str | None = key("folder of the inverted index")
    out_dir: str | None = key("folder of runs and results")

    matching_type: str = key("how queries and documents are encoded", "splade", choices=MATCHING_TYPES)
    tokenizer_type: str | None = key("tokenizer: hub name or folder; null: the model's own")
    max_length: int = key("tokens per text, longer ones are cut", 256, minimum=2)
    seed: int = key("seed of everything that is random", 123, minimum=0)
    pretrained_no_yamlconfig: bool = key("init_dict names a pre-trained model: read no checkpoint folder", False)
    overwrite_final: bool = key("replace a finished model, index or run that another configuration made", False)

    lr: float = key("peak learning rate", 2e-5, minimum=0)
    weight_decay: float = key("AdamW weight decay", 0.01, minimum=0)
    warmup_steps: int = key("linear warm-up, in optimiser steps", 6000, minimum=0)
    nb_iterations: int = key("optimiser steps in all", 150000, minimum=1)
    gradient_accumulation_steps: int = key("batches per optimiser step", 1, minimum=1)
    gradient_checkpointing: bool = key("recompute activations in the backward pass to save memory", False)
    max_grad_norm: float = key("clip gradients to this norm; 0: never", 1.0, minimum=0)
    fp16: bool = key("fp16 autocast with loss scaling in training (CUDA only)", False)
    bf16: bool = key("bf16 autocast in training", False)
    train_batch_size: int = key("queries per batch, over all processes", 128, minimum=1)
    n_negatives: int = key("negatives drawn per query (hard_negatives only)", 1, minimum=1)
    loss: Any = key("a loss, or {name: weight, ...} for a weighted sum", "InBatchPairwiseNLL")
    augment_pairs: str | None = key(
        "in_batch_negatives: other queries' positives serve as negatives too", choices=("in_batch_negatives",)
    )
    regularizer: Any = key("{NAME: {reg, lambda_q, lambda_d, T, targeted_rep}, ...} | eval_only | null")
    record_frequency: int = key("validate and write a checkpoint every so many steps", 10000, minimum=1)
    train_monitoring_freq: int = key("log the losses every so many steps", 500, minimum=1)
    validation_metrics: list[str] = key("metrics of full-ranking validation", ["MRR@10", "recall@100"])
    monitoring_ckpt: str = key("what 'best' means: loss, or one of validation_metrics", "loss")
    early_stopping: bool = key("stop once monitoring_ckpt has not improved for `patience` validations", False)
    patience: int = key("validations without improvement before early stopping", 3, minimum=1)

    eval_batch_size: int = key("queries or documents per batch in validation", 32, minimum=1)
    index_retrieve_batch_size: int = key("upper bound of texts per batch in encoding", 64, minimum=1)
    top_k: int = key("documents returned per query", 1000, minimum=1)
    threshold: float = key("only documents scoring above it are returned", 0.0, minimum=0)
    search_effort: float = key("1: exact search; less is faster and may miss documents", 1.0, minimum=0)
    n_threads: int = key("search threads; 0: one per core", 0, minimum=0)
    eval_metric: list[list[str]] = key("metrics per evaluated data set: [[mrr_10, recall], ...]", [])
    retrieval_name: list[str] = key("names of the evaluated data sets, one per query collection", [])


@dataclass
class TrainFiles:
    """`data.TRAIN`: the training set."""

    DATASET_PATH: str | None = key("triplets, scored triplets, or teacher scores (hard_negatives)")
    D_COLLECTION_PATH: str | None = key("hard_negatives: documents")
    Q_COLLECTION_PATH: str | None = key("hard_negatives: queries")
    QREL_PATH: str | None = key("hard_negatives: judgements, from which positives are drawn")


@dataclass
class FullRanking:
    """`data.VALIDATION_FULL_RANKING`: validation by retrieval."""

    D_COLLECTION_PATH: str | None = key("documents")
    Q_COLLECTION_PATH: str | None = key("queries")
    QREL_PATH: str | None = key("judgements")
    TOP_K: int = key("documents retrieved per query", 100, minimum=1)


@dataclass
class DataConfig:
    """`data`: what is read."""

    type: str = key("kind of training set", "triplets", choices=DATA_TYPES)
    TRAIN_DATA_DIR: str | None = key("folder of the training data, for interpolation in other paths")
    TRAIN: TrainFiles = key("training set", TrainFiles)
    incomplete: str = key(
        "hard_negatives: judged queries without scores, positives not in the collection",
        "error",
        choices=("error", "leave_out"),
    )
    VALIDATION_SIZE_FOR_LOSS: int | None = key("training examples held out for validation loss", minimum=0)
    VALIDATION_FULL_RANKING: FullRanking | None = key("validation by full ranking; null: none", FullRanking)
    COLLECTION_PATH: str | None = key("documents to index")
    Q_COLLECTION_PATH: list[str] = key("query collections to retrieve for", [])
    EVAL_QREL_PATH: list[str | None] = key("judgements, one file per query collection (null: not evaluated)", [])
    flops_queries: str | None = key("queries from which splade.flops estimates term frequencies")


@dataclass
class BeirConfig:
    """`beir`: the data set of splade.beir_eval."""

    dataset: str | None = key("name, also the folder's: scifact, cqadupstack/android, cqadupstack (all 12), ...")
    dataset_path: str | None = key("folder that holds the data set's folder; downloaded to it when missing")
    split: str | None = key("split of the judgements; null: test")
    url: str | None = key("where to download from; null: BEIR's own server")
    baseline: bool | None = key("true: run BM25 beside the model and test the difference")
    keep_vectors: bool | None = key("true: keep the encoded queries and use them again for other search settings")
    reference: str | None = key("published results beside all rows; null: those of the very same model")


@dataclass
class Bm25Config:
    """`bm25`: the lexical baseline."""

    k1: float = key("how slowly repeated words saturate", 0.9, minimum=0)
    b: float = key("how much long documents are penalised, 0 to 1", 0.4, minimum=0)
    method: str = key("variant", "lucene", choices=("lucene", "robertson", "atire", "bm25l", "bm25+"))
    stemmer: str | None = key("language of the Snowball stemmer; null: none", "english")
    stopwords: str | None = key("language whose stop words are dropped; null: none", "en")


@dataclass
class CompareConfig:
    """`compare`: how splade.compare tests and what it shows."""

    baseline: str | None = key("run with which the others are compared; null: all pairs")
    test: str = key("paired significance test", "t", choices=("t", "randomisation"))
    correction: str = key("for several comparisons", "holm", choices=("holm", "bonferroni", "none"))
    alpha: float = key("significance level", 0.05, minimum=0)
    n_queries: int = key("queries shown, those that differ most", 5, minimum=0)
    n_documents: int = key("documents shown per query and run", 5, minimum=0)
    drop_identical_ids: bool = key("leave out documents with the query's own id, as BEIR does", False)


@dataclass
class Experiment:
    """A whole experiment, as composed from `conf/` and overrides."""

    init_dict: ModelConfig = key("model", ModelConfig)
    config: RunConfig = key("run", RunConfig)
    data: DataConfig = key("data", DataConfig)
    beir: BeirConfig = key("BEIR", BeirConfig)
    bm25: Bm25Config = key("lexical baseline", Bm25Config)
    compare: CompareConfig = key("comparison of runs", CompareConfig)
    runs: Any = key("compare: [run, run, ...] or {name: run, ...}; JSON or TREC files, or folders with run.json")
    qrels: str | None = key("compare: judgements; null: the first of data.EVAL_QREL_PATH")
    metrics: list[str] | None = key("compare: metrics; null: the first of config.eval_metric")
    index_dir: str | None = key("index_info: folder of the index; null: config.index_dir")
    quantization_factor_document: int | None = key(
        "create_anserini: document impact = round(factor * weight)", minimum=1
    )
    quantization_factor_query: int | None = key("create_anserini: query impact = round(factor * weight)", minimum=1)
