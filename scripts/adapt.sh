#!/usr/bin/env bash
# Adapts a trained sparse model (SPLADE-tiny unless overridden) to a collection, with or without judged queries:
#   bash scripts/adapt.sh BEIR_FOLDER OUT_FOLDER [Hydra overrides]
# That is python -m splade.adapt, which does all steps, in an environment that is made first if need be.
set -euo pipefail
if [ "$#" -lt 2 ]; then
    echo "usage: bash scripts/adapt.sh BEIR_FOLDER OUT_FOLDER [Hydra overrides]" >&2
    exit 2
fi
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-python3}"
needed='import importlib.util as u, sys; sys.exit(None in map(u.find_spec, ["torch", "transformers", "hydra"]))'
if ! "$python" -c "$needed"; then
    here="$PWD"
    cd "$root"
    source scripts/environment.sh
    make_environment .venv
    python="$root/.venv/bin/python"
    cd "$here"
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m splade.adapt "$@"
