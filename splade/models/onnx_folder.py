"""A model as ONNX files, run by ONNX Runtime: what `python -m splade.export target=onnx` writes.

The folder holds `document.onnx`, and for queries nothing more, `query.onnx`, or a weight per token; the tokenizers; and
`onnx_model.json`: how vectors are cut to their terms, what texts begin with and where they end, the fingerprint of the
model that was exported, and checksums. Its vectors are those of that model within rounding, so an index of the one is
an index of the other.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import Self

from splade.config.schema import ModelConfig, RunConfig
from splade.errors import ConfigError, DataError, ModelError, shown
from splade.models.encoder import EncoderSettings, SparseEncoder
from splade.models.head.pooling import ACTIVATIONS, AGGREGATIONS, Activation, Aggregation
from splade.models.masked_lm import positive_entries
from splade.models.onnx_graph import INPUTS, open_session
from splade.models.pretrained import load_tokenizer
from splade.models.pruning import keep_own_tokens, keep_top_k
from splade.models.splade import Fingerprint, Splade
from splade.models.token_lookup import TokenLookupEncoder
from splade.storage.atomic import JsonObject, read_json_object
from splade.storage.checksums import damage
from splade.vectors import SparseVectors

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ONNX_FILE, DOCUMENT_FILE, QUERY_FILE, QUERY_FOLDER = "onnx_model.json", "document.onnx", "query.onnx", "query"
WEIGHTS_FILE = "token_weights.pt"
OUTPUT = "weights"
FILES = (DOCUMENT_FILE, QUERY_FILE, WEIGHTS_FILE)
FORMAT = 1


@dataclass(frozen=True)
class OnnxSide:
    """How one side, queries or documents, becomes vectors.

    Attributes:
        file: an ONNX file of (batch, length) `input_ids` and `attention_mask` to (batch, vocabulary) `weights`, or
            `WEIGHTS_FILE`, the (vocabulary,) weights of tokens.
        top_k: only the largest weights are kept, that many; None: all.
        own_tokens_only: only tokens of the text itself keep a weight.
        settings: prompt and length.
    """

    file: str
    top_k: int | None
    own_tokens_only: bool
    settings: EncoderSettings


class OnnxEncoder(SparseEncoder):
    """An encoder that ONNX Runtime runs, on the CPU; it cannot be trained.

    Attributes:
        agg: pooling over tokens, part of the file.
        activation: of the head, part of the file.
    """

    def __init__(
        self,
        session: "InferenceSession",
        side: OnnxSide,
        vocab_size: int,
        agg: Aggregation,
        activation: Activation,
        special_token_ids: list[int],
    ):
        super().__init__()
        self._session = session
        self._side = side
        self.vocab_size = vocab_size
        self.agg = agg
        self.activation = activation
        self.top_k = side.top_k
        self.own_tokens_only = side.own_tokens_only
        self.special_token_ids = special_token_ids
        self.training = False

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (batch, vocab_size) float32 weights of (batch, length) token ids, without gradients."""
        inputs = {name: tensor.cpu().numpy() for name, tensor in zip(INPUTS, (input_ids, attention_mask), strict=True)}
        weights = torch.from_numpy(self._session.run([OUTPUT], inputs)[0])
        if weights.shape != (len(input_ids), self.vocab_size) or not bool(weights.isfinite().all()):
            raise ModelError(f"{self._side.file} gave weights that are not finite numbers for {self.vocab_size} terms")
        if self.own_tokens_only:
            weights = keep_own_tokens(weights, input_ids.cpu(), attention_mask.cpu(), self.special_token_ids)
        return weights if self.top_k is None else keep_top_k(weights, self.top_k)

    @torch.inference_mode()
    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> SparseVectors:
        """Return the same as sparse vectors."""
        return positive_entries(self(input_ids, attention_mask))

    def train(self, mode: bool = True) -> Self:
        """Stay as it is; a ModelError for training."""
        if mode:
            raise ModelError("a model in ONNX files cannot be trained; train the model that was exported")
        return super().train(mode)


def is_onnx_folder(folder: Path) -> bool:
    """Whether a folder holds a model as ONNX files."""
    return (folder / ONNX_FILE).is_file()


def load_onnx(folder: Path, name: str, init: ModelConfig, run: RunConfig) -> Splade:
    """Load a model from its ONNX files.

    Args:
        folder: where they are.
        name: what the user called the model.
        init: `init_dict`; what it says of the model must be what was exported, or nothing.
        run: `config`, likewise.

    Raises:
        ConfigError: ONNX Runtime is not installed, or settings other than those that were exported.
        ModelError: files are missing, damaged, or not what `splade.export` writes.
    """
    record = _record(folder, name)
    try:
        fingerprint = Fingerprint(**record["fingerprint"])
        sides = {side: _side(record[side]) for side in ("document", "query")}
        agg, activation, query_digest = record["agg"], record["activation"], str(record["query_digest"])
        possible = type(fingerprint.vocab_size) is int and agg in AGGREGATIONS and activation in ACTIVATIONS
        if not possible or any(side.file not in record["files"] for side in sides.values()):
            raise TypeError("impossible values")
    except (KeyError, TypeError) as error:
        raise ModelError(f"model '{name}': {folder / ONNX_FILE}: not what splade.export writes ({error})") from error
    _check_settings(init, run, fingerprint, sides, str(folder))
    tokenizer = load_tokenizer(folder, name, run.tokenizer_type)
    query_tokenizer = load_tokenizer(folder / QUERY_FOLDER, name) if (folder / QUERY_FOLDER).is_dir() else tokenizer

    def encoder(side: OnnxSide) -> SparseEncoder:
        if side.file == WEIGHTS_FILE:
            weights = _token_weights(folder / WEIGHTS_FILE, fingerprint.vocab_size, name)
            return TokenLookupEncoder(fingerprint.vocab_size, [], weights, top_k=side.top_k)
        session = _session(folder / side.file, name)
        return OnnxEncoder(session, side, fingerprint.vocab_size, agg, activation, tokenizer.all_special_ids)

    documents = encoder(sides["document"])
    alike = [(side.file, side.top_k, side.own_tokens_only) for side in sides.values()]
    queries = documents if alike[0] == alike[1] else encoder(sides["query"])
    settings = sides["document"].settings, sides["query"].settings
    model = Splade(documents, queries, tokenizer, query_tokenizer, fingerprint.matching_type, agg, name, *settings)
    model.take_fingerprint(fingerprint, query_digest)
    return model.eval()


def _record(folder: Path, name: str) -> JsonObject:
    try:
        record = read_json_object(folder / ONNX_FILE)
    except DataError as error:
        raise ModelError(f"model '{name}': {error}; export it again") from error
    if record.get("format") != FORMAT:
        raise ModelError(
            f"model '{name}': {folder / ONNX_FILE}: has format {record.get('format')!r}, this version reads {FORMAT}; "
            "export it again"
        )
    files = record.get("files")
    fault = damage(folder, files) if isinstance(files, dict) else "it has no checksums"
    if fault:
        raise ModelError(f"model '{name}': {folder}: {fault}; export it again")
    return record


def _side(said: JsonObject) -> OnnxSide:
    known = {item.name: said[item.name] for item in fields(OnnxSide) if item.name != "settings"}
    side = OnnxSide(settings=EncoderSettings.from_json(said["settings"]), **known)
    is_number = side.top_k is None or type(side.top_k) is int and side.top_k > 0
    if side.file not in FILES or not is_number or not isinstance(side.own_tokens_only, bool):
        raise TypeError(f"impossible values: {shown(str(known), 200)}")
    return side


def _token_weights(path: Path, vocab_size: int, name: str) -> Tensor:
    """Load the weights of tokens, and nothing else that a file may hold."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"model '{name}': {path}: does not load as weights of tokens ({reason})") from error
    if (
        not isinstance(weights, Tensor)
        or weights.shape != (vocab_size,)
        or not bool(((weights >= 0) & weights.isfinite()).all())
    ):
        raise ModelError(f"model '{name}': {path}: must hold {vocab_size} weights, finite and not negative")
    return weights


def _session(path: Path, name: str) -> "InferenceSession":
    try:
        session = open_session(path, torch.get_num_threads())
    except ModelError as error:
        raise ModelError(f"model '{name}': {error}") from error
    inputs, outputs = (
        {place.name: place.type for place in places} for places in (session.get_inputs(), session.get_outputs())
    )
    if inputs != dict.fromkeys(INPUTS, "tensor(int64)") or outputs.get(OUTPUT) != "tensor(float)":
        raise ModelError(f"model '{name}': {path}: is of {inputs} to {outputs}, not one that splade.export writes")
    return session


def _check_settings(
    init: ModelConfig, run: RunConfig, exported: Fingerprint, sides: dict[str, OnnxSide], folder: str
) -> None:
    """Refuse settings that were given and are not those of the files."""
    usual_init, usual_run = ModelConfig(), RunConfig()
    given = {
        "config.matching_type": (run.matching_type, usual_run.matching_type, exported.matching_type),
        "init_dict.agg": (init.agg, usual_init.agg, exported.agg),
        "config.prompt_d": (run.prompt_d, None, sides["document"].settings.prompt),
        "config.prompt_q": (run.prompt_q, None, sides["query"].settings.prompt),
        "init_dict.top_d": (init.top_d, None, sides["document"].top_k),
        "init_dict.top_q": (init.top_q, None, sides["query"].top_k),
        "init_dict.model_type_or_dir_q": (init.model_type_or_dir_q, None, None),
        "init_dict.precision": (init.precision, "fp32", "fp32"),
        "init_dict.backend": (init.backend, "torch", "onnx"),
    }
    for name, (value, usual, of_files) in given.items():
        if value not in (usual, of_files):
            raise ConfigError(
                f"{name}={value}, but the ONNX files in {folder} were exported with {of_files}; leave it out, or "
                "export the model again"
            )
