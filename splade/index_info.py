"""Print what the index in config.index_dir (or index_dir=FOLDER) holds, and verify its checksums."""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.index_info", __doc__)
