"""The one place that prints."""

import os
import sys


def report(text: str) -> None:
    """Print a result for the user; under `torchrun` only the first process does."""
    if text and os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


def report_error(text: str) -> None:
    """Print an error on standard error."""
    print(f"error: {text}", file=sys.stderr, flush=True)
