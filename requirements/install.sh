#!/bin/sh
# Makes .venv and installs the package into it, editable, with some of its extras:
#
#     sh requirements/install.sh mm,test
#
# Does nothing, and needs no network, when that was done before and no requirement
# has changed since. PYTHON=/path/to/python3.12 chooses the interpreter.
set -eu
cd -- "$(dirname -- "$0")/.."
extras=$1
# Always "$python -m pip": the scripts in .venv/bin name the interpreter by a path
# that may hold spaces.
python=.venv/bin/python
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'

say() { printf '==> %s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

find_python() {
    # a name can exist and not run (version managers), so each one is tried
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3 python; do
        if "$candidate" -c "$supported" >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
        if [ -n "${PYTHON:-}" ]; then
            break
        fi
    done
    found=$("${PYTHON:-python3}" --version 2>&1 | head -n 1)
    fail "Python 3.11 or 3.12 is needed, found: $found. Install one of them, or name \
one: make PYTHON=/path/to/python3.12 ..."
}

make_venv() {
    if [ -e .venv ]; then
        "$python" -c "$supported" >/dev/null 2>&1 || fail ".venv holds no working \
Python 3.11 or 3.12; remove that folder and try again"
        if "$python" -m pip --version >/dev/null 2>&1; then
            return
        fi
    fi
    base=$(find_python)
    "$base" -c 'import ensurepip, venv' >/dev/null 2>&1 || fail "$base cannot make a \
virtual environment (on Debian and Ubuntu: apt install python3-venv)"
    say "making .venv with $("$base" --version)"
    "$base" -m venv .venv
}

# What is installed depends on these files, and an editable install on the folder.
fingerprint() {
    { pwd -P; cat setup.py requirements/*.txt; } | cksum
}

started=$(date +%s)
make_venv
stamp=.venv/installed-$extras
wanted=$(fingerprint)
if [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ]; then
    exit 0
fi

say "installing zs3_mmseg[$extras] into .venv (the first time: some GB, some minutes)"
set -- -r requirements/runtime.txt
for extra in $(printf '%s' "$extras" | tr ',' ' '); do
    set -- "$@" -r "requirements/$extra.txt"
done
# One call for everything, so that one torch serves open_clip and the mm-packages. What
# has to be built is built in isolation: mmcv would see torch and compile its ops.
"$python" -m pip install --quiet -c requirements/constraints.txt setuptools "$@"
# Ours is not, so that it needs no network once its requirements are there.
"$python" -m pip install --quiet --no-build-isolation --no-deps -e .
printf '%s\n' "$wanted" >"$stamp"

# Read by the demo's report: all seconds spent on installing into this .venv.
seconds=.venv/install_seconds
spent=$(($(cat "$seconds" 2>/dev/null || echo 0) + $(date +%s) - started))
printf '%s\n' "$spent" >"$seconds"
say "installed after $spent s in total"
