"""Make a folder of a model with its card; with push.repo_id=OWNER/NAME upload it to the Hugging Face hub."""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.push", __doc__)
