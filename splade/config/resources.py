"""Where the files that travel with the package are: beside it in a checkout, inside it once installed."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def package_folder(name: str) -> Path:
    """Return the folder `conf` or `data` that belongs to this package."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def conf_folder() -> Path:
    """Return the folder of the shipped configs."""
    return package_folder("conf")
