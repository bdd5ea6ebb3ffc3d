"""Every configuration key, with its type, default, bounds and meaning: the one place where keys are defined.

Hydra composes the files of `conf/` over these defaults (`conf/README.md` explains the groups). The text of `--help`,
the checks of keys, types and values, and what may be used again (`splade.config.identity`) all come from here.
"""

from dataclasses import dataclass, field
from typing import Literal

from splade.config.adapting import AdaptConfig
from splade.config.cluster import Launcher, MilvusConfig, RayConfig
from splade.config.declare import (
    BM25,
    DENSE,
    INDEX,
    LARGEST_INT,
    MODEL,
    NOTHING,
    RERANKING,
    SEARCH,
    TRAIN,
    VECTORS,
    Affects,
    Bounds,
    files_key,
    key,
)
from splade.config.inspecting import ExplainConfig, FiguresConfig
from splade.config.interop import ExportConfig, PushConfig
from splade.config.middle_training import PretrainConfig
from splade.config.retrievers import (
    Bm25Config,
    CompareConfig,
    DenseConfig,
    FuseConfig,
    RerankConfig,
    SeismicConfig,
    TwoStepConfig,
)
from splade.config.serving import ServeConfig

__all__ = ["LARGEST_INT", "Affects", "Bounds", "Experiment"]  # of `declare`, for those who look here for them


@dataclass
class LoraConfig:
    """`init_dict.lora`: adapters that are trained in place of the model's own weights."""

    rank: int | None = key("rank of the adapters; null: train the model itself", affects=TRAIN, minimum=1)
    alpha: int = key("adapters count alpha / rank", 8, affects=TRAIN, minimum=1)
    dropout: float = key("dropout before the adapters", 0.1, affects=TRAIN, minimum=0, below=1)
    modules: list[str] | None = key(
        "names of the layers that get one; null: every linear layer but the output", affects=TRAIN
    )
    save: Literal["merged", "adapter"] = key(
        "a model like any other, or the adapters alone with the name of their model", "merged", affects=TRAIN
    )


@dataclass
class ModelConfig:
    """`init_dict`: which model, and how its token logits become one sparse vector."""

    model_type_or_dir: str | None = files_key(
        "document (and query) encoder: hub name, folder, or pkg://package/path", affects=TRAIN | VECTORS
    )
    model_type_or_dir_q: str | None = files_key(
        "separate query encoder, or null to share the document encoder", affects=TRAIN | SEARCH
    )
    freeze_d_model: bool = key("train the query encoder only (needs model_type_or_dir_q)", False, affects=TRAIN)
    agg: Literal["max", "sum"] = key("pooling over tokens", "max", affects=MODEL | VECTORS)
    activation: Literal["relu", "log1p_relu"] | None = key(
        "log1p_relu: log(1 + log(1 + ReLU)); null: what the model's folder says, else relu", affects=MODEL | VECTORS
    )
    head_divisor: float | None = key(
        "divide the pre-trained model's logits, 8 to 16 for ModernBERT; null: leave them",
        affects=TRAIN | VECTORS,
        above=0,
    )
    attention: Literal["causal", "bidirectional"] | None = key(
        "decoder language models: what a token sees; null: what the model's folder says, else causal",
        affects=MODEL | VECTORS,
    )
    repeat_text: bool | None = key(
        "decoder language models: read a text twice and pool the second copy; null: what the model's folder says",
        affects=MODEL | VECTORS,
    )
    fp16: bool = key("encode under fp16 autocast at inference (CUDA; no effect on a CPU)", False, affects=VECTORS)
    precision: Literal["fp32", "bf16", "int8"] = key(
        "of the linear layers at inference on a CPU: fewer bits are faster, vectors differ a little",
        "fp32",
        affects=VECTORS,
    )
    backend: Literal["torch", "onnx", "openvino"] = key(
        "what runs the backbone at inference on a CPU; onnx and openvino export it once", "torch", affects=VECTORS
    )
    top_d: int | None = key("splade_topk: terms kept per document vector", affects=MODEL | INDEX, minimum=1)
    top_q: int | None = key("splade_topk: terms kept per query vector", affects=MODEL | SEARCH, minimum=1)
    lexical_type: Literal["query", "document", "both"] | None = key(
        "splade_lexical: side(s) limited to their own tokens", affects=MODEL | VECTORS
    )
    idf_path: str | None = files_key(
        "splade_idf: JSON {token: weight} of initial query weights; null: 1 each", affects=TRAIN | SEARCH
    )
    idf_collection: str | None = files_key(
        "collection whose document frequencies give IDF weights to tokens, in place of idf_path", affects=TRAIN | SEARCH
    )
    idf_scale: float = key(
        "splade_idf: factor of the weights of idf_path or idf_collection, a temperature of the scores",
        1.0,
        affects=TRAIN | SEARCH,
        above=0,
    )
    query_weights: Literal["learned", "fixed", "projected"] = key(
        "splade_idf: weights of tokens as trained; projected: log(1 + ReLU(w . embedding + b))",
        "learned",
        affects=TRAIN,
    )
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass
class RegularizerConfig:
    """`config.regularizer.<NAME>`: one sparsity term of the loss."""

    reg: Literal["FLOPS", "L1", "anti_zero", "DF_FLOPS", "IDF_FLOPS", "joint_FLOPS"] | None = key(
        "null: the name of the entry", affects=TRAIN
    )
    lambda_q: float | None = key("weight on query vectors, or absent", affects=TRAIN, minimum=0)
    lambda_d: float | None = key("weight on document vectors, or absent", affects=TRAIN, minimum=0)
    T: int | None = key("steps over which lambda grows quadratically; null: constant", affects=TRAIN, minimum=0)
    targeted_rep: Literal["rep", "q", "d"] | None = key("sides it applies to; rep: each with a lambda", affects=TRAIN)
    pool: Literal["sides", "all"] | None = key(
        "documents: mean of positives' and negatives' value, or one value over all; null: sides, all for anti_zero",
        affects=TRAIN,
    )
    l0_threshold: int | None = key("vectors with at most so many terms are not penalised", affects=TRAIN, minimum=1)
    beyond_top_k: int | None = key("so many largest weights of a vector are not penalised", affects=TRAIN, minimum=1)
    target_terms: float | None = key(
        "mean terms per vector that lambda is adjusted to reach; one side, T: null", affects=TRAIN, minimum=1
    )
    alpha: float | None = key("DF_FLOPS: share of documents of half a penalty", affects=TRAIN, above=0, below=1)
    beta: float | None = key("DF_FLOPS: how steeply the penalty grows around alpha", affects=TRAIN, above=0)


@dataclass
class RunConfig:
    """`config`: where things go, and how training, encoding, search and evaluation run."""

    checkpoint_dir: str | None = files_key("folder of the trained model, its config and its logs", affects=VECTORS)
    index_dir: str | None = key("folder of the inverted index", affects=NOTHING)
    store_texts: bool = key("keep the texts of the documents in index_dir, too", False, affects=NOTHING)
    out_dir: str | None = key("folder of runs and results", affects=NOTHING)

    matching_type: Literal["splade", "splade_doc", "splade_topk", "splade_lexical", "splade_idf", "dense"] = key(
        "how queries and documents are encoded", "splade", affects=MODEL | VECTORS
    )
    tokenizer_type: str | None = files_key("hub name or folder; null: the model's own", affects=TRAIN | VECTORS)
    prompt_q: str | None = key(
        "put before every query; null: what the model's folder says; of a reranker: template, {} is the text",
        affects=MODEL | SEARCH | RERANKING,
    )
    prompt_d: str | None = key(
        "put before every document; null: what the model's folder says; of a reranker: template",
        affects=MODEL | VECTORS | RERANKING,
    )
    max_length: int | None = key(
        "tokens per text, longer ones are cut; null: the model's own limit", 256, affects=TRAIN | VECTORS, minimum=2
    )
    n_processes: int | None = key(
        "processes that share training, encoding and reranking; null: one per visible GPU, one without GPU",
        affects=NOTHING,
        minimum=1,
    )
    n_shards: int | None = key(
        "files that the index is kept in and searched as one; null: a single one", affects=INDEX, minimum=1
    )
    seed: int = key("seed of everything that is random", 123, affects=TRAIN, minimum=0, maximum=2**32 - 1)
    pretrained_no_yamlconfig: bool = files_key(
        "init_dict names a pre-trained model: read no checkpoint folder", False, affects=VECTORS
    )
    overwrite: bool = key("replace a finished model, index or run that other settings made", False, affects=NOTHING)
    overwrite_final: bool = key(
        "the last checkpoint becomes the model, whatever validation says; false: the best", False, affects=TRAIN
    )

    lr: float = key("peak learning rate", 2e-5, affects=TRAIN, minimum=0)
    token_weights_lr: float = key(
        "peak learning rate of query_weights, which have no weight decay", 1e-3, affects=TRAIN, minimum=0
    )
    weight_decay: float = key("AdamW weight decay", 0.01, affects=TRAIN, minimum=0)
    warmup_steps: int | None = key(
        "linear warm-up, in optimiser steps; null: warmup_ratio", 6000, affects=TRAIN, minimum=0
    )
    warmup_ratio: float | None = key(
        "linear warm-up, as a share of all steps (warmup_steps: null)", affects=TRAIN, minimum=0, maximum=1
    )
    nb_iterations: int | None = key("optimiser steps in all; null: nb_epochs", 150000, affects=TRAIN, minimum=1)
    nb_epochs: float | None = key("passes over the training set (nb_iterations: null)", affects=TRAIN, above=0)
    gradient_accumulation_steps: int = key("batches per optimiser step", 1, affects=TRAIN, minimum=1)
    gradient_checkpointing: bool = key("less memory for a slower backward pass", False, affects=TRAIN)
    encode_at_a_time: int | None = key(
        "queries encoded at a time, for batches larger than memory; null: the batch",
        affects=TRAIN,
        minimum=1,
    )
    max_grad_norm: float = key("clip gradients to this norm; 0: never", 1.0, affects=TRAIN, minimum=0)
    fp16: bool = key("fp16 autocast with loss scaling in training (CUDA; no effect on a CPU)", False, affects=TRAIN)
    bf16: bool = key("bf16 autocast in training", False, affects=TRAIN)
    train_batch_size: int | None = key(
        "queries per batch, over all processes; null: per_device_train_batch_size", 128, affects=TRAIN, minimum=1
    )
    per_device_train_batch_size: int | None = key(
        "queries per batch and process (train_batch_size: null)", affects=TRAIN, minimum=1
    )
    n_negatives: int = key("negatives drawn per query (hard_negatives only)", 1, affects=TRAIN, minimum=1)
    loss: str | dict[str, float] = key(
        "a loss, or {name: weight, ...} for a weighted sum",
        "InBatchPairwiseNLL",
        affects=TRAIN,
        above=0,
    )
    augment_pairs: Literal["in_batch_negatives"] | None = key(
        "in_batch_negatives: other queries' positives serve as negatives too", affects=TRAIN
    )
    regularizer: dict[str, RegularizerConfig] | Literal["eval_only"] | None = key(
        "{NAME: {reg, lambda_q, lambda_d, T, ...}, ...} | eval_only | null", affects=TRAIN
    )
    record_frequency: int = key("validate and write a checkpoint every so many steps", 10000, affects=TRAIN, minimum=1)
    train_monitoring_freq: int = key("log the losses every so many steps", 500, affects=NOTHING, minimum=1)
    validation_metrics: list[str] = key("metrics of full-ranking validation", ["MRR@10", "recall@100"], affects=TRAIN)
    monitoring_ckpt: str = key("what 'best' means: loss, or one of validation_metrics", "loss", affects=TRAIN)
    early_stopping: bool | str = key(
        "stop after `patience` validations without improvement; true: of monitoring_ckpt, or loss, or a metric",
        False,
        affects=TRAIN,
    )
    patience: int = key("validations without improvement before early stopping", 3, affects=TRAIN, minimum=1)

    reranker_type: Literal["cross-encoder", "rankT5", "monoT5", "duoT5", "PairwisePrompt"] = key(
        "train_reranker, rerank: kind of model", "cross-encoder", affects=TRAIN | RERANKING
    )
    eval_batch_size: int = key("queries or documents per batch in validation", 32, affects=TRAIN, minimum=1)
    index_retrieve_batch_size: int = key("upper bound of texts per batch in encoding", 64, affects=NOTHING, minimum=1)
    top_k: int = key("documents returned per query", 1000, affects=SEARCH | BM25 | DENSE, minimum=1)
    threshold: float = key("only documents scoring above it are returned", 0.0, affects=SEARCH, minimum=0)
    search_effort: float = key(
        "1: exact search; less is faster and may miss documents", 1.0, affects=SEARCH, above=0, maximum=1
    )
    two_step: TwoStepConfig = field(default_factory=TwoStepConfig)
    n_threads: int = key("search threads; 0: one per core", 0, affects=SEARCH, minimum=0)  # for its times
    eval_metric: list[list[str]] = key("metrics per evaluated data set: [[mrr_10, recall], ...]", [], affects=NOTHING)
    retrieval_name: list[str] = key("names of the evaluated data sets, one per query collection", [], affects=NOTHING)


@dataclass
class TrainFiles:
    """`data.TRAIN`: the training set."""

    DATASET_PATH: str | None = files_key("triplets, scored triplets, or teacher scores (hard_negatives)", affects=TRAIN)
    D_COLLECTION_PATH: str | None = files_key("hard_negatives: documents", affects=TRAIN)
    Q_COLLECTION_PATH: str | None = files_key("hard_negatives: queries", affects=TRAIN)
    QREL_PATH: str | None = files_key("hard_negatives: qrels, from which positives are drawn", affects=TRAIN)


@dataclass
class FullRanking:
    """`data.VALIDATION_FULL_RANKING`: validation by retrieval."""

    D_COLLECTION_PATH: str | None = files_key("documents", affects=TRAIN)
    Q_COLLECTION_PATH: str | None = files_key("queries", affects=TRAIN)
    QREL_PATH: str | None = files_key("qrels", affects=TRAIN)
    TOP_K: int = key("documents retrieved per query", 100, affects=TRAIN, minimum=1)


@dataclass
class DataConfig:
    """`data`: what is read."""

    type: Literal["triplets", "triplets_with_distil", "hard_negatives"] = key(
        "kind of training set", "triplets", affects=TRAIN
    )
    TRAIN_DATA_DIR: str | None = key(
        "folder of the triplets (DATASET_PATH: null), or one that other paths interpolate", affects=NOTHING
    )
    incomplete: Literal["error", "leave_out"] = key(
        "hard_negatives: judged queries without scores, positives not in the collection", "error", affects=TRAIN
    )
    VALIDATION_SIZE_FOR_LOSS: int | None = key("examples held out for validation loss", affects=TRAIN, minimum=0)
    VALIDATION_FULL_RANKING: FullRanking | None = field(default_factory=FullRanking)  # null: none
    COLLECTION_PATH: str | None = files_key("documents to index", affects=INDEX | BM25)
    VECTORS_PATH: str | None = files_key(
        "index: vectors in their place: .parquet, .npz, .jsonl[.gz], or a folder of these", affects=INDEX
    )
    VOCABULARY: Literal["model", "own"] = key(
        "VECTORS_PATH: whose terms the vectors are over; own: those that are in the files, for which there is no model",
        "model",
        affects=INDEX,
    )
    Q_COLLECTION_PATH: list[str] = files_key("query collections to retrieve for", [], affects=SEARCH | BM25)
    EVAL_QREL_PATH: list[str | None] = key("qrels per query collection; null: none", [], affects=NOTHING)
    path_run: str | list[str] | None = key("rerank: one run or several, JSON or TREC", affects=NOTHING)
    run_name: str | list[str] | None = key("rerank: names of the runs, for folders", affects=NOTHING)
    dataset_name: str | list[str] | None = key("rerank: data set of each run, for folders", affects=NOTHING)
    document_dir: str | list[str] | None = key("rerank: documents of each run, or one for all", affects=NOTHING)
    query_dir: str | list[str] | None = key("rerank: queries of each run, or one for all", affects=NOTHING)
    flops_queries: str | None = key("queries from which splade.flops estimates term frequencies", affects=NOTHING)
    TRAIN: TrainFiles = field(default_factory=TrainFiles)  # last: it hides the flag TRAIN


@dataclass
class BeirConfig:
    """`beir`: the data set of splade.beir_eval. Every default is null, so that `+beir.KEY=VALUE` works, too."""

    dataset: str | None = files_key(
        "name, also the folder's: scifact, cqadupstack/android, cqadupstack (all 12), ...", affects=VECTORS | BM25
    )
    dataset_path: str | None = files_key(
        "folder that holds the data set's folder; downloaded to it when missing", affects=VECTORS | BM25
    )
    split: str | None = key("split of the qrels; null: test", affects=SEARCH | BM25)
    url: str | None = key("where to download from; null: BEIR's own server", affects=NOTHING)
    baseline: bool | None = key("true: run BM25 beside the model and test the difference", affects=NOTHING)
    reference: str | None = key("published results beside all; null: those of the same model", affects=NOTHING)


@dataclass
class Experiment:
    """A whole experiment, as composed from `conf/` and overrides."""

    init_dict: ModelConfig = field(default_factory=ModelConfig)
    config: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    beir: BeirConfig = field(default_factory=BeirConfig)
    bm25: Bm25Config = field(default_factory=Bm25Config)
    dense: DenseConfig = field(default_factory=DenseConfig)
    rerank: RerankConfig = field(default_factory=RerankConfig)
    fuse: FuseConfig = field(default_factory=FuseConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    push: PushConfig = field(default_factory=PushConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    explain: ExplainConfig = field(default_factory=ExplainConfig)
    figures: FiguresConfig = field(default_factory=FiguresConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    milvus: MilvusConfig = field(default_factory=MilvusConfig)
    seismic: SeismicConfig = field(default_factory=SeismicConfig)
    launcher: Launcher | None = key(
        "who shares the work: local, the processes of config.n_processes; torchrun, those that it has started; "
        "ray, a cluster; null: torchrun where it has, else local",
        affects=NOTHING,
    )
    retriever: str = key(
        "beir_eval: sparse, bm25, dense, milvus, seismic, fuse, rerank, or package.module:Class, your own Retriever",
        "sparse",
        affects=SEARCH,
    )
    runs: list[str] | dict[str, str] | None = key(
        "compare, fuse: [run, run, ...] or {name: run, ...}; JSON or TREC files, or folders with run.json",
        affects=NOTHING,
    )
    qrels: str | None = key(
        "compare, fuse: qrels; null: the first of data.EVAL_QREL_PATH (compare), no evaluation (fuse)", affects=NOTHING
    )
    metrics: list[str] | None = key("compare, fuse: metrics; null: the first of config.eval_metric", affects=NOTHING)
    index_dir: str | None = key("index_info: folder of the index; null: config.index_dir", affects=NOTHING)
    target: (
        Literal["onnx", "anserini", "ciff", "pisa", "seismic", "opensearch", "qdrant", "milvus"]
        | Literal["parquet", "npz", "jsonl"]
        | None
    ) = key("export: onnx, or where vectors go; encode: parquet (also null), npz or jsonl", affects=NOTHING)
    query: str | None = key(
        "search: one query; null: a prompt; explain: what documents are scored for", affects=NOTHING
    )
    add: str | None = key("update: collection of documents to add", affects=NOTHING, names_files=True)
    delete: list[str] | None = key(
        "update: documents to delete: [id, id, ...]; a file among them stands for its lines", affects=NOTHING
    )
    value_to_prune: float | None = key("prune: drop impacts below so many times the mean", affects=NOTHING, above=0)
    size_to_prune: int | None = key("prune: keep so many largest terms per document", affects=NOTHING, minimum=1)
    quantile: float | None = key(
        "prune: drop this share of each term's postings, the smallest", affects=NOTHING, above=0, below=1
    )
    longest_list: int | None = key("prune: keep so many largest postings per term", affects=NOTHING, minimum=1)
    idf_to_prune: float | None = key("prune: value_to_prune of impact times IDF", affects=NOTHING, above=0)
    quantization_factor_document: int = key(
        "create_anserini, export: document impact = round(factor * weight)", 100, affects=NOTHING, minimum=1
    )
    quantization_factor_query: int | None = key(
        "create_anserini, export: query impact = round(factor * weight); null: 100, of splade_doc 1",
        affects=NOTHING,
        minimum=1,
    )
    shard_size: int | None = key(
        "create_anserini: documents of each of several compressed files; null: one file, not compressed",
        affects=NOTHING,
        minimum=1,
    )
