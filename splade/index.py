"""Encode the collection data.COLLECTION_PATH into an inverted index in config.index_dir.

A killed run goes on after the last part that was written; a finished one is left as it is.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.index", __doc__)
