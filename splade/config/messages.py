"""What is said about a wrong configuration: Hydra's and OmegaConf's errors in one line, with the nearest right name."""

import re
from difflib import get_close_matches
from pathlib import Path

from omegaconf.errors import OmegaConfBaseException

from splade.config.keys import ENTRY, schema_keys
from splade.errors import ConfigError, nearest

# What other toolkits call our keys.
SYNONYMS = {
    "learning_rate": "config.lr",
    "batch_size": "config.train_batch_size",
    "per_device_train_batch_size": "config.train_batch_size",
    "max_steps": "config.nb_iterations",
    "max_seq_length": "config.max_length",
    "output_dir": "config.out_dir",
    "model_name_or_path": "init_dict.model_type_or_dir",
    "num_negatives": "config.n_negatives",
    "k": "config.top_k",
}


def nearest_key(name: str) -> str:
    """Return "; did you mean 'x'?" for a full key, looking among its sisters, then in other sections."""
    section, _, leaf = name.rpartition(".")
    entry = section.rpartition(".")[2]
    known = [key.name.replace(ENTRY, entry) for key in schema_keys()]
    known = list(dict.fromkeys([*known, *(other.rpartition(".")[0] for other in known if "." in other)]))
    synonym = get_close_matches(leaf, SYNONYMS, n=1, cutoff=0.8)
    if synonym:
        return f"; did you mean '{SYNONYMS[synonym[0]]}'?"
    sisters = [other for other in known if other.rpartition(".")[0] == section]
    same_leaf = [other for other in known if other.rpartition(".")[2] == leaf]
    return nearest(name, sisters) or nearest(name, known) or (f"; did you mean '{same_leaf[0]}'?" if same_leaf else "")


def first_line(error: Exception) -> str:
    """Return an OmegaConf message in one line: the key and what is wrong with it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    return f"{key}: {lines[0]}" if key else lines[0] if lines else type(error).__name__


def explain_composition_error(error: Exception, path: Path | None) -> ConfigError:
    """Return the `ConfigError` that says what an error of config composition means.

    Args:
        error: a HydraException or OmegaConfBaseException.
        path: the file that was being composed, if that is known.
    """
    text = str(error)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    override = re.search(
        r"Could not override '([^']+)'|Could not append to config. An item is already at '([^']+)'", text
    )
    unknown = re.search(r"Key '([^']+)' (?:is not in struct|not in )", f"{text}\n{cause or ''}")
    group = re.search(
        r"Could not (?:find|override) '([^']+)'.*?Available options in '([^']+)':\s*\n(.*?)(?:Config search path|$)",
        text,
        re.S,
    )
    if group:
        options = [line.strip() for line in group[3].splitlines() if line.strip()]
        asked = group[1].rpartition("/")[2]
        listing = ", ".join(options)
        return ConfigError(f"no '{asked}' in the group {group[2]}{nearest(asked, options)}; there are: {listing}")
    if unknown:
        name = _full_key(f"{text}\n{cause or ''}") or unknown[1]
        return ConfigError(f"unknown key '{name}'{nearest_key(name)}{_where(override, path)}")
    if cause is not None:
        return ConfigError(f"{first_line(cause)}{_where(override, path)}")
    return ConfigError(" ".join(line.strip() for line in text.splitlines() if line.strip()))


def _full_key(text: str) -> str | None:
    found = re.search(r"full_key: (\S+)", text)
    return found[1] if found else None


def _where(override: re.Match[str] | None, path: Path | None) -> str:
    if override is not None or path is None:
        return ""
    return f" (while composing {path} and the overrides)"
