"""Drop the postings of an index that matter least: one setting, or all of a published study side by side."""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.prune", __doc__)
