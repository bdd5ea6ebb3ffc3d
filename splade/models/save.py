"""Where a trained model is saved: Hugging Face folders that sentence-transformers also loads."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from splade.errors import DataError, ModelError, SpladeError
from splade.models.adapters import has_adapters, save_adapters
from splade.models.encoder import NOTHING_SAID, SparseEncoder
from splade.models.masked_lm import MaskedLMEncoder
from splade.models.pretrained import SETTINGS_FILE, save_tokenizer
from splade.models.sentence_transformers_files import write_sentence_transformers_files
from splade.models.splade import Splade
from splade.models.token_lookup import TokenLookupEncoder
from splade.storage.atomic import JsonObject, read_json_object, write_json
from splade.storage.checksums import damage

MODEL_FOLDER, QUERY_MODEL_FOLDER, DONE_FILE = "model", "model_q", "training_done.json"
LOOKUP_FILE = "token_weights.json"


def save_splade(model: Splade, folder: Path, max_length: int | None = None) -> None:
    """Write `model/` (and `model_q/`) in Hugging Face format, loadable by sentence-transformers as a SparseEncoder.

    Each folder is written beside its place and renamed, so that one which exists is complete.

    Args:
        model: what to save.
        folder: where its folders go.
        max_length: tokens beyond which sentence-transformers shall cut a text; None for what the tokenizer says.
    """
    documents, queries = folder / MODEL_FOLDER, folder / QUERY_MODEL_FOLDER
    with saving(folder):
        of_documents = of_queries = _save_encoder(model.document_encoder, model.tokenizer, documents)
        if not model.shares_weights:
            of_queries = _save_encoder(model.query_encoder, model.query_tokenizer, queries)
        write_sentence_transformers_files(model, of_documents, max_length, of_queries)
        _write_settings(model, of_documents / SETTINGS_FILE)
        _put_in_place(of_documents, documents)
        if of_queries is not of_documents:
            _put_in_place(of_queries, queries)
        elif queries.exists():
            shutil.rmtree(queries)


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Explain errors of the libraries that write weights: they do not raise OSError when the disk is full.

    Raises:
        SpladeError: something cannot be written.
    """
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if not isinstance(error, SafetensorError) and not re.search("PytorchStreamWriter|inline_container", reason):
            raise
        raise SpladeError(
            f"{folder}: cannot be written ({reason[:200]}). If the disk is full, or files may not be that large, make "
            "room and give the same command again: it goes on where it was"
        ) from error


def read_done(folder: Path) -> JsonObject:
    """Return what the end of training wrote down in a folder.

    Returns:
        `settings`, the configuration; `result`; `files`, the checksums of the model's files (not in folders of earlier
        versions).

    Raises:
        ModelError: the file is not what training writes.
    """
    try:
        record = read_json_object(folder / DONE_FILE)
    except DataError as error:
        raise ModelError(f"{error}; remove this file and give the training command again") from error
    for name in ("settings", "result", "files"):
        if not isinstance(record.setdefault(name, {}), dict):
            raise ModelError(
                f"{folder / DONE_FILE}: '{name}' is not an object; remove this file and give the training command again"
            )
    return record


def model_damage(folder: Path, record: JsonObject) -> str | None:
    """Return what is wrong with the files of a trained model, or None."""
    return damage(folder, record["files"]) or (
        None if (folder / MODEL_FOLDER).is_dir() else f"{MODEL_FOLDER} is missing"
    )


def _save_encoder(encoder: SparseEncoder, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """Write an encoder with its tokenizer beside its place, and return where that is."""
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_tokenizer(tokenizer, temporary)
    if isinstance(encoder, TokenLookupEncoder):
        table = encoder.table().detach().tolist()
        weights = {token: table[term_id] for token, term_id in tokenizer.get_vocab().items() if table[term_id] > 0}
        write_json(temporary / LOOKUP_FILE, weights)
    elif isinstance(encoder, MaskedLMEncoder) and has_adapters(encoder.model):
        save_adapters(encoder.model, temporary)
    elif isinstance(encoder, MaskedLMEncoder):
        encoder.model.save_pretrained(temporary)
    return temporary


def _put_in_place(temporary: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _write_settings(model: Splade, path: Path) -> None:
    """Write what the model this one was trained from says of its vectors; most say nothing, and get no file."""
    settings = {"document": model.document_settings, "query": model.query_settings}
    if any(side != NOTHING_SAID for side in settings.values()):
        write_json(path, {side: asdict(said) for side, said in settings.items()})
