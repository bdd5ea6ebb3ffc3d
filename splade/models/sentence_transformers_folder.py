"""What a folder of sentence-transformers says of a SparseEncoder, read without that library.

A SparseEncoder is a list of modules (`modules.json`), the first of which may be a Router with other modules for queries
than for documents. A side can be read here if its modules are a masked-language model with SpladePooling, or
SparseStaticEmbedding alone, a weight per token. Everything that would change a vector is read or refused by name.
"""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from splade.errors import DataError, ModelError
from splade.models.encoder import EncoderSettings
from splade.models.head.pooling import ACTIVATIONS, AGGREGATIONS, Activation, Aggregation
from splade.storage.atomic import JsonObject, read_json, read_json_object

MODULES_FILE, ROUTER_FILE, MODEL_FILE = "modules.json", "router_config.json", "config_sentence_transformers.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
# The names of earlier releases.
_TRANSFORMER_FILES = (
    TRANSFORMER_FILE,
    *(f"sentence_{kind}_config.json" for kind in "roberta distilbert camembert albert xlm-roberta xlnet".split()),
)
_LANGUAGE_MODELS = ("MLMTransformer", "Transformer")
_LOGITS = {"method": "forward", "method_output_name": "logits"}
# Keys of the file of a transformer that change vectors in ways that are not followed here, unless null or empty.
_REFUSED = (
    *("do_lower_case", "processing_kwargs", "query_expansion", "tokenizer_name_or_path"),
    *("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs"),
)
_READ = ("max_seq_length", "query_length", "document_length", "transformer_task", "modality_config")
_WITHOUT_EFFECT = ("module_output_name", "unpad_inputs")

SideName = Literal["query", "document"]


@dataclass(frozen=True)
class Side:
    """How one side of a SparseEncoder, queries or documents, becomes vectors.

    Attributes:
        folder: where the masked-language model, or the weights per token, and the tokenizer are.
        settings: what is said of activation, prompt, lengths and number of terms.
        agg: pooling over tokens; None for weights per token.
        trainable: whether training changes the weights per token.
    """

    folder: Path
    settings: EncoderSettings
    agg: Aggregation | None
    trainable: bool = True

    @property
    def is_lookup(self) -> bool:
        """Whether it is a weight per token, without a language model."""
        return self.agg is None


@dataclass(frozen=True)
class _Module:
    kind: str
    folder: Path


def read_side(folder: Path, name: str, side: SideName) -> Side | None:
    """Return how a sentence-transformers folder encodes queries or documents; None for a folder of another kind.

    Raises:
        ModelError: it does not encode by dot products of SPLADE vectors, has settings that cannot be followed, or files
            that are not what sentence-transformers writes.
    """
    if not (folder / MODULES_FILE).is_file():
        return None
    modules = _modules(folder, name, side)
    if not modules:
        return None
    model = read_settings(folder / MODEL_FILE, name, optional=True)
    _check_model(folder / MODEL_FILE, model, name)
    kinds = [module.kind for module in modules]
    prompt, top_k = _prompt_and_limit(folder / MODEL_FILE, model, name, side)
    if kinds == ["SparseStaticEmbedding"]:
        trainable = _trainable(modules[0], name)
        settings = EncoderSettings(None, top_k, prompt, special_tokens=False)
        return Side(modules[0].folder, settings, None, trainable)
    if len(kinds) == 2 and kinds[0] in _LANGUAGE_MODELS and kinds[1] == "SpladePooling":
        agg, activation = _pooling(modules[1].folder, name)
        length = _length(modules[0], name, side)
        return Side(modules[0].folder, EncoderSettings(activation, top_k, prompt, length), agg)
    unknown = [kind for kind in kinds if kind not in (*_LANGUAGE_MODELS, "SpladePooling", "SparseStaticEmbedding")]
    if unknown:
        raise ModelError(
            f"model '{name}': its module {unknown[0]} is not one of a SPLADE model (a masked-language model with "
            "SpladePooling, or SparseStaticEmbedding)"
        )
    raise ModelError(
        f"model '{name}': its modules for the {side} side are {', '.join(kinds)}; what can be read is a "
        "masked-language model with SpladePooling, or SparseStaticEmbedding alone"
    )


def read_settings(path: Path, name: str, optional: bool = False) -> JsonObject:
    """Return the JSON object in a file of the model that the user called `name`; a ModelError if there is none."""
    try:
        return read_json_object(path) if path.is_file() or not optional else {}
    except DataError as error:
        raise ModelError(f"model '{name}': {error}; fetch or save the model again") from error


def _modules(folder: Path, name: str, side: SideName) -> list[_Module]:
    """Return the modules that a side passes through, those of a Router in its place."""
    path = folder / MODULES_FILE
    try:
        entries = read_json(path)
    except DataError as error:
        raise ModelError(f"model '{name}': {error}") from error
    found: list[_Module] = []
    for entry in entries if isinstance(entries, list) else [entries]:
        fields = entry if isinstance(entry, dict) else {}
        kind, part = fields.get("type"), fields.get("path")
        if not isinstance(kind, str) or not isinstance(part, str):
            raise ModelError(
                f"model '{name}': {path}: must be a list of objects with the strings 'type' and 'path', has "
                f"{str(entry)[:80]!r}"
            )
        module = _module(kind, folder, part, name, path)
        if module.kind in ("Router", "Asym"):
            found += _routed(module.folder, name, side)
        else:
            found.append(module)
    return found


def _module(kind: str, folder: Path, part: str, name: str, path: Path) -> _Module:
    if Path(part).is_absolute() or ".." in Path(part).parts:
        raise ModelError(f"model '{name}': {path}: the path '{part}' leaves the folder of the model")
    short = kind.rpartition(".")[2]
    if not kind.startswith("sentence_transformers."):
        raise ModelError(
            f"model '{name}': its module {short} is not one of a SPLADE model: '{kind}' in {path} is not of "
            "sentence-transformers, and code of a model folder is never run"
        )
    return _Module(short, folder / part)


def _routed(folder: Path, name: str, side: SideName) -> list[_Module]:
    """Return the modules of the route that a Router takes for texts of one side."""
    path = folder / ROUTER_FILE
    if not path.is_file():
        path = folder / "config.json"  # its name in earlier releases
    router = read_settings(path, name)
    types, structure, parameters = (router.get(key) for key in ("types", "structure", "parameters"))
    if not isinstance(types, dict) or not isinstance(structure, dict) or not isinstance(parameters, dict | None):
        raise ModelError(f"model '{name}': {path}: must have the objects 'types' and 'structure'")
    mappings = (parameters or {}).get("route_mappings") or {}
    if not isinstance(mappings, dict):
        raise ModelError(f"model '{name}': {path}: 'route_mappings' must be an object")
    route = _route({_route_key(key, path, name): value for key, value in mappings.items()}, list(structure), side)
    ids = structure.get(route) if isinstance(route, str) else None
    if not isinstance(ids, list) or not ids or any(not isinstance(types.get(str(part)), str) for part in ids):
        raise ModelError(
            f"model '{name}': {path}: no modules for texts of the {side} side; its routes are {', '.join(structure)}"
        )
    return [_module(types[part], folder, part, name, path) for part in ids]


def _route(mappings: dict[object, object], routes: list[str], side: SideName) -> object:
    """Choose as the Router does for texts: the nearest mapping of (task, modality), then a route of that name."""
    for task, modality in ((side, "text"), (side, None), (None, "text"), (None, None)):
        if (task, modality) in mappings:
            return mappings[task, modality]
    return next((route for route in (side, "text") if route in routes), None)


def _route_key(key: str, path: Path, name: str) -> object:
    try:
        return ast.literal_eval(key)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ModelError(f"model '{name}': {path}: '{key}' is no pair of task and modality") from error


def _check_model(path: Path, model: JsonObject, name: str) -> None:
    kind, similarity = model.get("model_type", "SparseEncoder"), model.get("similarity_fn_name")
    if kind != "SparseEncoder":
        raise ModelError(f"model '{name}': {path}: it is a {kind}, not a SparseEncoder")
    if similarity not in (None, "dot"):
        raise ModelError(
            f"model '{name}': {path}: similarity_fn_name is {similarity!r}; scores are dot products here, and its "
            "ranking would be another one"
        )


def _prompt_and_limit(path: Path, model: JsonObject, name: str, side: SideName) -> tuple[str, int | None]:
    """Return the prompt of a side, and how many terms of a vector are kept."""
    prompts, limit = model.get("prompts") or {}, model.get("max_active_dims")
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise ModelError(f"model '{name}': {path}: 'prompts' must be an object of strings")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ModelError(f"model '{name}': {path}: max_active_dims is {limit!r}; it must be an integer of at least 1")
    return prompts.get(side) or "", limit


def _pooling(folder: Path, name: str) -> tuple[Aggregation, Activation]:
    path = folder / "config.json"
    settings = read_settings(path, name)
    agg, activation = settings.get("pooling_strategy", "max"), settings.get("activation_function", "relu")
    for key, value, allowed in (
        ("pooling_strategy", agg, AGGREGATIONS),
        ("activation_function", activation, ACTIVATIONS),
    ):
        if value not in allowed:
            raise ModelError(f"model '{name}': {path}: {key} is {value!r}; allowed are {', '.join(allowed)}")
    known = {"pooling_strategy", "activation_function", "embedding_dimension", "word_embedding_dimension", "chunk_size"}
    _refuse_unknown(settings, known, path, name)
    return agg, activation


def _length(module: _Module, name: str, side: SideName) -> int | None:
    """Return the length at which texts of a side are cut, None if the tokenizer says it; refuse what else is set."""
    path = next(
        (module.folder / file for file in _TRANSFORMER_FILES if (module.folder / file).is_file()),
        module.folder / TRANSFORMER_FILE,
    )
    settings = read_settings(path, name, optional=True)
    _refuse_unknown(settings, {*_REFUSED, *_READ, *_WITHOUT_EFFECT}, path, name)
    for key in _REFUSED:
        if settings.get(key):
            raise ModelError(
                f"model '{name}': {path}: {key}={settings[key]!r} changes its vectors in a way that is not followed "
                "here; save the model without it"
            )
    task = settings.get("transformer_task", "fill-mask" if module.kind == "MLMTransformer" else "feature-extraction")
    modalities = settings.get("modality_config")
    text = modalities.get("text") if isinstance(modalities, dict) else modalities
    if task != "fill-mask" or text not in (None, _LOGITS):
        raise ModelError(
            f"model '{name}': {path}: its {module.kind} (transformer_task={task}) is not one of a SPLADE model, whose "
            "texts become the logits of a masked-language model (transformer_task=fill-mask)"
        )
    lengths = {key: settings.get(key) for key in ("max_seq_length", f"{side}_length")}
    for key, length in lengths.items():
        if length is not None and (type(length) is not int or length < 1):
            raise ModelError(f"model '{name}': {path}: {key} is {length!r}; it must be an integer of at least 1")
    return lengths[f"{side}_length"] or lengths["max_seq_length"]


def _trainable(module: _Module, name: str) -> bool:
    """Return whether training changes the weights per token; refuse what else is said of them."""
    path = module.folder / "config.json"
    settings = read_settings(path, name, optional=True)
    _refuse_unknown(settings, {"frozen", "path"}, path, name)
    if settings.get("path") is not None:
        raise ModelError(
            f"model '{name}': {path}: path={settings['path']!r} names a file outside the model; save the model again "
            "with sentence-transformers, which puts the weights into it"
        )
    return not settings.get("frozen", False)


def _refuse_unknown(settings: JsonObject, known: set[str], path: Path, name: str) -> None:
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ModelError(
            f"model '{name}': {path}: '{unknown[0]}' is not known here, and may change its vectors; known are "
            f"{', '.join(sorted(known))}"
        )
