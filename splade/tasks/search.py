"""Task: one query, or a prompt, answered on the terminal."""

import io
import os
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from splade.config import Experiment
from splade.config.command import report
from splade.config.inputs import require_all
from splade.errors import printable
from splade.inspection.matching import mark_words, matching_tokens
from splade.reports.summaries import TaskResult
from splade.retrieval.collection_index import Index
from splade.retrieval.hits import Hit
from splade.retrieval.origin import Texts
from splade.retrieval.sparse import SparseRetriever
from splade.storage.cache import user_cache
from splade.tasks.document_texts import texts_of_index
from splade.tasks.model_loading import load_model_of_index

SHOWN = 10
STANDARD_INPUT = "-"
_WIDTH, _CHARACTERS = 110, 220
_BOLD, _PLAIN, _STAR = "\x1b[1m", "\x1b[0m", "*"
_HISTORY = "search_history"


def search(experiment: Experiment) -> TaskResult:
    """Search config.index_dir for `query`, for the lines of standard input (`-`), or for what is typed at a prompt."""
    require_all(experiment, "search")
    run, query = experiment.config, experiment.query
    model, _ = load_model_of_index(experiment)
    retriever = SparseRetriever.configured(model, Index.open(Path(str(run.index_dir)), model), run)
    texts = texts_of_index(experiment, retriever)
    top_k = SHOWN if run.top_k == type(run)().top_k else run.top_k
    retriever.search("a first query", top_k)  # compiling and first allocations are in no measured query
    if query is not None and query != STANDARD_INPUT:
        report(_answer(retriever, texts, query, top_k), is_printable=True)
        return TaskResult(text="")
    prompting = query is None and sys.stdin is not None and sys.stdin.isatty()
    with _history() if prompting else nullcontext():
        for line in filter(None, _typed()):
            heading = "" if prompting else f"{printable(line)}\n"
            report(heading + _answer(retriever, texts, line, top_k), is_printable=True)
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


@contextmanager
def _history() -> Iterator[None]:
    """Let the prompt remember what was typed, now and at other times: the arrow keys bring it back."""
    try:
        import readline
    except ImportError:  # not on every system
        yield
        return
    file = user_cache() / _HISTORY
    with suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)


def _answer(retriever: SparseRetriever, texts: Texts | None, query: str, top_k: int) -> str:
    start = time.perf_counter()
    hits = retriever.search(query, top_k)
    milliseconds = 1e3 * (time.perf_counter() - start)
    lines = [line for hit in hits for line in _lines(hit, texts, retriever)]
    count = f"{len(hits)} document{'' if len(hits) == 1 else 's'} in {milliseconds:.1f} ms"
    return "\n".join([*lines, count, ""])


def _lines(hit: Hit, texts: Texts | None, retriever: SparseRetriever) -> list[str]:
    line = f"{hit.rank:>3}. {hit.score:8.3f}  {printable(hit.doc_id)}"
    text = None if texts is None else texts.get(hit.doc_id)
    beginning = "" if text is None else textwrap.shorten(printable(text), _CHARACTERS, placeholder=" ...")
    shown = [mark for part in textwrap.wrap(beginning, _WIDTH) for mark in [_marked(part, hit, retriever)]]
    return [line, *(f"     {part}" for part in shown)]


def _marked(text: str, hit: Hit, retriever: SparseRetriever) -> str:
    """Mark the words that match: bold on a terminal, between stars elsewhere."""
    terminal = sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    before, after = (_BOLD, _PLAIN) if terminal else (_STAR, _STAR)
    return mark_words(text, matching_tokens(hit.explain()), retriever.model.network.tokenizer, before, after)
