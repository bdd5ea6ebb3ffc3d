"""From a model's name to a local folder that holds its files."""

import urllib.error
import urllib.request
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token, snapshot_download

from splade.config.inputs import check_model_name
from splade.errors import ModelError
from splade.storage.paths import resolve_path

WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")
OLD_WEIGHT_FILES = ("pytorch_model*.bin", "*/pytorch_model*.bin", "pytorch_model.bin.index.json")
ONNX_FILES = (
    "document.onnx*",
    "query.onnx*",
    "token_weights.pt",
)  # those of `splade.export`, not any in the repository
OTHER_FILES = ("*.json", "*.txt", "*.model", *(f"*/*.{kind}" for kind in ("json", "txt", "model", "safetensors")))
TIMEOUT_SECONDS = 10


def model_folder(name: str) -> Path:
    """Return the folder of a model: a folder, `pkg://package/path`, or fetched from the hub (`naver/splade-v3`).

    Raises:
        ModelError: nothing of that name is here, and the hub does not have it or cannot be reached.
    """
    if name.startswith("pkg://"):
        return _checked(resolve_path(name), name)
    check_model_name(name)
    path = Path(name).expanduser()
    return _checked(path, name) if path.is_dir() else _from_hub(name)


def _checked(folder: Path, name: str) -> Path:
    files = ("config.json", "router_config.json", "adapter_config.json")
    if not any((folder / file).is_file() for file in files):
        holds = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) if folder.is_dir() else "nothing"
        nested = next(
            (child for child in ("model", "0_MLMTransformer") if (folder / child / "config.json").is_file()), ""
        )
        hint = f"; perhaps you mean {folder / nested}" if nested else ""
        raise ModelError(f"model '{name}': {folder.absolute()} has no config.json (it holds: {holds}){hint}")
    return folder


def _from_hub(name: str) -> Path:
    try:  # a model fetched before is used as it is: no network, and the same files on every run
        cached = Path(snapshot_download(name, local_files_only=True))
        # Those of a Router may all be in sub-folders.
        if any(any(cached.rglob(pattern)) for pattern in WEIGHT_FILES + OLD_WEIGHT_FILES + ONNX_FILES):
            return _checked(cached, name)
    except OSError:
        pass
    _check_reachable(name, constants.ENDPOINT)
    try:
        files = _list_files(name)
        weights = WEIGHT_FILES if any(file.endswith(".safetensors") for file in files) else OLD_WEIGHT_FILES
        if "onnx_model.json" in files:
            weights = ONNX_FILES
        folder = snapshot_download(name, allow_patterns=[*weights, *OTHER_FILES], etag_timeout=TIMEOUT_SECONDS)
    except OSError as error:
        raise ModelError(f"model '{name}' could not be fetched from {constants.ENDPOINT}: {error}") from error
    return _checked(Path(folder), name)


def _list_files(name: str) -> list[str]:
    return [file.rfilename for file in HfApi().model_info(name, timeout=TIMEOUT_SECONDS).siblings or []]


def _check_reachable(name: str, endpoint: str) -> None:
    """Ask the hub once, without the retries of its library, so that a missing network shows within seconds."""
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{endpoint}/api/models/{name}", headers=headers)
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError as error:
        reason = {401: "no such model, or a private one (log in with `hf auth login`)", 404: "no such model"}
        raise ModelError(
            f"model '{name}': {endpoint} answers {error.code}: {reason.get(error.code, error.reason)}"
        ) from error
    except OSError as error:
        raise ModelError(
            f"model '{name}' could not be fetched: {endpoint} cannot be reached ({error}), and there is no folder "
            f"{Path(name).absolute()}. Give a local folder instead: init_dict.model_type_or_dir=FOLDER "
            "(config.json, weights and tokenizer), or pkg://cognition/model for SPLADE-tiny."
        ) from error
