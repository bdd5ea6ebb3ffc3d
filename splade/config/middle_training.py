"""Keys of middle-training."""

from dataclasses import dataclass

from splade.config.declare import NOTHING, TRAIN, files_key, key


@dataclass
class PretrainConfig:
    """`pretrain`: masked-language modelling on a collection of plain texts."""

    collection: str | None = files_key("texts to learn from, in the format of a collection", affects=TRAIN)
    masked_share: float = key("share of the tokens that are to be guessed", 0.15, affects=TRAIN, above=0, below=1)
    span_weight: float = key(
        "weight of the contrast between two spans of each text and those of other texts; 0: whole texts, no contrast",
        0.0,
        affects=TRAIN,
        minimum=0,
    )
    vocab_size: int | None = key(
        "start from random weights, with a tokenizer of at most so many tokens learned from the collection; "
        "null: from init_dict.model_type_or_dir",
        affects=TRAIN,
        minimum=30,
    )
    n_layers: int = key("layers of a model that starts from random weights", 2, affects=TRAIN, minimum=1)
    hidden_size: int = key("width of such a model", 128, affects=TRAIN, minimum=2)
    model_dir: str | None = key(
        "folder that the model is copied to, such as models/mlm_flops/DistilBERT; null: only in checkpoint_dir/model",
        affects=NOTHING,
    )
