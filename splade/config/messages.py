"""What is said about a wrong configuration: Hydra's and OmegaConf's errors in one line, with the nearest right name."""

import errno
import re
from difflib import get_close_matches
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from splade.config.keys import ENTRY, schema_keys
from splade.config.renamed import REMOVED_KEYS, new_name, new_option
from splade.errors import ConfigError, SpladeError, nearest

INTERNAL = "_splade_"
"""Configs whose names begin with it are the toolkit's own; no file of a folder can take their place."""

# What other toolkits call our keys.
SYNONYMS = {
    "learning_rate": "config.lr",
    "batch_size": "config.train_batch_size",
    "num_train_epochs": "config.nb_epochs",
    "max_steps": "config.nb_iterations",
    "max_seq_length": "config.max_length",
    "output_dir": "config.out_dir",
    "model_name_or_path": "init_dict.model_type_or_dir",
    "num_negatives": "config.n_negatives",
    "k": "config.top_k",
}


def nearest_key(name: str) -> str:
    """Return "; did you mean 'x'?" for a full key whose last part is near: of a sister, or in another section."""
    if name in REMOVED_KEYS:
        return f"; it was removed: {REMOVED_KEYS[name]}"
    if renamed := new_name(name):
        return renamed
    section, _, leaf = name.rpartition(".")
    entry = section.rpartition(".")[2]
    known = [key.name.replace(ENTRY, entry) for key in schema_keys()]
    known = list(dict.fromkeys([*known, *(other.rpartition(".")[0] for other in known if "." in other)]))
    synonym = get_close_matches(leaf, SYNONYMS, n=1, cutoff=0.8)
    if synonym:
        return f"; did you mean '{SYNONYMS[synonym[0]]}'?"
    sisters = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    leaves = {other.rpartition(".")[2]: other for other in reversed(known)}
    for names in (sisters, leaves):
        matches = get_close_matches(leaf, names, n=1, cutoff=0.7)
        if matches:
            return f"; did you mean '{names[matches[0]]}'?"
    return ""


def explain_composition_error(error: Exception, path: Path | None = None, prefix: str = "") -> SpladeError:
    """Return the error that says what an error of config composition means.

    Args:
        error: of Hydra, OmegaConf, or the machine; one of ours is returned as it is.
        path: the file that was being composed, if that is known.
        prefix: of the keys in the message, where only a section was read.
    """
    known = error if isinstance(error, SpladeError) else explain_machine_error(error)
    if known is not None and not isinstance(error, HydraException):
        return known
    if isinstance(error, RecursionError):
        return ConfigError("an interpolation refers to itself, or the configuration is nested too deeply")
    text = re.sub(r"\s*Config search path:.*", "", str(error), flags=re.S)
    if path is not None:
        text = re.sub(rf"In '{INTERNAL}\w+'", lambda _: str(path), text)
    cause = next((err for err in (error, error.__cause__) if isinstance(err, OmegaConfBaseException)), None)
    lines = [line.strip() for line in str(cause or text).splitlines() if line.strip()] or [type(error).__name__]
    full_key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), None)
    merged = re.match(r"Error merging override ([^=\s]+)=", text)
    if merged and (full_key is None or full_key.isdigit()):  # the place in a list, not the list
        full_key = merged[1].lstrip("+")
    unknown = re.search(r"Key '([^']+)' (?:is not in struct|not in )", f"{text}\n{cause or ''}")
    override = re.search(r"Could not (?:override '|append to config. An item is already at ')", text)
    where = f" (while composing {path} and the overrides)" if path is not None and not override else ""
    group = re.search(r"Could not (?:find|override) '([^']+)'.*?Available options in '([^']+)':\s*\n(.*)$", text, re.S)
    if group:
        options = [line.strip() for line in group[3].splitlines() if line.strip()]
        asked = group[1].rpartition("/")[2]
        listing = ", ".join(options)
        hint = new_option(group[2], asked) or nearest(asked, options)
        return ConfigError(f"no '{asked}' in the group {group[2]}{hint}; there are: {listing}")
    if unknown:
        name = prefix + (full_key or unknown[1])
        return ConfigError(f"unknown key '{name}'{nearest_key(name)}{where}")
    if re.search(r"Could not (?:find|load) '", text):
        lines.append("(included are files of conf/, and those of a folder given with --config-path or --config-dir)")
    no_section = re.search(r"Merge error: \w+ is not a subclass of \w+\.\s*value: (.*)", text)
    if no_section:
        return ConfigError(f"{no_section[1]}: a section is expected there, which holds keys{where}")
    if cause is not None:
        return ConfigError((f"{prefix}{full_key}: " if full_key else "") + lines[0] + where)
    return ConfigError(" ".join(lines))


_NO_PERMISSION = "choose a place where you may write, or ask for the permission"
_ADVICE = {
    errno.ENOSPC: "make room; the same command goes on where it was, or starts clean",
    errno.EDQUOT: "make room; the same command goes on where it was, or starts clean",
    errno.EFBIG: "raise the largest file size that is allowed (ulimit -f)",
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: _NO_PERMISSION,
    errno.EMFILE: "raise the number of files that may be open (ulimit -n)",
    errno.ENFILE: "raise the number of files that may be open (ulimit -n)",
    errno.ENAMETOOLONG: "give a shorter name",
}
_LITTLE_MEMORY = re.compile(r"out of memory|allocate memory|failed to map segment|start new thread", re.IGNORECASE)


def explain_machine_error(error: Exception) -> SpladeError | None:
    """Return what an error means that the machine causes: its disks, its limits, its memory; None for any other."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError) and _LITTLE_MEMORY.search(text)
    ):
        return SpladeError(
            f"not enough memory, or too few threads allowed ({text or type(error).__name__}); lower "
            "config.index_retrieve_batch_size, config.train_batch_size, config.eval_batch_size or config.n_threads"
        )
    if not isinstance(error, OSError):
        return None
    if error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    advice = _ADVICE.get(error.errno or 0)
    return SpladeError(f"{text or type(error).__name__}{f'; {advice}' if advice else ''}")
