"""Quantised vectors for Anserini, which searches them with Lucene's impact index.

Lucene counts occurrences, it does not store weights: a term of weight 1.27 is written as the integer 127 for a document
and as the token repeated 127 times for a query, with both factors at 100. Index and search with Anserini's
`JsonVectorCollection` and its options `-impact -pretokenized`.

Of queries, those without a term are left out, because Anserini's reader stops at a query without text; a document
without a term gets one that no query has, `[empty]`, because Anserini's reader skips it otherwise.

Anserini splits at blanks what it reads. A vocabulary may hold tokens with blanks in them or the same text twice; those
are written as `[term-<id>]`, in documents and queries alike, so that scores stay what they are.
"""

import json
import logging
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from splade.encoding.bag_of_words import check_vocabulary
from splade.errors import ConfigError, DataError
from splade.interop.exported import Exported, SparseVector, Tally, one_by_one, write_lines
from splade.interop.vector_groups import Group
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.storage.atomic import replacing
from splade.storage.text_files import iterate_lines

logger = logging.getLogger(__name__)

# Lucene's whitespace tokenizer cuts longer tokens into pieces (UTF-16 units).
_LONGEST_TOKEN = 255
EMPTY = "[empty]"
_LARGEST_IMPACT = 2**31 - 1
_LONGEST_QUERY = 10**7


def write_documents(
    path: str | Path,
    documents: Iterable[tuple[str, str, SparseVector]],
    tokens: Sequence[str],
    factor: float = 100.0,
) -> Exported:
    """Write `docs_anserini.jsonl`, whole or not at all: one `{"id", "content", "vector": {token: weight}}` a line.

    Args:
        path: the file to write; one that ends with `.gz` is compressed.
        documents: (doc_id, text, (term_ids, weights)), consumed one at a time.
        tokens: the vocabulary, token of each term id.
        factor: weights are multiplied by it and rounded; what rounds to zero is dropped.

    Raises:
        ConfigError: the factor is not positive.
        DataError: a term lies outside the vocabulary.
    """
    tally = Tally()
    write_lines(Path(path), _document_lines(documents, tokens, factor, tally))
    return tally.exported(path)


def write_queries(
    path: str | Path, queries: Iterable[tuple[str, SparseVector]], tokens: Sequence[str], factor: float = 100.0
) -> Exported:
    """Write `queries_anserini.tsv`: `id <TAB> tokens`, each token as often as its quantised weight says.

    Arguments and errors are those of `write_documents`, without texts.

    Raises:
        DataError: also for an id that holds a tab or a line break.
    """
    tally = Tally()
    names = unambiguous_tokens(tokens)
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as lines:
        for query_id, vector in queries:
            if len(query_id.split("\t")) != 1 or len(query_id.splitlines()) != 1:
                raise DataError(
                    f"query id {query_id!r}: empty, or with a tab or line break, cannot be written to a TSV"
                )
            terms, impacts = quantise(vector, factor)
            tally.count(query_id, len(terms))
            if impacts.sum() > _LONGEST_QUERY:
                raise DataError(
                    f"query {query_id!r} would be {impacts.sum()} tokens long; give a smaller quantisation factor"
                )
            if len(terms):
                words = (" ".join([name] * n) for name, n in zip(_names(terms, names), impacts.tolist(), strict=True))
                lines.write(f"{query_id}\t{' '.join(words)}\n")
    return tally.exported(path)


def export_documents(folder: Path, vectors: IndexedVectors, tokens: Sequence[str], factor: float) -> Exported:
    """Write `anserini_collection/docs_anserini.jsonl`, without texts."""
    documents = ((doc_id, "", vector) for doc_id, vector in one_by_one(vectors.by_document()))
    return write_documents(folder / "anserini_collection" / "docs_anserini.jsonl", documents, tokens, factor)


def export_queries(folder: Path, name: str, queries: Iterable[Group], tokens: Sequence[str], factor: float) -> Exported:
    """Write `<name>.tsv`."""
    return write_queries(folder / f"{name}.tsv", one_by_one(queries), tokens, factor)


def join_queries(path: Path, parts: Sequence[Path]) -> bool:
    """Write all queries of several files into one, each once; False: two have one id, and nothing is written."""
    queries: dict[str, str] = {}
    for part in parts:
        for _, line in iterate_lines(part):
            if queries.setdefault(line.partition("\t")[0], line) != line:
                return False
    write_lines(path, queries.values())
    return True


def link_alone(path: Path, folder: Path) -> None:
    """Give a file a second name in a folder in which it is alone; a copy where the file system has no links.

    Raises:
        WriteError: the folder cannot be written to.
    """
    with replacing(folder / path.name) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
    _remove_others(folder, [folder / path.name])


def anserini_commands(collection: Path, queries: Sequence[Path], out_dir: Path) -> list[str]:
    """Return the command lines of Anserini that index the documents and search them for the queries."""
    index = shlex.quote(str(out_dir.absolute() / "anserini_index"))
    lines = [
        "bin/run.sh io.anserini.index.IndexCollection -collection JsonVectorCollection \\",
        f"    -input {shlex.quote(str(collection.absolute()))} -index {index} \\",
        "    -generator DefaultLuceneDocumentGenerator -impact -pretokenized -threads 8",
    ]
    for path in queries:
        run = path.absolute().with_name(f"run.{path.stem}.txt")
        lines += [
            "# Releases before the option was renamed, such as 0.22, have -topicreader.",
            f"bin/run.sh io.anserini.search.SearchCollection -index {index} \\",
            f"    -topics {shlex.quote(str(path.absolute()))} -topicReader TsvString \\",
            f"    -output {shlex.quote(str(run))} -impact -pretokenized -hits 1000",
        ]
    return lines


def quantise(vector: SparseVector, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Return term ids and `round(weight * factor)` as int64, without the terms that round to zero.

    Raises:
        ConfigError: the factor is not positive, or infinite.
        DataError: a weight is not finite, or a product larger than Lucene's whole numbers.

    Example:
        >>> terms, impacts = quantise((np.array([3, 7]), np.array([1.27, 0.004])), 100)
        >>> terms.tolist(), impacts.tolist()
        ([3], [127])
    """
    if not 0 < factor < np.inf:
        raise ConfigError(f"the quantisation factor must be positive and finite, but got {factor}; 100 is usual")
    term_ids, weights = vector
    scaled = np.rint(np.asarray(weights, dtype=np.float64) * factor)
    if not (np.abs(scaled) <= _LARGEST_IMPACT).all():
        raise DataError(f"a weight times the quantisation factor {factor:g} is not finite, or above {_LARGEST_IMPACT}")
    impacts = scaled.astype(np.int64)
    kept = impacts > 0
    return np.asarray(term_ids)[kept], impacts[kept]


def unambiguous_tokens(tokens: Sequence[str]) -> list[str]:
    """Return one distinct name per term that Lucene's whitespace tokenizer leaves in one piece.

    Example:
        >>> unambiguous_tokens(["cat", "a b", "dog", "dog"])
        ['cat', '[term-1]', '[term-2]', '[term-3]']
    """
    occurrences = Counter(tokens)
    names = [
        token if _in_one_piece(token) and occurrences[token] == 1 else f"[term-{term_id}]"
        for term_id, token in enumerate(tokens)
    ]
    if len({*names, EMPTY}) <= len(names):
        clash = next(name for name, n in Counter([*names, EMPTY]).items() if n > 1)
        raise DataError(
            f"the vocabulary already holds {clash!r}, the name for a token that Anserini would split, or for none"
        )
    renamed = sum(name != token for name, token in zip(names, tokens, strict=True))
    if renamed:
        logger.info("%d tokens with blanks, or occurring twice, are written as [term-<id>]", renamed)
    return names


def _document_lines(
    documents: Iterable[tuple[str, str, SparseVector]], tokens: Sequence[str], factor: float, tally: Tally
) -> Iterator[str]:
    names = unambiguous_tokens(tokens)
    for doc_id, text, vector in documents:
        terms, impacts = quantise(vector, factor)
        bag = dict(zip(_names(terms, names), impacts.tolist(), strict=True))
        tally.count(doc_id, len(bag))
        yield json.dumps({"id": doc_id, "content": text, "vector": bag or {EMPTY: 1}}, ensure_ascii=False)


def _remove_others(folder: Path, kept: Sequence[Path]) -> None:
    for other in folder.iterdir():
        if other not in kept:
            other.unlink()


def _in_one_piece(token: str) -> bool:
    return token.split() == [token] and len(token.encode("utf-16-le")) // 2 <= _LONGEST_TOKEN


def _names(terms: np.ndarray, names: Sequence[str]) -> list[str]:
    check_vocabulary(terms, names)
    return [names[term] for term in terms.tolist()]
