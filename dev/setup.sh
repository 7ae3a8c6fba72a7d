#!/usr/bin/env bash
# Make the virtual environment of one Airflow line: every pinned package, then this project, editable or as a wheel.
#
# usage: dev/setup.sh VENV CONSTRAINTS [WHEEL]       (PYTHON: the interpreter, python3 unless set)
#
# uv installs in 15 s what takes pip 72 s. SETUP_WITH_PIP=1 does it with pip all the same.
# Safe to repeat: an environment that exists is completed, one that no longer starts is made anew.
set -euo pipefail

venv=$1 constraints=$2
if [ $# -gt 2 ]; then project=(--force-reinstall "$3"); else project=(-e .); fi
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."

# Airflow starts twice as slowly without compiled modules, and this stops them from being written.
unset PYTHONDONTWRITEBYTECODE

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: needs Python 3.11 or newer; $python is $("$python" --version 2>&1)" >&2
    exit 1
}

pip_can_reach_another_python() {  # its --python option came with 22.3
    "$python" -m pip --version 2>/dev/null |
        "$python" -c 'import sys; v = (sys.stdin.read().split() + ["", "0.0"])[1].split(".")
sys.exit((int(v[0]), int(v[1])) < (22, 3))' 2>/dev/null
}

if ! "$venv/bin/python" -c '' 2>/dev/null; then
    if [ -z "${SETUP_WITH_PIP:-}" ] && pip_can_reach_another_python; then
        "$python" -m venv --clear --without-pip "$venv"
    else
        "$python" -m venv --clear "$venv"
    fi
fi
echo '*' >"$venv/.gitignore"

if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    pip=("$venv/bin/python" -m pip)
elif pip_can_reach_another_python; then
    pip=("$python" -m pip --python "$venv/bin/python")
else
    "$venv/bin/python" -m ensurepip --default-pip >/dev/null
    pip=("$venv/bin/python" -m pip)
fi
quiet=(--quiet --disable-pip-version-check)

# The constraints name the whole closure, so they serve as the list of what to install too:
# no resolver decides anything here. The build backend is among them, hence no build isolation.
if [ -n "${SETUP_WITH_PIP:-}" ]; then
    "${pip[@]}" install "${quiet[@]}" --compile -r "$constraints" -c "$constraints"
    "${pip[@]}" install "${quiet[@]}" --no-deps --no-build-isolation "${project[@]}"
    "${pip[@]}" check
else
    # uv reads no setting of pip's; an index of one's own has to be handed on.
    if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX=$PIP_INDEX_URL; fi
    "${pip[@]}" install "${quiet[@]}" -c "$constraints" uv
    uv=("$venv/bin/python" -m uv --quiet --no-progress pip)
    "${uv[@]}" install --python "$venv/bin/python" --compile-bytecode -r "$constraints"
    "${uv[@]}" install --python "$venv/bin/python" --no-deps --no-build-isolation "${project[@]}"
    "${uv[@]}" check --python "$venv/bin/python"
fi
echo "setup: $venv is ready ($("$venv/bin/python" --version))" >&2
