"""Uploading a folder to the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from splade.errors import ConfigError, SpladeError


def upload_folder(folder: Path, repo_id: str, private: bool, left_out: tuple[str, ...] = ()) -> str:
    """Upload all files of a folder in one commit, and return the address of the model.

    A repository that is there keeps its other files, and stays as private as it is.

    Args:
        folder: what is uploaded.
        repo_id: `owner/name`.
        private: whether a new repository is private.
        left_out: names of files that stay here.

    Raises:
        ConfigError: no such name can be, or nobody is logged in.
        SpladeError: the hub cannot be reached, or refuses.
    """
    if get_token() is None:
        raise ConfigError(
            "uploading needs an account of the Hugging Face hub: log in with `hf auth login`, or set HF_TOKEN"
        )
    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message="Upload model and card",
            ignore_patterns=list(left_out),
        )
    except HFValidationError as error:
        raise ConfigError(f"push.repo_id={repo_id}: must be owner/name ({error})") from error
    except HfHubHTTPError as error:
        raise SpladeError(f"push.repo_id={repo_id}: {constants.ENDPOINT} refuses: {_in_short(error)}") from error
    except Exception as error:  # of its HTTP library, which differs from release to release
        raise SpladeError(
            f"push.repo_id={repo_id}: {constants.ENDPOINT} cannot be reached: {_in_short(error)}; the folder {folder} "
            "is complete, give the same command again"
        ) from error
    return str(commit.repo_url)


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
