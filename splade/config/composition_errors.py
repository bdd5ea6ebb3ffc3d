"""Hydra's and OmegaConf's errors in one paragraph, with the nearest right name."""

import re

from omegaconf.errors import OmegaConfBaseException

from splade.config.choose import ConfigChoice
from splade.config.validate import first_line, nearest_key
from splade.errors import ConfigError, nearest


def explain_composition_error(error: Exception, choice: ConfigChoice | None) -> ConfigError:
    """Return the `ConfigError` that says what an error of config composition means.

    Args:
        error: a HydraException or OmegaConfBaseException.
        choice: the config that was being composed, if that is known.
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
        return ConfigError(f"unknown key '{name}'{nearest_key(name)}{_where(override, choice)}")
    if cause is not None:
        return ConfigError(f"{first_line(cause)}{_where(override, choice)}")
    return ConfigError(" ".join(line.strip() for line in text.splitlines() if line.strip()))


def _full_key(text: str) -> str | None:
    found = re.search(r"full_key: (\S+)", text)
    return found[1] if found else None


def _where(override: re.Match[str] | None, choice: ConfigChoice | None) -> str:
    if override is not None or choice is None:
        return ""
    return f" (while composing {choice.path} and the overrides)"
