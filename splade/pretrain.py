"""Train a language model further on the plain texts pretrain.collection: masked-language modelling + regularisers.

The model is config.checkpoint_dir/model, from which SPLADE models can be trained (init_dict.model_type_or_dir). An
interrupted run resumes from its last complete checkpoint and ends with the weights of an uninterrupted one.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.pretrain", __doc__)
