"""What experts check before and after each stage: does what was given belong together?

A mistake is an error with its reason, before hours of work wherever that is possible. Something suspicious is a
`Finding`: the task shows it at the end of its summary and keeps it beside its figures.
"""

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from splade.config import Experiment
from splade.config.record import CONFIG_FILE
from splade.datasets.collections import TextCollection, open_queries
from splade.datasets.qrels import Qrels
from splade.encoding.tokens import token_ids
from splade.errors import ConfigError, DataError, ModelError
from splade.evaluation.checks import (
    Finding,
    check_collection_against_queries,
    check_qrels_against_collection,
    check_qrels_against_queries,
    check_vector_counts,
    raise_errors,
)
from splade.inverted_index import InvertedIndex
from splade.models.splade import Splade
from splade.storage.paths import IR_DATASETS_SCHEME

_QUERY_NAME = re.compile(r"([-_.](query|queries|q)|^query[-_]encoder)$", re.IGNORECASE)
_DOCUMENT_NAME = re.compile(r"([-_.](doc|docs|document|documents|d)|^doc(ument)?[-_]encoder)$", re.IGNORECASE)
_SAMPLE = 200
_NEARLY_ALL = 0.9


def check_settings(experiment: Experiment) -> list[Finding]:
    """Look at which models are named, before any is loaded.

    Raises:
        ConfigError: `init_dict` names another model than the checkpoint was trained from, or query and document
            encoder are swapped by their names.
    """
    if not experiment.config.pretrained_no_yamlconfig:
        _check_checkpoint_is_meant(experiment)
        return []
    return _check_encoder_names(experiment.init_dict.model_type_or_dir, experiment.init_dict.model_type_or_dir_q)


def check_max_length(model: Splade, max_length: int) -> list[Finding]:
    """Can both encoders take texts of `max_length` tokens?

    Raises:
        ModelError: more tokens than one of them has positions for; it would crash on the first long text.
    """
    findings = []
    encoders = [("document", model.document_encoder)] + ([] if model.shared else [("query", model.query_encoder)])
    for side, encoder in encoders:
        limit, trained = _positions(encoder)
        if limit is not None and max_length > limit:
            raise ModelError(
                f"config.max_length={max_length}: the {side} encoder of '{model.name}' has positions for at most "
                f"{limit} tokens; set config.max_length={limit} or less"
            )
        if trained is not None and max_length > trained:
            message = f"config.max_length={max_length} is more than the {trained} tokens that the {side} encoder of "
            findings.append(Finding("warning", "length-beyond-training", f"{message}'{model.name}' was trained on"))
    return findings


def check_truncation(model: Splade, collection: TextCollection, max_length: int) -> list[Finding]:
    """Does `max_length` cut nearly every document? That is rarely meant: settings for short texts, for instance."""
    texts = [text for _, text in itertools.islice(collection, _SAMPLE)]
    # One token more than allowed tells that there are more.
    n_cut = sum(len(ids) > max_length for ids in token_ids(model.tokenizer, texts, max_length + 1))
    if n_cut <= _NEARLY_ALL * len(texts):
        return []
    message = f"{n_cut} of the first {len(texts)} documents are longer than config.max_length={max_length} tokens and "
    message += "lose their ends; raise it, unless the model was trained on texts this short"
    return [Finding("warning", "documents-cut", message)]


def check_collection(experiment: Experiment, collection: TextCollection) -> list[Finding]:
    """Was one of the query files given as the collection?

    Raises:
        DataError: it was, by the same file, or by the same ids and texts.
    """
    findings = []
    for path in experiment.data.Q_COLLECTION_PATH:
        if path.startswith(IR_DATASETS_SCHEME):
            continue  # documents and queries of a catalogue cannot be confused, and looking would download them
        try:
            queries = open_queries(path)
        except DataError:
            continue  # indexing needs no queries; retrieving will say what is wrong with them
        if _files(queries) and _files(queries) == _files(collection):
            raise DataError(
                f"data.COLLECTION_PATH={experiment.data.COLLECTION_PATH}: that is the queries file "
                f"(data.Q_COLLECTION_PATH={path}); give the documents"
            )
        if len(queries) == len(collection):
            findings += check_collection_against_queries(_ids(collection), _ids(queries))
    return findings


def check_index(index: InvertedIndex) -> list[Finding]:
    """Are the vectors of an index what a trained sparse encoder gives?

    Raises:
        DataError: every document is empty.
    """
    return raise_errors(
        check_vector_counts(index.n_docs, index.n_empty, index.mean_terms, index.vocab_size, "document")
    )


def check_query_vectors(stats: dict[str, Any], vocab_size: int) -> list[Finding]:
    """Are the queries' vectors (figures of `RetrievalStats`) what a trained sparse encoder gives?

    Raises:
        DataError: every query is empty.
    """
    counts = stats["n_queries"], stats["n_empty_queries"], stats["L0_q"]
    return raise_errors(check_vector_counts(*counts, vocab_size, "query"))


def check_judgements(qrels: Qrels, query_ids: Iterable[str], index: InvertedIndex) -> list[Finding]:
    """Do judgements, queries and index belong together? Reads all document ids: seconds for millions.

    Raises:
        DataError: they share no query or no relevant document, or their ids differ by blanks.
    """
    findings = check_qrels_against_queries(qrels, dict.fromkeys(query_ids))
    relevant = {doc_id for documents in qrels.values() for doc_id, grade in documents.items() if grade > 0}
    return raise_errors([*findings, *check_qrels_against_collection(qrels, _ids_of_interest(index, relevant))])


def _check_checkpoint_is_meant(experiment: Experiment) -> None:
    """Refuse a model in `init_dict` that the checkpoint was not trained from: it would be ignored without a word."""
    from omegaconf import OmegaConf

    if experiment.config.checkpoint_dir is None or experiment.init_dict.model_type_or_dir is None:
        return
    saved = Path(experiment.config.checkpoint_dir) / CONFIG_FILE
    if not saved.is_file():
        return
    trained_from = OmegaConf.select(OmegaConf.load(saved), "init_dict.model_type_or_dir")
    given = experiment.init_dict.model_type_or_dir
    if trained_from is not None and trained_from != given:
        raise ConfigError(
            f"init_dict.model_type_or_dir={given}, but config.checkpoint_dir={experiment.config.checkpoint_dir} holds "
            f"a model trained from {trained_from}. To use {given} as it is, set config.pretrained_no_yamlconfig=true; "
            f"to use the trained model, take its configuration: SPLADE_CONFIG_FULLPATH={saved}"
        )


def _check_encoder_names(document: str | None, query: str | None) -> list[Finding]:
    """Judge by the names that published pairs and our own checkpoints carry: `...-doc` and `...-query`, `model_q`."""
    document_is_query = document is not None and _QUERY_NAME.search(_last_part(document)) is not None
    query_is_document = query is not None and _DOCUMENT_NAME.search(_last_part(query)) is not None
    trained_pair = document is not None and query is not None and _last_part(document) == "model_q"
    if (document_is_query and query_is_document) or (trained_pair and _last_part(str(query)) == "model"):
        raise ConfigError(
            f"init_dict.model_type_or_dir={document} and init_dict.model_type_or_dir_q={query}: the first one encodes "
            "documents, the second one queries; these look swapped"
        )
    if document_is_query and query is None:
        message = f"init_dict.model_type_or_dir={document} looks like the query encoder of a pair, and encodes "
        message += "documents here; give the document encoder, and this one as init_dict.model_type_or_dir_q"
        return [Finding("warning", "query-encoder-for-documents", message)]
    if query_is_document:
        message = f"init_dict.model_type_or_dir_q={query} looks like a document encoder, and encodes queries here"
        return [Finding("warning", "document-encoder-for-queries", message)]
    return []


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _positions(encoder: Any) -> tuple[int | None, int | None]:
    """Return the most tokens that can be encoded, and the most seen in training, where these are known."""
    model = getattr(encoder, "model", None)
    if not isinstance(model, nn.Module):
        return None, None
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and its kin count positions from padding_idx + 1 on.
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - skipped, None
    # Relative and rotary positions have no end, only a length up to which they were trained.
    return None, getattr(getattr(model, "config", None), "max_position_embeddings", None)


def _files(collection: TextCollection) -> list[Path]:
    return [path.resolve() for path in getattr(getattr(collection, "source", None), "files", ())]


def _ids(collection: TextCollection) -> list[str]:
    return [text_id for text_id, _ in collection]


def _ids_of_interest(index: InvertedIndex, wanted: set[str]) -> dict[str, None]:
    """Return which of the wanted ids an index holds, after a few that it holds anyway, for messages."""
    # Stray blanks in the judgements deserve a message of their own: look for the ids without them, too.
    interest = wanted | {one.strip() for one in wanted}
    examples = index.doc_ids(range(min(3, index.n_docs)))
    return dict.fromkeys([*examples, *sorted(index.known_doc_ids(interest))])
