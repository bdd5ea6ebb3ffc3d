"""Compare two or more runs: metrics, significance, wins and losses, and the queries that differ most.

Example: python -m splade.compare +runs={bm25: a/run.trec, splade: b/run.json} +qrels=qrels.json
'+metrics=[nDCG@10,R@100]' config.out_dir=out. Texts are shown when data.COLLECTION_PATH and data.Q_COLLECTION_PATH
hold the documents and queries of the runs.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.compare", __doc__)
