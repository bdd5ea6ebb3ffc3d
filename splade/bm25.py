"""Retrieve with BM25 and evaluate, on a BEIR data set or on one's own data.

With beir.dataset: that data set, results in out_dir/bm25/beir/<dataset>. Without: data.COLLECTION_PATH is searched
for every query of data.Q_COLLECTION_PATH, runs in out_dir/bm25/<name>; where out_dir/<name> holds a run of
splade.retrieve, both are shown in one table with a significance test.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.bm25", __doc__)
