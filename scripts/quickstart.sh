#!/usr/bin/env bash
# A newcomer's first command: its own virtual environment, then the whole toy pipeline.
#   bash scripts/quickstart.sh [Hydra overrides]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
echo "Installing into .venv (a few minutes the first time) ..."
make_environment .venv
echo "Training, indexing, retrieving and evaluating on the toy data (about a minute) ..."
.venv/bin/python -m splade.all "$@"
