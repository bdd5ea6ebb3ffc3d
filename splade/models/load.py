"""Where a model is loaded: from `init_dict` and `config`, or from the checkpoint that training left behind."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch.nn import functional

from splade.config.identity import recorded_settings, settings_affecting
from splade.config.inputs import check_checkpoint_folder
from splade.config.schema import Affects, Experiment, ModelConfig, RunConfig
from splade.distributed import pick_device
from splade.errors import ConfigError, ModelError
from splade.models.adapters import ADAPTER_CONFIG
from splade.models.causal_lm import CausalLMEncoder, is_causal_lm
from splade.models.encoder import SparseEncoder
from splade.models.exported_backbone import check_backend
from splade.models.head.pooling import Activation, Aggregation
from splade.models.hub import model_folder
from splade.models.masked_lm import MaskedLMEncoder
from splade.models.onnx_folder import is_onnx_folder, load_onnx
from splade.models.original_checkpoint import is_original_checkpoint, load_original
from splade.models.pretrained import (
    LoadedLookup,
    LoadedModel,
    load_folder,
    load_masked_lm,
    load_query_side,
    load_side,
    read_encoder_settings,
)
from splade.models.rescaling import scale_logits
from splade.models.save import (
    DONE_FILE,
    LOOKUP_FILE,
    MODEL_FOLDER,
    QUERY_MODEL_FOLDER,
    model_damage,
    read_done,
)
from splade.models.splade import Splade
from splade.models.token_idf import read_token_weights, token_weights
from splade.models.token_lookup import ProjectedLookupEncoder, TokenLookupEncoder

Loaded = TypeVar("Loaded", bound=LoadedModel | LoadedLookup)

NO_TRANSFORMER_QUERIES = ("splade_doc", "splade_idf")

logger = logging.getLogger(__name__)


def load_for_inference(experiment: Experiment) -> Splade:
    """Load the model that indexing and retrieval use onto this process's device; on a GPU in the precision asked for.

    With `config.pretrained_no_yamlconfig=true` it is the one that `init_dict` names. Otherwise it is the best
    checkpoint in `config.checkpoint_dir`, with the settings that its `config.yaml` recorded.

    Raises:
        ConfigError: no finished checkpoint, settings other than those it was trained with, an `init_dict.precision` by
            which this processor gains nothing, or an `init_dict.backend` that is not installed.
    """
    if experiment.config.matching_type == "dense":
        raise ConfigError(
            "config.matching_type=dense: this works on sparse vectors only; for a dense model there are splade.train, "
            "index, retrieve, all, and beir_eval retriever=dense"
        )
    device, half = pick_device(), experiment.init_dict.fp16
    backend, precision = experiment.init_dict.backend, experiment.init_dict.precision
    own_way = (backend, precision) != ("torch", "fp32")
    if own_way and device.type != "cpu":
        raise ConfigError(
            f"init_dict.backend={backend} init_dict.precision={precision} is for CPUs; on a GPU use init_dict.fp16=true"
        )
    check_backend(backend, precision)
    if half and device.type != "cuda":
        logger.info("init_dict.fp16=true is for CUDA devices; on this machine vectors are computed in float32")
        half = False
    if experiment.config.pretrained_no_yamlconfig:
        model = build_splade(experiment.init_dict, experiment.config)
    elif experiment.config.checkpoint_dir is not None:
        model = load_checkpoint(Path(experiment.config.checkpoint_dir), experiment)
    else:
        raise ConfigError(
            "no value for config.checkpoint_dir: the folder of a trained model; for a pre-trained model give "
            "init_dict.model_type_or_dir=NAME config.pretrained_no_yamlconfig=true"
        )
    model.loaded_from = settings_that_load(experiment)
    for encoder in (model.document_encoder, model.query_encoder):
        if isinstance(encoder, MaskedLMEncoder):
            encoder.precision = torch.float16 if half else None
    if own_way:
        model.eval().run_on_cpu(backend, precision)
    return model.to(device).eval()


def settings_that_load(experiment: Experiment) -> dict[str, object]:
    """Return the settings with which this model can be loaded again, from whatever folder, as key to value."""
    init, run = experiment.init_dict, experiment.config
    named = {
        "init_dict.model_type_or_dir": init.model_type_or_dir,
        "init_dict.model_type_or_dir_q": init.model_type_or_dir_q,
        "init_dict.idf_path": init.idf_path,
        "config.tokenizer_type": run.tokenizer_type,
        "config.checkpoint_dir": None if run.pretrained_no_yamlconfig else run.checkpoint_dir,
    }
    places = {key: None if name is None else _from_anywhere(name) for key, name in named.items()}
    kind = settings_affecting(experiment, Affects.MODEL, names_files=False)
    encoding = settings_affecting(experiment, Affects.INDEX | Affects.SEARCH, names_files=False)
    kind |= {key: value for key, value in encoding.items() if key.startswith("init_dict.")}
    for name in ("backend", "precision"):  # another processor may be better at another one
        del kind[f"init_dict.{name}"]
    return kind | places | {"config.pretrained_no_yamlconfig": run.pretrained_no_yamlconfig}


def _from_anywhere(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def build_splade(init: ModelConfig, run: RunConfig, to_train: bool = False) -> Splade:
    """Build the model that `init_dict` and `config` describe, from pre-trained weights.

    Args:
        init: which model.
        run: what is made of it.
        to_train: it will be trained, and may get another activation than it was trained with so far.

    Raises:
        ConfigError: settings that contradict each other.
        ModelError: a model that cannot be loaded as what it should be.
    """
    check_model_settings(init, run)
    if init.model_type_or_dir is None:
        raise ConfigError("no value for init_dict.model_type_or_dir: a hub name, a folder, or pkg://package/path")
    folder = model_folder(init.model_type_or_dir)
    if is_onnx_folder(folder):
        return load_onnx(folder, init.model_type_or_dir, init, run)
    document = load_masked_lm(init.model_type_or_dir, run.tokenizer_type, init.agg)
    if init.model_type_or_dir_q is not None:
        query = load_side(init.model_type_or_dir_q, "query", run.tokenizer_type, init.agg)
    else:
        query = load_query_side(init.model_type_or_dir, document, init.agg)
    document, query = _with_prompt(document, run.prompt_d), _with_prompt(query, run.prompt_q)
    if to_train and init.activation is not None:
        document, query = _with_activation(document, init.activation), _with_activation(query, init.activation)
    if init.head_divisor is not None:
        models = [loaded.model for loaded in (document, query) if isinstance(loaded, LoadedModel)]
        for model in {id(model): model for model in models}.values():
            scale_logits(model, torch.tensor(1 / init.head_divisor))
    return assemble(document, query, init, run)


def _with_activation(loaded: Loaded, activation: Activation) -> Loaded:
    return replace(loaded, settings=replace(loaded.settings, activation=activation))


def _with_prompt(loaded: Loaded, prompt: str | None) -> Loaded:
    return loaded if prompt is None else replace(loaded, settings=replace(loaded.settings, prompt=prompt))


def load_checkpoint(folder: Path, experiment: Experiment) -> Splade:
    """Load the best checkpoint of a finished training run, of this toolkit or of the original one.

    Raises:
        ConfigError: settings other than those it was trained with.
        ModelError: training has not ended, or the model's files are not those that it wrote.
    """
    if is_original_checkpoint(folder):
        init = experiment.init_dict
        model = assemble(*load_original(folder, init, experiment.config), init, experiment.config)
        model.name = str(folder)
        return model
    _check_checkpoint(folder)
    record = read_done(folder)
    if fault := model_damage(folder, record):
        raise ModelError(
            f"config.checkpoint_dir={folder}: {fault}; give the training command again: it makes the model anew from "
            "its checkpoints"
        )
    now = settings_affecting(experiment, Affects.MODEL)
    for name, value in recorded_settings(record["settings"], Affects.MODEL).items():
        if now[name] != value:
            raise ConfigError(
                f"{folder} was trained with {name}={value}, the configuration says {now[name]}; use the configuration "
                f"saved with it: SPLADE_CONFIG_FULLPATH={folder / 'config.yaml'}"
            )
    # What training made of the weights of query tokens is in the folder.
    init = replace(experiment.init_dict, idf_path=None, idf_collection=None, idf_scale=1.0, query_weights="learned")
    said = read_encoder_settings(folder / MODEL_FOLDER)
    document = replace(load_folder(folder / MODEL_FOLDER, str(folder / MODEL_FOLDER)), settings=said["document"])
    query: LoadedModel | LoadedLookup = replace(document, settings=said["query"])
    query_folder = folder / QUERY_MODEL_FOLDER
    if any((query_folder / file).is_file() for file in ("config.json", ADAPTER_CONFIG)):
        query = replace(load_folder(query_folder, str(query_folder)), settings=said["query"])
    elif (query_folder / LOOKUP_FILE).is_file():
        weights = read_token_weights(query_folder / LOOKUP_FILE, document.tokenizer)
        query = LoadedLookup(str(query_folder), weights, document.tokenizer, said["query"], trainable=False)
    model = assemble(document, query, init, experiment.config)
    model.name = str(folder)
    return model


def assemble(document: LoadedModel, query: LoadedModel | LoadedLookup, init: ModelConfig, run: RunConfig) -> Splade:
    """Wrap loaded language models, or weights of query tokens, into the encoders of `config.matching_type`.

    Raises:
        ConfigError: settings of a query encoder that is none.
        ModelError: encoders of different vocabularies, or an activation other than the model's.
    """
    kind, lexical = run.matching_type, init.lexical_type if run.matching_type == "splade_lexical" else None
    agg: Aggregation = "sum" if init.agg == "sum" else "max"

    def transformer(loaded: LoadedModel, side: str, top_k: int | None) -> MaskedLMEncoder:
        limits = [limit for limit in (top_k, loaded.settings.top_k) if limit is not None]
        limit, own_tokens_only = min(limits, default=None), lexical in (side, "both")
        special, activation = loaded.tokenizer.all_special_ids, _activation(init, loaded)
        settings = loaded.model, agg, limit, own_tokens_only, special, activation
        if is_causal_lm(loaded.model.config.model_type):
            return CausalLMEncoder(*settings, init.attention, init.repeat_text)
        if init.attention == "causal" or init.repeat_text:
            raise ConfigError(
                f"init_dict.attention and init_dict.repeat_text are for decoder language models; '{loaded.name}' is a "
                f"{loaded.model.config.model_type}, whose tokens see the whole text"
            )
        return MaskedLMEncoder(*settings)

    document_encoder = transformer(document, "document", init.top_d)
    query_encoder: SparseEncoder
    if kind in NO_TRANSFORMER_QUERIES or isinstance(query, LoadedLookup):
        query_encoder = _lookup(document, query, init, kind, document_encoder.vocab_size)
    elif query.model is document.model and kind == "splade" and _as_documents(query, document):
        query_encoder = document_encoder
    else:
        query_encoder = transformer(query, "query", init.top_q)
    if document_encoder.vocab_size != query_encoder.vocab_size:
        raise ModelError(
            f"'{document.name}' has {document_encoder.vocab_size} terms, '{query.name}' {query_encoder.vocab_size}: "
            "queries and documents need the same vocabulary"
        )
    if document.tokenizer.get_vocab() != query.tokenizer.get_vocab():
        raise ModelError(
            f"'{document.name}' and '{query.name}' have different vocabularies: their vectors do not match"
        )
    if init.freeze_d_model:
        document_encoder.requires_grad_(False)
    tokenizers, said = (document.tokenizer, query.tokenizer), (document.settings, query.settings)
    return Splade(document_encoder, query_encoder, *tokenizers, kind, init.agg, document.name, *said)


def _lookup(
    document: LoadedModel, query: LoadedModel | LoadedLookup, init: ModelConfig, kind: str, vocab_size: int
) -> TokenLookupEncoder:
    """Make the query encoder without a language model, of `config.matching_type` or of the model's own folder."""
    weights = query.weights if isinstance(query, LoadedLookup) else None
    special = [] if kind == "splade" else document.tokenizer.all_special_ids
    if init.query_weights == "projected":
        embeddings = document.model.get_input_embeddings().get_parameter("weight")
        return ProjectedLookupEncoder(embeddings, vocab_size, special)
    if kind == "splade_doc":
        weights = None
    elif kind == "splade_idf" and (init.idf_path is not None or init.idf_collection is not None):
        weights = token_weights(init, document.tokenizer, vocab_size)
    elif kind not in ("splade", "splade_idf"):
        raise ConfigError(
            f"config.matching_type={kind}: the queries of model '{query.name}' are encoded without a language model; "
            "set config.matching_type=splade"
        )
    if weights is not None:
        if len(weights) > vocab_size:
            raise ModelError(
                f"'{query.name}' has weights of {len(weights)} tokens, '{document.name}' {vocab_size} terms"
            )
        weights = functional.pad(weights, (0, vocab_size - len(weights)))
    learned = kind == "splade_idf" and init.query_weights == "learned"
    trainable = query.trainable if isinstance(query, LoadedLookup) and kind == "splade" else learned
    return TokenLookupEncoder(vocab_size, special, weights, trainable, query.settings.top_k)


def _as_documents(query: LoadedModel, document: LoadedModel) -> bool:
    """Whether queries are encoded as documents are, once their prompt is before them."""
    return (query.settings.activation, query.settings.top_k) == (document.settings.activation, document.settings.top_k)


def _activation(init: ModelConfig, loaded: LoadedModel) -> Activation:
    """Return the activation that the configuration names, or else the model's folder."""
    named, said = init.activation, loaded.settings.activation
    if named is not None and said not in (None, named):
        raise ModelError(
            f"model '{loaded.name}' was trained with the activation '{said}': set init_dict.activation={said}, or null"
        )
    return named or said or "relu"


def check_model_settings(init: ModelConfig, run: RunConfig) -> None:
    """Raise a ConfigError for settings of one matching type that are missing, or given for another."""
    kind = run.matching_type
    if kind == "splade_topk" and init.top_d is None and init.top_q is None:
        raise ConfigError("config.matching_type=splade_topk needs init_dict.top_d, init_dict.top_q, or both")
    if kind == "splade_lexical" and init.lexical_type is None:
        raise ConfigError("config.matching_type=splade_lexical needs init_dict.lexical_type=query | document | both")
    for name, owner in (("top_d", "splade_topk"), ("top_q", "splade_topk"), ("lexical_type", "splade_lexical")):
        if getattr(init, name) is not None and kind != owner:
            raise ConfigError(f"init_dict.{name} is for config.matching_type={owner}, which is {kind} here")
    if init.model_type_or_dir_q is not None and kind in NO_TRANSFORMER_QUERIES:
        raise ConfigError(f"config.matching_type={kind} has no query model: leave init_dict.model_type_or_dir_q null")
    if init.freeze_d_model and init.model_type_or_dir_q is None and kind != "splade_idf":
        raise ConfigError("init_dict.freeze_d_model=true leaves nothing to train: give init_dict.model_type_or_dir_q")
    if init.lora.rank is not None and init.lora.save == "adapter" and init.head_divisor is not None:
        raise ConfigError(
            "init_dict.lora.save=adapter: adapters belong to the model as it was before init_dict.head_divisor; set "
            "init_dict.lora.save=merged"
        )
    _check_token_weights(init, run)


def _check_token_weights(init: ModelConfig, run: RunConfig) -> None:
    kind, regularizer = run.matching_type, run.regularizer
    entries = regularizer.items() if isinstance(regularizer, dict) else ()
    weighs_terms = any((entry.reg or name) == "IDF_FLOPS" for name, entry in entries)
    for name in ("idf_path", "idf_collection"):
        if getattr(init, name) is not None and kind != "splade_idf" and not weighs_terms:
            raise ConfigError(
                f"init_dict.{name} is for config.matching_type=splade_idf, which is {kind} here, and for the "
                "regulariser IDF_FLOPS"
            )
    if init.idf_path is not None and init.idf_collection is not None:
        raise ConfigError("init_dict.idf_path and init_dict.idf_collection both give weights of tokens: keep one")
    if weighs_terms and init.idf_path is None and init.idf_collection is None:
        raise ConfigError("the regulariser IDF_FLOPS needs init_dict.idf_collection, or init_dict.idf_path")
    if init.idf_scale != 1 and init.idf_path is None and init.idf_collection is None:
        raise ConfigError(f"init_dict.idf_scale={init.idf_scale:g} is a factor of idf_path or idf_collection: give one")
    if init.query_weights != "learned" and kind != "splade_idf":
        raise ConfigError(f"init_dict.query_weights is for config.matching_type=splade_idf, which is {kind} here")
    if init.query_weights == "projected" and not weighs_terms and (init.idf_path or init.idf_collection):
        raise ConfigError(
            "init_dict.query_weights=projected begins with weights of 1: set idf_path, idf_collection to null"
        )
    if init.query_weights == "fixed" and init.freeze_d_model:
        raise ConfigError("init_dict.freeze_d_model=true and query_weights=fixed leave nothing to train")


def _check_checkpoint(folder: Path) -> None:
    check_checkpoint_folder(folder)
    if not (folder / DONE_FILE).is_file() or not (folder / MODEL_FOLDER).is_dir():
        state = "training has not ended" if (folder / "model_ckpt").is_dir() else "it holds no trained model"
        raise ModelError(
            f"config.checkpoint_dir={folder}: {state}. Run the training command again to finish it; for a plain "
            f"model folder use init_dict.model_type_or_dir={folder} config.pretrained_no_yamlconfig=true"
        )
