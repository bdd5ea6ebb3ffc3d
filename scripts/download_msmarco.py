"""Fetches MS MARCO and TREC DL: the command splade-download-msmarco, from a checkout; --help says more."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from splade.datasets.msmarco import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
