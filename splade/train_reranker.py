"""Train a reranker: a cross-encoder of any transformers model, rankT5 or monoT5; the data are those of splade.train."""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.train_reranker", __doc__)
