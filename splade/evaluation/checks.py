"""What an expert looks at before believing a number: a wrong id or an empty vector must not become a silent zero.

Each check returns findings. An error means that the result would be wrong; a warning, that it looks wrong and the user
has to decide. `raise_errors` turns the first kind into an exception and hands back the second, for the summary.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from splade.datasets.qrels import Qrels
from splade.datasets.runs import Run
from splade.errors import DataError
from splade.evaluation.measures import largest_cut
from splade.evaluation.metrics import example_ids

_MANY_EMPTY = 0.01
_MANY_TIED = 0.5
# Trained SPLADE vectors hold tens to some hundreds of terms; an untrained head holds thousands.
_NOT_SPARSE = 0.1


@dataclass(frozen=True)
class Finding:
    """Something wrong (`error`) or suspicious (`warning`).

    Attributes:
        level: how bad it is.
        code: short stable name of what was found, for tests and filters.
        message: what was found, with examples, and what to do.
    """

    level: Literal["error", "warning"]
    code: str
    message: str


def raise_errors(findings: Iterable[Finding]) -> list[Finding]:
    """Return the warnings.

    Raises:
        DataError: there are errors; all of them are in the message.
    """
    findings = list(findings)
    errors = [finding.message for finding in findings if finding.level == "error"]
    if errors:
        raise DataError("\n".join(errors))
    return findings


def named(name: str, findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with the name of the data set or run before each message."""
    return [Finding(finding.level, finding.code, f"{name}: {finding.message}") for finding in findings]


def check_run(run: Run, qrels: Qrels) -> list[Finding]:
    """Find query and document ids that run and qrels do not share."""
    judged = {query_id: documents for query_id, documents in qrels.items() if documents}
    findings = _compare_ids("query", "the run", run, "the qrels", judged)
    if findings and findings[0].level == "error":
        return findings
    judged_docs = {doc_id for documents in judged.values() for doc_id in documents}
    retrieved = [doc_id for documents in run.values() for doc_id in documents]
    if retrieved and judged_docs.isdisjoint(retrieved):
        findings += _compare_ids("document", "the run", retrieved, "the qrels", judged_docs)
    elif retrieved and all(
        documents.keys().isdisjoint(run.get(query_id, ())) for query_id, documents in judged.items()
    ):
        findings.append(
            Finding(
                "warning",
                "nothing-judged",
                "no query of the run retrieves a document that was judged for it: every metric will be zero; "
                "are the qrels those of these queries, and the query ids numbered alike?",
            )
        )
    return findings


def check_qrels_against_collection(qrels: Qrels, doc_ids: Collection[str]) -> list[Finding]:
    """Find relevant documents that the collection lacks: they can never be retrieved."""
    relevant = {doc_id: None for docs in qrels.values() for doc_id, relevance in docs.items() if relevance > 0}
    lost = "they can never be found"
    return _compare_ids("relevant document", "the collection", doc_ids, "the qrels", relevant, lost)


def check_qrels_against_queries(qrels: Qrels, query_ids: Collection[str]) -> list[Finding]:
    """Find judged queries that the queries file lacks: they count as zero."""
    judged = {query_id: None for query_id, documents in qrels.items() if documents}
    return _compare_ids("judged query", "the queries file", query_ids, "the qrels", judged)


def check_collection_against_queries(doc_ids: Collection[str], query_ids: Collection[str]) -> list[Finding]:
    """Find the queries file given as the collection, or the other way round."""
    known = set(query_ids)
    if len(doc_ids) != len(known) or not all(doc_id in known for doc_id in doc_ids):
        return []
    return [
        Finding(
            "warning",
            "collection-is-queries",
            f"collection and queries hold the very same {len(known)} ids ({example_ids(known)}): "
            "is the same file given for both?",
        )
    ]


def check_vector_counts(
    n_vectors: int, n_empty: int, mean_terms: float, vocab_size: int | None, what: Literal["document", "query"]
) -> list[Finding]:
    """Find vectors that no trained sparse encoder would give: empty ones, or ones with many terms of the vocabulary.

    `vocab_size` is that of the model; None without one.
    """
    if n_empty >= n_vectors:
        message = (
            f"all {n_vectors} {what} vectors are empty: the model is not a trained sparse encoder, or the texts are "
            "empty"
        )
        return [Finding("error", f"all-{what}-vectors-empty", message)]
    findings = []
    if n_empty > _MANY_EMPTY * n_vectors:
        share = n_empty / n_vectors
        message = f"{n_empty} of {n_vectors} {what} vectors are empty ({share:.1%}): they can never match; "
        message += "empty texts, a regularisation that was too strong, or the wrong encoder"
        findings.append(Finding("warning", f"many-{what}-vectors-empty", message))
    if vocab_size is not None and mean_terms > _NOT_SPARSE * vocab_size:
        message = f"{what} vectors hold {mean_terms:.0f} terms on average, of {vocab_size}: that is not sparse; "
        message += "is the model a masked language model that was never trained for retrieval?"
        findings.append(Finding("warning", f"{what}-vectors-not-sparse", message))
    return findings


def check_scores(run: Run) -> list[Finding]:
    """Find scores that rank nothing: equal ones (as float32) leave the order to the document ids."""
    several = [np.fromiter(documents.values(), np.float32) for documents in run.values() if len(documents) > 1]
    tied = sum(bool((scores == scores[0]).all()) for scores in several)
    if not several or tied <= _MANY_TIED * len(several):
        return []
    message = (
        f"for {tied} of {len(several)} queries all retrieved documents have the same score: nothing is ranked, the "
    )
    message += "metrics follow the document ids; are the vectors binary, or the scores lost on the way?"
    return [Finding("error" if tied == len(several) else "warning", "scores-equal", message)]


def check_depth(run: Run, metrics: Sequence[str]) -> list[Finding]:
    """Find a run that does not reach down to the metrics' deepest cut."""
    cut = largest_cut(metrics)
    deepest = max((len(documents) for documents in run.values()), default=0)
    if deepest >= cut:
        return []
    message = (
        f"the run holds at most {deepest} documents per query, but the metrics look at the first {cut}: values below "
        f"that depth are too low; retrieve with top_k={cut} or more"
    )
    return [Finding("warning", "run-too-shallow", message)]


def check_results(run: Run, qrels: Qrels) -> list[Finding]:
    """Find judged queries of the run that retrieved nothing."""
    judged = [query_id for query_id, documents in qrels.items() if documents]
    empty = [query_id for query_id in judged if query_id in run and not run[query_id]]
    if not empty:
        return []
    message = f"{len(empty)} of {len(judged)} judged queries retrieve nothing ({example_ids(empty)}) and count as "
    return [Finding("warning", "queries-without-result", message + "zero")]


def warning_messages(findings: Iterable[Finding]) -> list[str]:
    """Return the messages, as they are kept in files of figures."""
    return [finding.message for finding in findings]


def _compare_ids(
    what: str,
    holder: str,
    held: Collection[str] | Iterable[str],
    asker: str,
    asked: Collection[str],
    consequence: str = "they count as zero",
) -> list[Finding]:
    """Compare the ids that should be there (`asked`) with those that are (`held`)."""
    code = what.replace(" ", "-")
    known = held if isinstance(held, set | frozenset | dict) else set(held)
    missing = [one for one in asked if one not in known]
    if not missing:
        return []
    sides = f"{asker} have {example_ids(missing)}, {holder} has {example_ids(known)}"
    alike = _equal_but_for_whitespace(missing, known)
    if alike is not None:
        message = f"{what} ids differ by whitespace: {asker} have {alike[0]!r}, {holder} has {alike[1]!r}; remove it"
        return [Finding("error", f"{code}-ids-with-whitespace", message)]
    if len(missing) == len(asked):
        message = f"not one {what} id of {asker} occurs in {holder}: {sides}. Do they belong to the same data set?"
        return [Finding("error", f"no-{code}-shared", message)]
    message = f"{len(missing)} of {len(asked)} {what} ids of {asker} are not in {holder} ({example_ids(missing)}): "
    return [Finding("warning", f"{code}-missing", message + consequence)]


def _equal_but_for_whitespace(missing: Collection[str], known: Collection[str]) -> tuple[str, str] | None:
    """Return a missing id and a known one that are the same but for whitespace around them."""
    stripped = {one.strip(): one for one in known if one != one.strip()}
    for one in missing:
        if one in stripped:
            return one, stripped[one]
        if one != one.strip() and one.strip() in known:
            return one, one.strip()
    return None
