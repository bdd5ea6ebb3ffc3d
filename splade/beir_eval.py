"""Index, search and evaluate the BEIR data set beir.dataset.

It is taken from the folder beir.dataset_path/<dataset> when that is there, else downloaded to it; `cqadupstack`
stands for its twelve sub-forums. With +beir.baseline=true, BM25 is evaluated beside the model and the difference
tested. In a sweep (--multirun) each model and setting gets a folder of its own in config.out_dir, what is finished
is not done again, and one table ends it.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.beir_eval", __doc__)
