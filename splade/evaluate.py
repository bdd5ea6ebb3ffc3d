"""Compare the runs in config.out_dir with the judgements data.EVAL_QREL_PATH."""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.evaluate", __doc__)
