#!/usr/bin/env bash
# Make the virtual environment that dev/chaos.py needs for CeleryExecutor, and install Debian's Redis where it is missing.
#
# usage: dev/celery.sh VENV        (PYTHON: the interpreter, python3 unless set)
#
# An environment of its own, so that no other test sees Celery's packages. constraints/celery.txt has what Airflow's
# Celery provider needs beyond constraints/airflow-3.3.txt; `uv pip compile` writes it.
set -euo pipefail

venv=$1
cd "$(dirname "$0")/.."

if ! command -v redis-server >/dev/null; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "celery: install redis-server first; only root can do it here" >&2
        exit 1
    fi
    apt-get update -qq
    # RUNLEVEL=1: the package must not start a server of its own.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server >/dev/null
fi
dev/setup.sh "$venv" constraints/airflow-3.3.txt
# uv reads no setting of pip's; an index of one's own has to be handed on.
if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX=$PIP_INDEX_URL; fi
"$venv/bin/python" -m uv --quiet --no-progress pip install --python "$venv/bin/python" --compile-bytecode \
    -r constraints/celery.txt -c constraints/airflow-3.3.txt
