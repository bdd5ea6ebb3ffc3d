"""Train, index, retrieve, evaluate, and report effectiveness and cost side by side.

A model used as it is (config.pretrained_no_yamlconfig=true, or config.regularizer=eval_only) is not trained.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.run_all", __doc__)
