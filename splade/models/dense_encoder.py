"""A transformers encoder as a dense encoder: one vector per text, from its first token or the mean of all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from splade.config.schema import LARGEST_INT
from splade.errors import DataError, ModelError, shown
from splade.models.hub import model_folder
from splade.models.pretrained import load_tokenizer
from splade.models.transformer import load_transformer
from splade.storage.atomic import JsonObject, read_json, read_json_object, write_json

Pooling = Literal["cls", "mean"]
POOLINGS: tuple[Pooling, ...] = ("cls", "mean")
_MODE_NAMES = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}
_OLD_NAMES: dict[str, Pooling] = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


class DenseEncoder(nn.Module):
    """Encodes token ids into one vector per text.

    Args:
        model: a transformers model that returns hidden states.
        pooling: `cls`, the state of the first token; `mean`, that of all tokens.
        normalise: divide vectors by their length, so that dot products are cosines.

    Attributes:
        vocab_size: number of components of a vector.
        half_precision: let `encode` run under fp16 autocast; for CUDA devices.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> size = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        >>> encoder = DenseEncoder(BertModel(BertConfig(vocab_size=50, **size)), "mean", normalise=True)
        >>> vectors = encoder.encode(torch.tensor([[2, 7, 3], [2, 3, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]]))
        >>> vectors.shape, np.linalg.norm(vectors, axis=1).round(3).tolist()
        ((2, 8), [1.0, 1.0])
    """

    def __init__(self, model: PreTrainedModel, pooling: Pooling = "cls", normalise: bool = False):
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.normalise = normalise
        self.vocab_size = int(model.config.hidden_size)
        self.half_precision = False

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (batch, dimensions) float32 vectors of (batch, length) token ids, for training."""
        states = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).last_hidden_state
        states = states.float()
        if self.pooling == "cls":
            vectors = states[:, 0]
        else:
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            vectors = (states * mask).sum(1) / mask.sum(1).clamp_min(1e-9)
        return functional.normalize(vectors, dim=1) if self.normalise else vectors

    @torch.inference_mode()
    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> np.ndarray:
        """Return the same as an array, (batch, dimensions) float32, without dropout.

        Raises:
            ModelError: a component is not a finite number.
        """
        device, training = next(self.model.parameters()).device, self.training
        self.eval()
        with torch.autocast(device.type, dtype=torch.float16, enabled=self.half_precision):
            vectors = self(input_ids.to(device), attention_mask.to(device)).cpu().numpy()
        self.train(training)
        if not np.isfinite(vectors).all():
            raise ModelError("the model gave vectors that are not finite numbers; it has diverged in training")
        return vectors

    def gather(self, parts: Sequence[np.ndarray], order: np.ndarray) -> np.ndarray:
        """Return the rows of several batches in an order."""
        return np.concatenate(parts)[order]


class DenseBiEncoder(nn.Module):
    """One dense encoder for queries and documents, as it is trained. The score is the dot product.

    `prompts` stand before texts of the sides `query` and `document`; `name` is what the user called the model.
    """

    def __init__(
        self, encoder: DenseEncoder, tokenizer: PreTrainedTokenizerBase, prompts: dict[str, str], name: str = ""
    ):
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.name = name

    def forward(self, queries: Mapping[str, Tensor], documents: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Encode a training batch: (queries, dimensions) and (documents, dimensions) float32 vectors."""
        return self.encoder(**queries), self.encoder(**documents)


@dataclass(frozen=True)
class DenseSettings:
    """What a dense model's folder says of its vectors; None where it says nothing.

    Attributes:
        pooling: over tokens.
        normalise: whether vectors have length 1.
        max_length: tokens of a text beyond this are cut off.
        prompts: `query` and `document` to what stands before such a text.
    """

    pooling: Pooling | None = None
    normalise: bool | None = None
    max_length: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedDense:
    """A dense model with its tokenizer.

    Attributes:
        name: what the user gave.
        encoder: in float32, in evaluation mode.
        tokenizer: the tokenizer that fits it.
        settings: complete but for `max_length`.
    """

    name: str
    encoder: DenseEncoder
    tokenizer: PreTrainedTokenizerBase
    settings: DenseSettings


def load_dense(name: str, pooling: Pooling | None = None, normalise: bool | None = None) -> LoadedDense:
    """Load a dense encoder.

    Args:
        name: hub name, folder (of sentence-transformers or any encoder of transformers), or `pkg://package/path`.
        pooling: None: what the folder says, else `cls`.
        normalise: None: what the folder says, else no.

    Raises:
        ModelError: no such model, weights missing, or modules of sentence-transformers besides a transformer with
            pooling and normalisation.
    """
    folder = model_folder(name)
    said = read_dense_settings(folder, name)
    own: Pooling = pooling or said.pooling or "cls"
    unit = bool(said.normalise) if normalise is None else normalise
    model = load_transformer(AutoModel, folder, name, "an encoder of texts")
    if getattr(model, "pooler", None) is not None:
        model.register_module("pooler", None)  # no vector depends on it, and it may be random
    encoder = DenseEncoder(model, own, unit).eval()
    tokenizer = load_tokenizer(folder, name)
    embeddings = model.get_input_embeddings()
    if isinstance(embeddings, nn.Embedding) and max(tokenizer.get_vocab().values()) >= embeddings.num_embeddings:
        raise ModelError(f"model '{name}': its tokenizer gives ids that it does not know: it belongs to another model")
    length = said.max_length
    if length is None and (folder / "modules.json").is_file():  # as sentence-transformers then does
        positions = getattr(model.config, "max_position_embeddings", None) or LARGEST_INT
        length = min(int(tokenizer.model_max_length), int(positions), LARGEST_INT)
    return LoadedDense(name, encoder, tokenizer, replace(said, pooling=own, normalise=unit, max_length=length))


def read_dense_settings(folder: Path, name: str) -> DenseSettings:
    """Return what a folder of sentence-transformers says; nothing for one of another kind.

    Raises:
        ModelError: a module that is not followed here, or files that are not what sentence-transformers writes.
    """
    if not (folder / "modules.json").is_file():
        return DenseSettings()
    settings = DenseSettings(normalise=False)
    try:
        for module in read_json(folder / "modules.json"):
            kind, part = str(module["type"]).rpartition(".")[2], str(module["path"])
            if kind == "Pooling":
                settings = replace(settings, pooling=_pooling(read_json_object(folder / part / "config.json"), name))
            elif kind == "Normalize":
                settings = replace(settings, normalise=True)
            elif kind != "Transformer" or part:
                raise ModelError(
                    f"model '{name}': its module {kind} is not one of a dense model here (a Transformer in the folder "
                    "itself, Pooling, Normalize)"
                )
        length = _optional(folder / "sentence_bert_config.json").get("max_seq_length")
        said = _optional(folder / "config_sentence_transformers.json")
        if said.get("similarity_fn_name") == "cosine":  # scores are dot products here
            settings = replace(settings, normalise=True)
        prompts = said.get("prompts") or {}
        own = {side: prompts[side] for side in ("query", "document") if prompts.get(side)}
        if not all(isinstance(prompt, str) for prompt in own.values()):
            raise TypeError("prompts must be strings")
        if length is not None and (type(length) is not int or not 0 < length <= LARGEST_INT):
            raise ValueError(f"max_seq_length is {shown(length)}")
        return replace(settings, max_length=length, prompts=own)
    except (DataError, TypeError, KeyError, AttributeError, ValueError, OSError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"model '{name}': {folder}: not what sentence-transformers writes ({error})") from error


def write_dense_settings(folder: Path, encoder: DenseEncoder, max_length: int, prompts: Mapping[str, str]) -> None:
    """Add the files from which sentence-transformers builds a SentenceTransformer, and `load_dense` the same."""
    package = "sentence_transformers.models"
    modules = [("", f"{package}.Transformer"), ("1_Pooling", f"{package}.Pooling")]
    if encoder.normalise:
        modules.append(("2_Normalize", f"{package}.Normalize"))
        (folder / "2_Normalize").mkdir()
    entries = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)]
    write_json(folder / "modules.json", entries)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    mode = {name: name == _MODE_NAMES[encoder.pooling] for name in _ALL_MODES}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": encoder.vocab_size, **mode})
    said = {"prompts": dict(prompts), "similarity_fn_name": "dot"}
    write_json(folder / "config_sentence_transformers.json", said)


def _optional(path: Path) -> JsonObject:
    return read_json_object(path) if path.is_file() else {}


def _pooling(config: JsonObject, name: str) -> Pooling:
    if config.get("include_prompt") is False:
        raise ModelError(f"model '{name}': pooling without the tokens of the prompt (include_prompt) is not followed")
    said = config.get("pooling_mode")
    modes = [said] if said is not None else [mode for mode, on in config.items() if mode in _ALL_MODES and on]
    known = [_OLD_NAMES.get(str(mode), mode) for mode in modes]
    if len(known) != 1 or known[0] not in POOLINGS:
        raise ModelError(f"model '{name}': pooling {', '.join(map(str, modes))}; allowed are {', '.join(POOLINGS)}")
    return "cls" if known[0] == "cls" else "mean"


_ALL_MODES = tuple(
    f"pooling_mode_{mode}"
    for mode in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
)
