"""PISA's own files before compression, and what compresses and searches them (Mallia et al., OSIRRC 2019).

`inv.docs` and `inv.freqs` are sequences of 32-bit numbers, each after its length, one per term in the order of the
terms' bytes; `inv.sizes` has the lengths of the documents; `fwd.terms` and `fwd.documents` the names of both, a line
each. Queries are `id:number number ...` with the number of each term as often as its quantised weight says, because
PISA's own tokenizer would cut word pieces.

`evaluate.sh` measures as in An Efficiency Study for SPLADE Models (arXiv 2207.03834): `block_simdbp`, block-max indexes
of fixed blocks of 40, `block_max_wand`, weighted queries, 10 and 1000 documents, one thread.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from splade.errors import DataError
from splade.interop.anserini import quantise, unambiguous_tokens
from splade.interop.exported import Exported, Tally, check_line, exported_by_term, one_by_one, sorted_terms, write_lines
from splade.interop.vector_groups import Group
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.progress import progress
from splade.storage.atomic import replacing, write_json, write_text

BLOCK_SIZE = 40
_LARGEST = 2**32 - 1
_SCRIPT = """#!/usr/bin/env bash
# Compress the index and search it with PISA's programs, whose folder is given; one thread.
set -euo pipefail
bin=${1:?usage: evaluate.sh FOLDER_OF_PISA_PROGRAMS}
cd "$(dirname "$0")"
"$bin/lexicon" build fwd.terms fwd.termlex
"$bin/lexicon" build fwd.documents fwd.doclex
"$bin/create_wand_data" -c inv -o inv.bmw -b BLOCK_SIZE -s quantized
"$bin/compress_inverted_index" -c inv -o inv.block_simdbp -e block_simdbp
for queries in *.pisa; do
    for k in 10 1000; do
        search=(-e block_simdbp -i inv.block_simdbp -w inv.bmw -a block_max_wand -s quantized --weighted -k "$k")
        "$bin/evaluate_queries" "${search[@]}" -q "$queries" --documents fwd.doclex --threads 1 \\
            > "${queries%.pisa}.$k.trec"
        "$bin/queries" "${search[@]}" -q "$queries" | tee "${queries%.pisa}.$k.times"
    done
done
"""


def export_documents(folder: Path, vectors: IndexedVectors, tokens: Sequence[str], factor: float) -> Exported:
    """Write the files of the index and `evaluate.sh`; each is whole or absent.

    Raises:
        ConfigError: the factor is not positive.
        DataError: an id with a line end, or a document whose impacts sum up to more than 32 bits hold.
    """
    names = unambiguous_tokens(tokens)
    terms = sorted_terms(names, vectors.counts)
    lengths, written, n_postings = np.zeros(vectors.n_docs, np.int64), [], 0
    with replacing(folder / "inv.docs") as docs_path, replacing(folder / "inv.freqs") as freqs_path:
        with open(docs_path, "wb") as docs_file, open(freqs_path, "wb") as freqs_file:
            _sequence(docs_file, np.array([vectors.n_docs]))
            for term, docs, impacts in vectors.by_term(progress(terms, "writing postings", unit="term")):
                docs, impacts = quantise((docs, impacts), factor)
                if len(docs):
                    _sequence(docs_file, docs)
                    _sequence(freqs_file, impacts)
                    lengths[docs] += impacts
                    written.append(term)
                    n_postings += len(docs)
    if lengths.max() > _LARGEST:
        raise DataError(f"a document's impacts sum up to {lengths.max()}; give a smaller quantisation factor")
    with replacing(folder / "inv.sizes") as path, open(path, "wb") as sizes:
        _sequence(sizes, lengths)
    write_lines(folder / "fwd.terms", (names[term] for term in written))
    write_lines(folder / "fwd.documents", (check_line(doc_id, "a document") for doc_id in vectors.doc_ids))
    # By which PyTerrier's plugin knows it.
    about = {"type": "sparse_index", "format": "pisa", "package_hint": "pyterrier-pisa", "stemmer": "none"}
    write_json(folder / "pt_meta.json", about)
    write_text(folder / "evaluate.sh", _SCRIPT.replace("BLOCK_SIZE", str(BLOCK_SIZE)))
    return exported_by_term(folder, vectors.doc_ids, lengths, n_postings)


def export_queries(folder: Path, name: str, queries: Iterable[Group], tokens: Sequence[str], factor: float) -> Exported:
    """Write `<name>.pisa`, after the documents; terms that no document has are left out.

    Raises:
        DataError: an id with a colon or a line end.
    """
    names = unambiguous_tokens(tokens)
    number_of = {line: i for i, line in enumerate((folder / "fwd.terms").read_text("utf-8").split("\n")[:-1])}
    tally = Tally()

    def lines() -> Iterable[str]:
        for query_id, vector in one_by_one(queries):
            if ":" in check_line(query_id, "a query"):
                raise DataError(f"the query id {query_id!r}: PISA's queries are id:terms, so no id has a colon")
            terms, weights = quantise(vector, factor)
            pairs = zip((names[term] for term in terms.tolist()), weights.tolist(), strict=True)
            numbers = [f"{number_of[token]} " * n for token, n in pairs if token in number_of]
            tally.count(query_id, len(numbers))
            yield f"{query_id}:{''.join(numbers).rstrip()}"

    write_lines(folder / f"{name}.pisa", lines())
    return tally.exported(folder / f"{name}.pisa")


def _sequence(file: BinaryIO, numbers: np.ndarray) -> None:
    file.write(np.array([len(numbers)], "<u4").tobytes())
    file.write(numbers.astype("<u4").tobytes())
