"""Task: one query, or a prompt, answered on the terminal."""

import io
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

from splade.config import Experiment, require
from splade.config.command import report
from splade.datasets.collections import open_collection
from splade.datasets.text_collection import TextCollection
from splade.errors import DataError
from splade.reports.summaries import TaskResult
from splade.retrieval.collection_index import Index
from splade.retrieval.sparse import Hit, SparseRetriever
from splade.tasks.model_loading import load_model

SHOWN = 10
_WIDTH = 110


def search(experiment: Experiment) -> TaskResult:
    """Search config.index_dir for `query`, or for what is typed."""
    require(experiment, "config.index_dir")
    run = experiment.config
    model, _ = load_model(experiment)
    retriever = SparseRetriever(
        model, Index.open(Path(str(run.index_dir)), model), run.threshold, run.search_effort, run.n_threads
    )
    texts = _texts_of(experiment, retriever)
    top_k = SHOWN if run.top_k == type(run)().top_k else run.top_k
    retriever.search("a first query", top_k)  # compiling and first allocations are in no measured query
    if experiment.query is not None:
        return TaskResult(text=_answer(retriever, texts, experiment.query, top_k))
    for query in filter(None, _typed()):
        report(_answer(retriever, texts, query, top_k))
    return TaskResult(text="")


def _typed() -> Iterator[str]:
    """Yield one query after the other, until the input ends; bytes that are no text become U+FFFD."""
    if sys.stdin is None:  # closed by whoever started the process
        return
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    while True:
        try:
            yield input("query> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return


def _answer(retriever: SparseRetriever, texts: TextCollection | None, query: str, top_k: int) -> str:
    start = time.perf_counter()
    hits = retriever.search(query, top_k)
    milliseconds = 1e3 * (time.perf_counter() - start)
    lines = [line for hit in hits for line in _lines(hit, texts)]
    return "\n".join([*lines, f"{len(hits)} documents in {milliseconds:.1f} ms"])


def _lines(hit: Hit, texts: TextCollection | None) -> list[str]:
    line = f"{hit.rank:>3}. {hit.score:8.3f}  {hit.doc_id}"
    text = None if texts is None else texts.get(hit.doc_id)
    shortened = "" if text is None else textwrap.shorten(text, _WIDTH, placeholder=" ...")
    return [line, f"     {shortened}"] if shortened else [line]


def _texts_of(experiment: Experiment, retriever: SparseRetriever) -> TextCollection | None:
    """Return the collection that the configuration names, if the documents of the index come from it."""
    if experiment.data.COLLECTION_PATH is None:
        return None
    try:
        texts = open_collection(experiment.data.COLLECTION_PATH)
        return texts if (texts.rows(retriever.known_doc_ids(())) >= 0).all() else None
    except DataError:
        return None  # searching needs no texts
