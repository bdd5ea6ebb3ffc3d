"""Search the index in config.index_dir for one query (query="..."), or for what is typed at a prompt.

The documents are shown with the beginning of their texts when data.COLLECTION_PATH is the collection of the index.
config.top_k says how many documents are shown, 10 unless it is given.

Example: python -m splade.search config.index_dir=experiments/debug/index query="what do bees eat"
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.search", __doc__)
