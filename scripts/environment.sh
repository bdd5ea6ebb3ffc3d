# Sourced by the other scripts: makes a virtual environment with the pinned packages and this checkout in it.
# Usage: make_environment FOLDER [FILE of further packages ...]
make_environment() {
    local folder="$1" python="${PYTHON:-python3}" files=(scripts/requirements.txt "${@:2}") file
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "error: Python 3.10 or later is needed; $("$python" --version 2>&1) was found. Set PYTHON=..." >&2
        return 1
    }
    [ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
    for file in "${files[@]}"; do
        cmp -s "$file" "$folder/.installed-${file##*/}" && continue
        # Each file names all that it needs; some projects forbid what works.
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$file" || return 1
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . || return 1
        cp "$file" "$folder/.installed-${file##*/}"
    done
}
