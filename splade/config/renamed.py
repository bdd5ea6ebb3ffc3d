"""Names that people have in scripts and configurations, and what each is here.

The toolkit published with the SPLADE papers trained some models with `hf_train` and keys below `hf`; earlier versions
of this one had other groups and keys.
"""

RENAMED_GROUPS = {
    "train/config/toy": "splade_toy",
    "train/data/msmarco_triplets": "msmarco",
    "train/data/msmarco_bm25_triplets": "msmarco",
    "train/data/vienna_triplets": "distil_from_bm25",
    "train/data/distil_mse": "distil_from_bm25",
    "train/data/splade_triplets": "distil_from_self",
    "train/data/hard_negatives": "distil_from_ensemble",
    "train/data/msmarco_hard_negatives": "distil_from_ensemble",
    "train/data/msmarco_ensemble_negatives": "distil_from_ensemble, with data.TRAIN.DATASET_PATH=FILE",
    "train/model/distilbert": "splade",
    "train/model/cocondenser": "splade_cocondenser",
    "train/model/efficient_v": "separate_distilbert_mlmflops",
    "train/model/efficient_bt_vi": "separate_mixed_mlmflops",
}
"""Group and option of earlier versions, or folder of the published archive, to the option's name now."""

RENAMED_KEYS = {
    "hf.training.learning_rate": "config.lr",
    "hf.training.weight_decay": "config.weight_decay",
    "hf.training.num_train_epochs": "config.nb_epochs",
    "hf.training.max_steps": "config.nb_iterations",
    "hf.training.warmup_ratio": "config.warmup_ratio",
    "hf.training.warmup_steps": "config.warmup_steps",
    "hf.training.per_device_train_batch_size": "config.per_device_train_batch_size",
    "hf.training.per_device_eval_batch_size": "config.eval_batch_size",
    "hf.training.gradient_accumulation_steps": "config.gradient_accumulation_steps",
    "hf.training.gradient_checkpointing": "config.gradient_checkpointing",
    "hf.training.max_grad_norm": "config.max_grad_norm",
    "hf.training.fp16": "config.fp16",
    "hf.training.bf16": "config.bf16",
    "hf.training.seed": "config.seed",
    "hf.training.output_dir": "config.checkpoint_dir",
    "hf.training.overwrite_output_dir": "config.overwrite",
    "hf.training.save_steps": "config.record_frequency",
    "hf.training.eval_steps": "config.record_frequency",
    "hf.training.logging_steps": "config.train_monitoring_freq",
    "hf.training.metric_for_best_model": "config.monitoring_ckpt",
    "hf.training.training_loss": "config.loss",
    "hf.training.l0q": "config.regularizer.L1.lambda_q",
    "hf.training.l0d": "config.regularizer.FLOPS.lambda_d",
    "hf.training.T_q": "config.regularizer.L1.T",
    "hf.training.T_d": "config.regularizer.FLOPS.T",
    "hf.training.mse_margin": "config.loss",
    "hf.training.lexical_type": "init_dict.lexical_type",
    "hf.training.top_q": "init_dict.top_q",
    "hf.training.top_d": "init_dict.top_d",
    "hf.data.training_data_type": "data.type",
    "hf.data.training_data_path": "data.TRAIN.DATASET_PATH",
    "hf.data.document_dir": "data.TRAIN.D_COLLECTION_PATH",
    "hf.data.query_dir": "data.TRAIN.Q_COLLECTION_PATH",
    "hf.data.qrels_path": "data.TRAIN.QREL_PATH",
    "hf.data.distillation": "config.loss",
    "hf.data.n_negatives": "config.n_negatives",
    "hf.data.prompt_q": "config.prompt_q",
    "hf.data.prompt_d": "config.prompt_d",
    "hf.model.model_name_or_path": "init_dict.model_type_or_dir",
    "hf.model.model_q": "init_dict.model_type_or_dir_q",
    "hf.model.shared_weights": "init_dict.model_type_or_dir_q (null: shared)",
    "hf.model.splade_doc": "config.matching_type=splade_doc",
    "hf.model.dense": "config.matching_type=dense",
    "hf.model.dense_pooling": "dense.pooling",
    "hf.model.max_length": "config.max_length",
    "hf.model.adapter_config": "init_dict.lora.rank",
}
"""Keys of the published toolkit that have another name here."""

REMOVED_KEYS = {
    "init_dict.torch_compile": "compiling gained less than a tenth for one query and nothing for many",
    "beir.keep_vectors": "queries are encoded again for other search settings",
}
"""Keys of earlier versions: configurations saved with them stay valid as long as they did not use them."""


def new_name(key: str) -> str:
    """Return "; it is config.lr here" for a key that has another name here, else an empty text.

    Example:
        >>> new_name("hf.training.learning_rate"), new_name("config.lr")
        ('; it is config.lr here', '')
    """
    if key in RENAMED_KEYS:
        return f"; it is {RENAMED_KEYS[key]} here"
    if key.split(".")[0] != "hf":
        return ""
    leaves = {old.rpartition(".")[2]: new for old, new in RENAMED_KEYS.items()}
    if (leaf := key.rpartition(".")[2]) in leaves:
        return f"; it is {leaves[leaf]} here"
    return "; what was set below hf is set in init_dict, config and data here: conf/README.md lists the names"


def new_option(group: str, option: str) -> str:
    """Return "; it is called x now" for an option of a group that was renamed, else an empty text.

    Example:
        >>> new_option("train/data", "vienna_triplets")
        '; it is called distil_from_bm25 now'
    """
    now = RENAMED_GROUPS.get(f"{group}/{option}")
    return "" if now is None else f"; it is called {now} now"
