"""CIFF, the Common Index File Format (Lin et al., arXiv 2003.08276), which PISA, BMP, Terrier, OldDog and others read.

One file: a header, a list of (document, impact) for each term, and the documents' ids. Impacts are whole numbers, so
weights are multiplied by a factor and rounded. Queries go beside it, `id <TAB> tokens`, each token as often as its
quantised weight says. The messages are those of ciff-toolkit.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from splade.errors import ConfigError, DataError, shown
from splade.interop.anserini import quantise, unambiguous_tokens, write_queries
from splade.interop.exported import Exported, exported_by_term, one_by_one, sorted_terms
from splade.interop.term_names import foreign_term, numbers_of_names
from splade.interop.vector_groups import AT_ONCE, Group, as_group
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.progress import progress
from splade.storage.atomic import replacing

logger = logging.getLogger(__name__)
EIGHT_BITS = 255
_POSTING = np.dtype([("doc", "<i4"), ("term", "<i4"), ("impact", "<i4")])
_MOST_FILES, _IN_MEMORY = 200, 2**18  # temporary files, and bytes of each before it is one

if TYPE_CHECKING:
    from ciff_toolkit.ciff_pb2 import DocRecord, PostingsList
    from ciff_toolkit.read import CiffReader


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

    with replacing(path) as temporary, open(temporary, "wb") as file:
        writer = write.CiffWriter(file)  # not closed: that would hide what was wrong with the disk
        writer.write_header(header)
        writer.write_postings_lists(lists())
        writer.write_documents(records())
    return exported_by_term(path, vectors.doc_ids, lengths, n_postings)


def export_queries(folder: Path, name: str, queries: Iterable[Group], tokens: Sequence[str], factor: float) -> Exported:
    """Write `<name>.tsv`: `id <TAB> tokens`, each token as often as its quantised weight says."""
    return write_queries(folder / f"{name}.tsv", one_by_one(queries), tokens, factor)


def read(path: Path, tokens: Sequence[str]) -> Iterator[Group]:
    """Yield the vectors of a file, some at a time, with impacts as they are.

    The file goes term by term: its postings are first dealt out to temporary files, each of a range of documents, 12
    bytes a posting; memory is that of one of them.

    Args:
        path: the file.
        tokens: the vocabulary.

    Raises:
        ConfigError: ciff-toolkit is not installed.
        DataError: a term of another vocabulary, or a cut file.
    """
    term_of = numbers_of_names(tokens)
    with _reading(path) as reader, ExitStack() as stack:
        n_docs = reader.header.num_docs
        width = AT_ONCE * max(1, -(-n_docs // (AT_ONCE * _MOST_FILES)))
        firsts = range(0, n_docs, width)
        files = [stack.enter_context(SpooledTemporaryFile(_IN_MEMORY)) for _ in firsts]
        for message in progress(reader.read_postings_lists(), f"reading {path.name}", unit="term"):
            if message.term not in term_of:
                raise foreign_term(str(path), message.term, tokens)
            _deal_out(_postings_of(message, term_of[message.term], n_docs, path), firsts, files)
        records = iter(reader.read_documents())
        for first, file in zip(firsts, files, strict=True):
            ids = [_id_of(next(records), first + i, path) for i in range(min(width, n_docs - first))]
            file.seek(0)
            postings = np.frombuffer(file.read(), _POSTING)
            file.close()
            postings = postings[np.argsort(postings["doc"], kind="stable")]
            ends = np.searchsorted(postings["doc"], np.arange(first, first + len(ids) + 1))
            for start in range(0, len(ids), AT_ONCE):
                stop = min(start + AT_ONCE, len(ids))
                some, lengths = postings[ends[start] : ends[stop]], np.diff(ends[start : stop + 1])
                yield as_group(ids[start:stop], lengths, some["term"], some["impact"], len(tokens), path)


def terms(path: Path) -> Iterator[str]:
    """Yield the terms of a file."""
    with _reading(path) as reader:
        for message in progress(reader.read_postings_lists(), f"reading {path.name}", unit="term"):
            yield message.term


def _postings_of(message: "PostingsList", term: int, n_docs: int, path: Path) -> np.ndarray:
    """Return the postings of a list, as `_POSTING`, by ascending document."""
    if len(message.postings) != message.df:
        raise DataError(f"{path}: the list of {shown(message.term)} has not as many postings as it says")
    gaps = np.fromiter((posting.docid for posting in message.postings), np.int64, message.df)
    made = np.empty(message.df, _POSTING)
    docs = np.cumsum(gaps)
    if message.df and (gaps[0] < 0 or (gaps[1:] <= 0).any() or docs[-1] >= n_docs):
        raise DataError(f"{path}: the list of {shown(message.term)} has documents that are not there, or out of order")
    made["doc"], made["term"] = docs, term
    made["impact"] = np.fromiter((posting.tf for posting in message.postings), np.int32, message.df)
    return made


def _deal_out(postings: np.ndarray, firsts: range, files: Sequence[SpooledTemporaryFile[bytes]]) -> None:
    """Append the postings of a term to the files of their documents."""
    ends = np.searchsorted(postings["doc"], [*firsts[1:], np.iinfo(np.int32).max], "left")
    for begin, end, file in zip([0, *ends[:-1]], ends, files, strict=True):
        if end > begin:
            file.write(postings[begin:end].tobytes())


def _id_of(record: "DocRecord", number: int, path: Path) -> str:
    if record.docid != number or not record.collection_docid:
        raise DataError(f"{path}: not a whole CIFF file: document {number} has no id, or is not where it should be")
    return str(record.collection_docid)


@contextmanager
def _reading(path: Path) -> Iterator["CiffReader"]:
    """Open a file; a DataError for what is no whole one, found now or while it is read."""
    _, reading, _ = _toolkit()
    from google.protobuf.message import DecodeError

    try:
        with reading.CiffReader(path) as reader:
            yield reader
    except (DecodeError, IndexError, EOFError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a whole CIFF file ({' '.join(str(error).split())[:200]})") from error


def _toolkit() -> tuple[ModuleType, ModuleType, ModuleType]:
    try:
        from ciff_toolkit import ciff_pb2, read, write
    except ImportError as error:
        # It asks for an old protobuf, and runs with new ones.
        raise ConfigError("CIFF needs ciff-toolkit: pip install --no-deps ciff-toolkit protobuf") from error
    return ciff_pb2, read, write
