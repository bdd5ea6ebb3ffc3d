"""CIFF, the Common Index File Format (Lin et al., arXiv 2003.08276), which PISA, BMP, Terrier, OldDog and others read.

One file: a header, a list of (document, impact) for each term, and the documents' ids. Impacts are whole numbers, so
weights are multiplied by a factor and rounded. Queries go beside it, `id <TAB> tokens`, each token as often as its
quantised weight says. The messages are those of ciff-toolkit.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from splade.errors import ConfigError, DataError, shown
from splade.interop.anserini import quantise, unambiguous_tokens, write_queries
from splade.interop.exported import Exported, exported_by_term, one_by_one, sorted_terms
from splade.interop.vector_groups import AT_ONCE, Group, as_group
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.progress import progress
from splade.storage.atomic import replacing

logger = logging.getLogger(__name__)
EIGHT_BITS = 255

if TYPE_CHECKING:
    from ciff_toolkit.ciff_pb2 import DocRecord, PostingsList


def export_documents(folder: Path, vectors: IndexedVectors, tokens: Sequence[str], factor: float) -> Exported:
    """Write `documents.ciff`, whole or not at all.

    Raises:
        ConfigError: ciff-toolkit is not installed, or the factor is not positive.
    """
    messages, _, write = _toolkit()
    names, path = unambiguous_tokens(tokens), folder / "documents.ciff"
    terms = sorted_terms(names, vectors.counts)
    lengths, n_lists, n_postings, largest = np.zeros(vectors.n_docs, np.int64), 0, 0, 0
    for _, docs, impacts in vectors.by_term(progress(terms, "quantising", unit="term")):
        docs, impacts = quantise((docs, impacts), factor)
        lengths[docs] += impacts
        n_lists, n_postings = n_lists + bool(len(docs)), n_postings + len(docs)
        largest = max(largest, int(impacts.max(initial=0)))
    if largest > EIGHT_BITS:
        logger.warning(
            "impacts up to %d; systems that hold 8 bits, such as BMP, need quantization_factor_document=%d or less",
            largest,
            max(1, int(factor * EIGHT_BITS / largest)),
        )
    header = messages.Header(
        version=1,
        num_postings_lists=n_lists,
        num_docs=vectors.n_docs,
        total_postings_lists=n_lists,
        total_docs=vectors.n_docs,
        total_terms_in_collection=int(lengths.sum()),
        average_doclength=float(lengths.mean()),
        description=f"learned sparse vectors, weights times {factor:g}",
    )

    def lists() -> Iterator["PostingsList"]:
        for term, docs, impacts in vectors.by_term(progress(terms, "writing CIFF", unit="term")):
            docs, impacts = quantise((docs, impacts), factor)
            if len(docs):
                message = messages.PostingsList(term=names[term], df=len(docs), cf=int(impacts.sum()))
                pairs = zip(np.diff(docs, prepend=0).tolist(), impacts.tolist(), strict=True)
                message.postings.extend(messages.Posting(docid=gap, tf=impact) for gap, impact in pairs)
                yield message

    def records() -> Iterator["DocRecord"]:
        for number, (doc_id, length) in enumerate(zip(vectors.doc_ids, lengths.tolist(), strict=True)):
            yield messages.DocRecord(docid=number, collection_docid=doc_id, doclength=length)

    with replacing(path) as temporary, write.CiffWriter(temporary) as writer:
        writer.write_header(header)
        writer.write_postings_lists(lists())
        writer.write_documents(records())
    return exported_by_term(path, vectors.doc_ids, lengths, n_postings)


def export_queries(folder: Path, name: str, queries: Iterable[Group], tokens: Sequence[str], factor: float) -> Exported:
    """Write `<name>.tsv`: `id <TAB> tokens`, each token as often as its quantised weight says."""
    return write_queries(folder / f"{name}.tsv", one_by_one(queries), tokens, factor)


def read(path: Path, tokens: Sequence[str]) -> Iterator[Group]:
    """Yield the vectors of a file, some at a time, with impacts as they are; all are held in memory, 12 bytes each.

    Args:
        path: the file.
        tokens: the vocabulary.

    Raises:
        ConfigError: ciff-toolkit is not installed.
        DataError: a term of another vocabulary, or a cut file.
    """
    _, reading, _ = _toolkit()
    from google.protobuf.message import DecodeError

    term_of = {name: term for term, name in enumerate(unambiguous_tokens(tokens))}
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [(np.zeros(0, np.int32),) * 3]
    try:
        with reading.CiffReader(path) as reader:
            n_docs = reader.header.num_docs
            for message in progress(reader.read_postings_lists(), f"reading {path.name}", unit="term"):
                if message.term not in term_of:
                    raise DataError(
                        f"{path}: the term {shown(message.term)} is not in the vocabulary of {len(tokens)} terms: "
                        "another model made the vectors"
                    )
                if len(message.postings) != message.df:
                    raise DataError(f"{path}: the list of {shown(message.term)} has not as many postings as it says")
                gaps = np.fromiter((posting.docid for posting in message.postings), np.int32, message.df)
                impacts = np.fromiter((posting.tf for posting in message.postings), np.int32, message.df)
                parts.append((np.cumsum(gaps), np.full(message.df, term_of[message.term], np.int32), impacts))
            ids = [record.collection_docid for record in reader.read_documents()]
    except (DecodeError, IndexError, EOFError, OSError, TypeError) as error:
        raise DataError(f"{path}: not a whole CIFF file ({' '.join(str(error).split())[:200]})") from error
    docs, terms, impacts = (np.concatenate(column) for column in zip(*parts, strict=True))
    if len(ids) != n_docs or (len(docs) and not 0 <= docs.min() <= docs.max() < n_docs) or not all(ids):
        raise DataError(f"{path}: not a whole CIFF file: {len(ids)} of {n_docs} documents, or postings of others")
    order = np.argsort(docs, kind="stable")
    ends = np.searchsorted(docs[order], np.arange(n_docs + 1))
    for start in range(0, n_docs, AT_ONCE):
        stop = min(start + AT_ONCE, n_docs)
        chosen = order[ends[start] : ends[stop]]
        lengths = np.diff(ends[start : stop + 1])
        yield as_group(ids[start:stop], lengths, terms[chosen], impacts[chosen], len(tokens), path)


def _toolkit() -> tuple[ModuleType, ModuleType, ModuleType]:
    try:
        from ciff_toolkit import ciff_pb2, read, write
    except ImportError as error:
        # It asks for an old protobuf, and runs with new ones.
        raise ConfigError("CIFF needs ciff-toolkit: pip install --no-deps ciff-toolkit protobuf") from error
    return ciff_pb2, read, write
