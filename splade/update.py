"""Delete documents from the index in config.index_dir, then add some to it.

delete=[ID,ID,...] names documents; a file among them stands for the ids that are its lines. add=PATH is a collection of
new ones, encoded with the model that made the index. An index changed like this equals one built from the remaining
documents.

Example: python -m splade.update config.index_dir=experiments/debug/index 'delete=[d1,d2]' add=new_documents.tsv
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.update", __doc__)
