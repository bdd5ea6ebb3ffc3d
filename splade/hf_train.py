"""Train the model init_dict on data.TRAIN: another name of splade.train, from the published toolkit.

What was set below hf there is set in init_dict, config and data here; conf/README.md lists the names.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.train", __doc__)
