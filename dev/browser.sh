#!/usr/bin/env bash
# Install what tests/lab/browser needs beside the virtual environment: Debian's Chromium, and what drives it.
#
# usage: dev/browser.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v chromium >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
fi
# uv reads no setting of pip's; an index of one's own has to be handed on.
if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX=$PIP_INDEX_URL; fi
"$1" -m uv --quiet --no-progress pip install --python "$1" -r constraints/browser.txt -c constraints/airflow-3.3.txt
