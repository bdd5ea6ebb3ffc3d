"""Search config.index_dir for every query of data.Q_COLLECTION_PATH, then evaluate.

Writes out_dir/<name>/run.json and run.trec, q_stats.json and, with judgements, perf.json.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.retrieve", __doc__)
