"""Re-rank runs with a cross-encoder, monoT5, rankT5, duoT5 or pairwise prompting.

The best config.top_k documents of each run of data.path_run get the scores of a reranker, a run in
config.out_dir/<data.dataset_name>/<data.run_name>/<config.top_k>/run.json, which is also a file of teacher scores.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.rerank", __doc__)
