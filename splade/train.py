"""Train the model init_dict on data.TRAIN; the best checkpoint becomes config.checkpoint_dir/model.

An interrupted run resumes from its last complete checkpoint and ends with the weights of an uninterrupted one.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.train", __doc__)
