"""Task: the expected number of multiplications per query-document pair."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.storage.atomic import write_json


@dataclass(frozen=True)
class FlopsResult:
    """FLOPS of an index and a set of queries, as defined in the SPLADE papers (SIGIR 2021, section 5)."""

    flops: float
    path: Path

    def summary(self) -> str:
        """Return the number and where it is."""
        return f"flops {self.flops:.4f}\n  in {self.path}"


def flops(experiment: Experiment) -> FlopsResult:
    """Estimate sum over the vocabulary of P(term in query) x P(term in document).

    The first factor is measured on the queries data.flops_queries, the second on the index config.index_dir.
    """
    require(experiment, "config.index_dir", "config.out_dir", "data.flops_queries")
    from splade.datasets.collections import open_queries
    from splade.encoding import encode_texts
    from splade.evaluation.expected_flops import flops as expected_multiplications
    from splade.evaluation.expected_flops import term_probabilities
    from splade.models.load import load_for_inference
    from splade.pipeline import open_index_of
    from splade.pipeline.checks import check_max_length, check_settings

    run = experiment.config
    check_settings(experiment)
    queries = open_queries(str(experiment.data.flops_queries))
    model = load_for_inference(experiment)
    check_max_length(model, run.max_length)
    index = open_index_of(model, Path(str(run.index_dir)))
    counts, n_queries = np.zeros(model.vocab_size, dtype=np.int64), 0
    for vectors in encode_texts(
        model.query_encoder,
        model.query_tokenizer,
        (text for _, text in queries),
        run.max_length,
        run.index_retrieve_batch_size,
    ):
        counts += np.bincount(vectors.term_ids, minlength=len(counts))
        n_queries += len(vectors)
    value = expected_multiplications(
        term_probabilities(counts, n_queries), term_probabilities(index.posting_counts, index.n_docs)
    )
    path = Path(str(run.out_dir)) / "flops.json"
    write_json(path, {"flops": value})
    save_record(experiment, Path(str(run.out_dir)), "flops")
    return FlopsResult(value, path)
