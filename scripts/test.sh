#!/usr/bin/env bash
# The whole test suite in its own virtual environment, with style, types, coverage, and the documentation as a site.
#   bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
environment="${SPLADE_TEST_ENVIRONMENT:-.venv}"
make_environment "$environment" scripts/requirements-systems.txt
python="$environment/bin/python"
if [ "$#" -gt 0 ]; then
    exec "$python" -m pytest "$@"
fi
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
NO_MKDOCS_2_WARNING=1 "$python" -m mkdocs build --strict --quiet
# Two processes share the cores; threads within each would only wait for one another.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
coverage="$(mktemp)"
trap 'rm -f "$coverage"' EXIT
"$python" -m slipcover --json --out "$coverage" -m pytest -n 2 --dist loadfile --durations 20
"$python" -m slipcover --merge "$coverage" --out "$coverage" --skip-covered --fail-under 70
