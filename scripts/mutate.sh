#!/usr/bin/env bash
# Mutation testing: puts small faults into a part of the package, one at a time, and runs the tests that should see them.
#   bash scripts/mutate.sh [losses|evaluation|inverted_index|storage|encoding|training|datasets] [faults, default 20] [seed]
# Works on a copy of the checkout with cosmic-ray; prints the faults that no test saw and the share that was seen.
set -euo pipefail
room="${1:-losses}" faults="${2:-20}" seed="${3:-1}"
checkout="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-python3}"
"$python" -c "import cosmic_ray" 2>/dev/null || { echo "error: cosmic-ray is missing: pip install cosmic-ray" >&2; exit 1; }
case "$room" in
    losses) tests="tests/unit/test_losses.py tests/oracle/test_losses_oracle.py tests/unit/test_training_wiring.py" ;;
    evaluation) tests="tests/unit/test_evaluation_*.py tests/unit/test_checks.py tests/oracle/test_evaluation_*.py
        tests/property/test_evaluation_properties.py tests/attack/test_files_under_attack.py
        tests/attack/test_json_and_pickles_under_attack.py" ;;
    inverted_index) tests="tests/unit/test_inverted_index.py tests/attack/test_search_wiring.py tests/attack/test_results_wiring.py
        tests/attack/test_forged_indexes.py tests/attack/test_hostile_vectors.py tests/oracle/test_inverted_index_oracle.py
        tests/property/test_inverted_index*.py tests/attack/test_writers*.py" ;;
    storage) tests="tests/unit/test_storage_arrays.py tests/attack/test_writers*.py
        tests/attack/test_collections_under_attack.py tests/attack/test_downloads_under_attack.py
        tests/property/test_storage_properties.py" ;;
    encoding) tests="tests/unit/test_encoding.py tests/property/test_encoding_properties.py tests/unit/test_front_door.py
        tests/attack/test_search_wiring.py tests/attack/test_results_wiring.py" ;;
    training) tests="tests/unit/test_training*.py tests/attack/test_checkpoints.py tests/unit/test_presets.py
        tests/property/test_training_properties.py" ;;
    datasets) tests="tests/unit/test_datasets_*.py tests/attack/test_files_under_attack.py
        tests/attack/test_collections_under_attack.py tests/property/test_datasets_properties.py" ;;
    *) echo "error: no tests are named for '$room'" >&2; exit 2 ;;
esac

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
git -C "$checkout" ls-files -z | (cd "$checkout" && xargs -0 cp --parents -t "$work")
cd "$work"
export PYTHONPATH="$work" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" PYTHONDONTWRITEBYTECODE=1
# shellcheck disable=SC2086
tests="$(echo $tests)" # on one line, file names in place of patterns
cat >mutate.toml <<TOML
[cosmic-ray]
module-path = "splade/$room"
timeout = 600.0
excluded-modules = []
test-command = "$python -m pytest -q -x -p no:cacheprovider $tests"
distributor.name = "local"
TOML
echo "the tests must pass without a fault ..."
"$python" -m pytest -q -x -p no:cacheprovider $tests | tail -n 1
"$python" -m cosmic_ray.cli init mutate.toml mutate.sqlite
"$python" - "$faults" "$seed" <<'PYTHON'
"""Leave a random sample of the faults, without those in annotations and docstrings, which change nothing."""
import ast
import random
import sqlite3
import sys
from pathlib import Path

database = sqlite3.connect("mutate.sqlite")
rows = database.execute(
    "select job_id, module_path, start_pos_row, operator_name from mutation_specs "
    "order by module_path, operator_name, operator_args, occurrence"
).fetchall()


def lines_of_annotations(path: str) -> set[int]:
    found = set()
    for node in ast.walk(ast.parse(Path(path).read_text())):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(part, ast.expr):
                found.update(range(part.lineno, part.end_lineno + 1))
    return found


annotated = {path: lines_of_annotations(path) for path in {row[1] for row in rows}}
possible = [row for row in rows if not ("BitOr" in row[3] and row[2] in annotated[row[1]])]
chosen = {row[0] for row in random.Random(int(sys.argv[2])).sample(possible, min(int(sys.argv[1]), len(possible)))}
for table in ("mutation_specs", "work_items"):
    database.executemany(f"delete from {table} where job_id = ?", [(row[0],) for row in rows if row[0] not in chosen])
database.commit()
print(f"{len(chosen)} of {len(possible)} possible faults")
PYTHON
"$python" -m cosmic_ray.cli exec mutate.toml mutate.sqlite
"$python" - <<'PYTHON'
import sqlite3

database = sqlite3.connect("mutate.sqlite")
query = "select test_outcome, diff from work_results"
results = [(str(outcome).lower(), diff) for outcome, diff in database.execute(query)]
unseen = [diff for outcome, diff in results if "survived" in outcome]
print("\n".join(["", *(f"not seen:\n{diff}" for diff in unseen), f"{len(results) - len(unseen)} of {len(results)} faults seen"]))
PYTHON
