"""Task: quantised vectors for Anserini/Lucene."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.interop.anserini import Exported, write_documents, write_queries


@dataclass(frozen=True)
class AnseriniResult:
    """The exported files."""

    exported: list[Exported]

    def summary(self) -> str:
        """Return one line per file."""
        return "\n".join(
            f"{item.n_written} vectors, {item.mean_terms:.1f} terms each, {item.n_empty} empty\n  in {item.path}"
            for item in self.exported
        )


def create_anserini(experiment: Experiment) -> AnseriniResult:
    """Write out_dir/docs_anserini.jsonl and out_dir/queries_anserini.tsv with integer weights round(factor * weight).

    Needs +quantization_factor_document=100 and +quantization_factor_query=100. Several query collections give one
    file each, queries_anserini.<name>.tsv.
    """
    require(
        experiment,
        "config.out_dir",
        "data.COLLECTION_PATH",
        "data.Q_COLLECTION_PATH",
        "quantization_factor_document",
        "quantization_factor_query",
    )
    from splade.datasets.collections import open_collection, open_queries
    from splade.models.load import load_for_inference
    from splade.pipeline.checks import check_max_length, check_settings

    run, out_dir = experiment.config, Path(str(experiment.config.out_dir))
    check_settings(experiment)
    documents = open_collection(str(experiment.data.COLLECTION_PATH))
    queries = [open_queries(path) for path in experiment.data.Q_COLLECTION_PATH]
    model = load_for_inference(experiment)
    check_max_length(model, run.max_length)
    tokens = model.tokenizer.convert_ids_to_tokens(list(range(model.vocab_size)))
    exported = [
        write_documents(
            out_dir / "docs_anserini.jsonl",
            _encoded(documents, model.document_encoder, model.tokenizer, run),
            tokens,
            factor=float(experiment.quantization_factor_document or 0),
        )
    ]
    for name, collection in zip(_file_names(experiment), queries, strict=True):
        vectors = _encoded(collection, model.query_encoder, model.query_tokenizer, run)
        exported.append(
            write_queries(
                out_dir / name,
                ((query_id, vector) for query_id, _, vector in vectors),
                tokens,
                factor=float(experiment.quantization_factor_query or 0),
            )
        )
    save_record(experiment, out_dir, "create_anserini")
    return AnseriniResult(exported)


def _file_names(experiment: Experiment) -> list[str]:
    n_collections = len(experiment.data.Q_COLLECTION_PATH)
    if n_collections == 1:
        return ["queries_anserini.tsv"]
    names = experiment.config.retrieval_name or [str(i) for i in range(n_collections)]
    return [f"queries_anserini.{name}.tsv" for name in names]


def _encoded(
    pairs: Iterable[tuple[str, str]], encoder: Any, tokenizer: Any, run: Any
) -> Iterator[tuple[str, str, tuple[Any, Any]]]:
    """Yield (id, text, (term_ids, weights)) of every (id, text)."""
    from splade.encoding import encode_texts

    waiting: deque[tuple[str, str]] = deque()

    def texts() -> Iterator[str]:
        for pair in pairs:
            waiting.append(pair)
            yield pair[1]

    for vectors in encode_texts(encoder, tokenizer, texts(), run.max_length, run.index_retrieve_batch_size):
        for vector in vectors:
            yield (*waiting.popleft(), vector)
