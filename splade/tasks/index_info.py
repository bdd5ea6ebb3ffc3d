"""Task: what an index holds, and whether it is undamaged."""

from splade.config import Experiment, require
from splade.datasets.text_collection import CONTENT_MARK
from splade.inverted_index import open_index
from splade.inverted_index.own_terms import OWN_TERMS, read_terms
from splade.reports.summaries import TaskResult


def index_info(experiment: Experiment) -> TaskResult:
    """Print what the index in config.index_dir (or index_dir=FOLDER) holds, and verify its checksum."""
    folder = experiment.index_dir or experiment.config.index_dir
    if folder is None:
        require(experiment, "config.index_dir")
    postings = open_index(str(folder))
    postings.verify()
    terms = read_terms(postings)
    found, made = postings.describe(), postings.metadata
    model = f"model {made.get('model', 'unknown')}, texts of up to {made.get('max_length', 'unknown')} tokens"
    if terms is not None:
        model = f"{len(terms)} terms of the vectors' own, fingerprint {str(made[OWN_TERMS])[:16]}; no model"
    source = str(made.get("source", "unknown")).partition(f" {CONTENT_MARK}")[0]
    changed = ", changed since by adding or deleting documents" if made.get("updated") else ""
    lines = [
        f"{found['n_docs']} documents, {found['n_empty']} of them without any term"
        + (f", in {found['n_shards']} shards" if "n_shards" in found else ""),
        f"{found['n_postings']} postings, {found['mean_terms']:.1f} per document, {found['longest_posting_list']} of "
        "the most frequent term",
        f"{found['terms_in_use']} of {found['vocab_size']} terms in use",
        f"{postings.n_bytes / 1e6:.1f} MB, {found['bytes_per_posting']:.1f} bytes per posting",
        model,
        f"collection {source}{changed}",
        "the checksum is right",
        f"  in {found['path']}",
    ]
    return TaskResult(text="\n".join(lines))
