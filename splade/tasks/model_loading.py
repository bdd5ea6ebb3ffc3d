"""Loading the model of a task, after a look at whether the names given for it make sense."""

import logging
import re
from pathlib import Path

from omegaconf import OmegaConf

from splade.config import Experiment, require
from splade.config.files import read_yaml
from splade.config.record import CONFIG_FILE
from splade.encoding.lengths import settle_max_length
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError, IndexFileError, ModelError
from splade.evaluation.checks import Finding
from splade.inverted_index import open_index
from splade.inverted_index.own_terms import has_own_terms, read_terms
from splade.models.load import load_for_inference
from splade.models.save import MODEL_FOLDER
from splade.retrieval.collection_index import check_has_a_model
from splade.retrieval.origin import read_origin

DEFAULT_MODEL = "pkg://cognition/model"
logger = logging.getLogger(__name__)

_QUERY_NAME = re.compile(r"([-_.](query|queries|q)|^query[-_]encoder)$", re.IGNORECASE)
_DOCUMENT_NAME = re.compile(r"([-_.](doc|docs|document|documents|d)|^doc(ument)?[-_]encoder)$", re.IGNORECASE)


def load_model(experiment: Experiment, length_is_known: bool = False) -> tuple[SparseModel, list[Finding]]:
    """Load the model that encodes documents and queries; return it with what looks wrong about it.

    Args:
        experiment: the settings.
        length_is_known: `config.max_length` is that of an index, and needs no remark.

    Raises:
        ConfigError: `init_dict` names another model than the checkpoint was trained from, or query and document
            encoder are swapped by their names.
        ModelError: it cannot be loaded, or has no positions for `config.max_length` tokens.
    """
    name_default_model(experiment)
    findings = check_named_models(experiment)
    network = load_for_inference(experiment)
    if not length_is_known:
        experiment.config.max_length = settle_max_length(experiment.config.max_length, network)
    model = SparseModel(network, experiment.config.max_length, experiment.config.index_retrieve_batch_size)
    return model, findings + model.findings


def load_model_of_index(experiment: Experiment) -> tuple[SparseModel, list[Finding]]:
    """Load the model that is named or, where none is, the one that made the index in `config.index_dir`.

    Raises:
        ConfigError: the index does not say which one it was.
        ModelError: it is not where it was.
    """
    init, run = experiment.init_dict, experiment.config
    if run.pretrained_no_yamlconfig or run.checkpoint_dir is not None or init.model_type_or_dir is not None:
        return load_model(experiment)
    place = Path(str(run.index_dir))
    origin = read_origin(place.parent if place.is_file() else place)
    how = "init_dict.model_type_or_dir=NAME, or config.checkpoint_dir=FOLDER for one that was trained here"
    if origin is None:
        check_has_a_model(open_index(str(run.index_dir)))
        raise ConfigError(f"config.index_dir={run.index_dir} does not say which model made it; give {how}")
    made = origin.experiment
    for full in (*origin.model, "config.max_length"):
        section, _, name = full.partition(".")
        setattr(getattr(experiment, section), name, getattr(getattr(made, section), name))
    try:
        return load_model(experiment, length_is_known=True)
    except ModelError as error:
        raise ModelError(
            f"{error}\n{run.index_dir} was made with this model; if it is elsewhere now, give {how}"
        ) from error


def own_terms(experiment: Experiment) -> list[str] | None:
    """Return the terms of the index in `config.index_dir`, where its vectors have their own; None: a model's.

    Raises:
        ConfigError: they are its own, and a model is named.
        IndexFileError: they are missing or damaged.
    """
    init, run = experiment.init_dict, experiment.config
    try:
        postings = open_index(str(run.index_dir))
    except IndexFileError:
        return None  # who opens the index says what is wrong with it
    named = run.checkpoint_dir or init.model_type_or_dir
    if has_own_terms(postings) and named is not None:
        raise ConfigError(
            f"config.index_dir={run.index_dir} holds vectors with terms of their own, for which there is no model; "
            f"leave '{named}' out"
        )
    return read_terms(postings)


def trained_or_named(experiment: Experiment) -> str:
    """Return config.checkpoint_dir/model, or with config.pretrained_no_yamlconfig the model that `init_dict` names.

    Raises:
        ConfigError: none is named.
    """
    if experiment.config.pretrained_no_yamlconfig:
        require(experiment, "init_dict.model_type_or_dir")
        return str(experiment.init_dict.model_type_or_dir)
    require(experiment, "config.checkpoint_dir")
    return str(Path(str(experiment.config.checkpoint_dir)) / MODEL_FOLDER)


def name_default_model(experiment: Experiment) -> None:
    """Settle which model is meant where no checkpoint is named: the one in `init_dict`, by default SPLADE-tiny."""
    init, run = experiment.init_dict, experiment.config
    if run.pretrained_no_yamlconfig or run.checkpoint_dir is not None:
        return
    if init.model_type_or_dir is None:
        init.model_type_or_dir = DEFAULT_MODEL
        logger.info("no model is named: %s is used, as it is", DEFAULT_MODEL)
    run.pretrained_no_yamlconfig = True


def check_named_models(experiment: Experiment) -> list[Finding]:
    """Look at which models are named, before any is loaded."""
    init = experiment.init_dict
    if experiment.config.pretrained_no_yamlconfig:
        return _check_encoder_names(init.model_type_or_dir, init.model_type_or_dir_q)
    _check_checkpoint_is_meant(experiment)
    return []


def _check_checkpoint_is_meant(experiment: Experiment) -> None:
    """Refuse a model in `init_dict` that the checkpoint was not trained from: it would be ignored without a word."""
    if experiment.config.checkpoint_dir is None or experiment.init_dict.model_type_or_dir is None:
        return
    saved = Path(experiment.config.checkpoint_dir) / CONFIG_FILE
    if not saved.is_file():
        return
    trained_from = OmegaConf.select(read_yaml(saved), "init_dict.model_type_or_dir")
    given = experiment.init_dict.model_type_or_dir
    if trained_from is not None and trained_from != given:
        raise ConfigError(
            f"init_dict.model_type_or_dir={given}, but config.checkpoint_dir={experiment.config.checkpoint_dir} holds "
            f"a model trained from {trained_from}. To use {given} as it is, set config.pretrained_no_yamlconfig=true; "
            f"to use the trained model, take its configuration: SPLADE_CONFIG_FULLPATH={saved}"
        )


def _check_encoder_names(document: str | None, query: str | None) -> list[Finding]:
    """Go by the names that published pairs and our own checkpoints carry: `...-doc` and `...-query`, `model_q`."""
    document_is_query = document is not None and _QUERY_NAME.search(_last_part(document)) is not None
    query_is_document = query is not None and _DOCUMENT_NAME.search(_last_part(query)) is not None
    trained_pair = document is not None and query is not None and _last_part(document) == "model_q"
    if (document_is_query and query_is_document) or (trained_pair and _last_part(str(query)) == "model"):
        raise ConfigError(
            f"init_dict.model_type_or_dir={document} and init_dict.model_type_or_dir_q={query}: the first one encodes "
            "documents, the second one queries; these look swapped"
        )
    if document_is_query and query is None:
        message = f"init_dict.model_type_or_dir={document} looks like the query encoder of a pair, and encodes "
        message += "documents here; give the document encoder, and this one as init_dict.model_type_or_dir_q"
        return [Finding("warning", "query-encoder-for-documents", message)]
    if query_is_document:
        message = f"init_dict.model_type_or_dir_q={query} looks like a document encoder, and encodes queries here"
        return [Finding("warning", "document-encoder-for-queries", message)]
    return []


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]
