"""Task: the expected number of multiplications per query-document pair."""

from pathlib import Path

import numpy as np

from splade.config import Experiment
from splade.config.inputs import require_all
from splade.config.processes import processes_to_start
from splade.config.record import save_record
from splade.datasets.collections import open_queries
from splade.distributed import process_rank
from splade.encoding.shared import encode_shared
from splade.evaluation.expected_flops import flops as expected_multiplications
from splade.evaluation.expected_flops import term_probabilities
from splade.reports.summaries import TaskResult
from splade.retrieval.collection_index import Index
from splade.storage.atomic import write_json
from splade.tasks.model_loading import load_model_of_index


def flops(experiment: Experiment) -> TaskResult:
    """Estimate sum over the vocabulary of P(term in query) x P(term in document) (SPLADE, SIGIR 2021, section 5).

    The first factor is measured on the queries data.flops_queries, which several processes share; the second on the
    index config.index_dir.
    """
    require_all(experiment, "flops")
    queries = open_queries(str(experiment.data.flops_queries))
    model, _ = load_model_of_index(experiment)
    postings = Index.open(str(experiment.config.index_dir), model).postings
    counts, n_queries = np.zeros(model.vocab_size, np.int64), 0
    for _, vectors in encode_shared(model.queries, queries):
        counts += np.bincount(vectors.term_ids, minlength=len(counts))
        n_queries += len(vectors)
    if process_rank() > 0:
        return TaskResult(text="")
    p_query = term_probabilities(counts, n_queries)
    value = expected_multiplications(p_query, term_probabilities(postings.posting_counts, postings.n_docs))
    out_dir = Path(str(experiment.config.out_dir))
    write_json(out_dir / "flops.json", {"flops": value})
    save_record(experiment, out_dir, "flops")
    return TaskResult(text=f"flops {value:.4f}\n  in {out_dir / 'flops.json'}")


def processes_wanted(experiment: Experiment) -> int:
    """Return how many processes share the encoding."""
    return processes_to_start(experiment, trains=False)
