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
# Keys of earlier versions: configurations that were saved with them stay valid as long as they did not use them.
REMOVED_KEYS = {
    "init_dict.torch_compile": "compiling gained less than a tenth for one query and nothing for many",
    "beir.keep_vectors": "queries are encoded again for other search settings",
}


def nearest_key(name: str) -> str:
    """Return "; did you mean 'x'?" for a full key, looking among its sisters, then in other sections."""
    if name in REMOVED_KEYS:
        return f"; it was removed: {REMOVED_KEYS[name]}"
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


def explain_composition_error(error: Exception, path: Path | None = None, prefix: str = "") -> ConfigError:
    """Return the `ConfigError` that says what an error of config composition means.

    Args:
        error: a HydraException or OmegaConfBaseException.
        path: the file that was being composed, if that is known.
        prefix: of the keys in the message, where only a section was read.
    """
    text = str(error)
    cause = next((err for err in (error, error.__cause__) if isinstance(err, OmegaConfBaseException)), None)
    lines = [line.strip() for line in str(cause or error).splitlines() if line.strip()] or [type(error).__name__]
    full_key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), None)
    unknown = re.search(r"Key '([^']+)' (?:is not in struct|not in )", f"{text}\n{cause or ''}")
    override = re.search(r"Could not (?:override '|append to config. An item is already at ')", text)
    where = f" (while composing {path} and the overrides)" if path is not None and not override else ""
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
        name = prefix + (full_key or unknown[1])
        return ConfigError(f"unknown key '{name}'{nearest_key(name)}{where}")
    if cause is not None:
        return ConfigError((f"{prefix}{full_key}: " if full_key else "") + lines[0] + where)
    return ConfigError(" ".join(lines))
