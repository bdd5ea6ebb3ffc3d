"""Encode a collection into files of vectors, without an index: config.out_dir/vectors, target=parquet | npz | jsonl."""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.encode", __doc__)
