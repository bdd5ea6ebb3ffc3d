# Sourced by the other scripts: makes a virtual environment with the pinned packages and this checkout in it.
# Usage: make_environment FOLDER
make_environment() {
    local folder="$1" python="${PYTHON:-python3}"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "error: Python 3.10 or later is needed; $("$python" --version 2>&1) was found. Set PYTHON=..." >&2
        return 1
    }
    [ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
    local stamp="$folder/.requirements-installed"
    if ! cmp -s scripts/requirements.txt "$stamp"; then
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r scripts/requirements.txt
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
        cp scripts/requirements.txt "$stamp"
    fi
}
