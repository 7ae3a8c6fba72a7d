#!/usr/bin/env bash
# Every check of the source that runs nothing of it. All of them run, then one exit status.
#
# usage: PY=.venv/bin/python dev/lint.sh
set -uo pipefail

cd "$(dirname "$0")/.."
failed=()
check() {
    "$PY" -m "$@" || failed+=("$*")
}

check ruff check .
check ruff format --check .
check mypy
check interrogate --quiet pacifica_provider tests
if [ -f .pre-commit-config.yaml ] && git rev-parse --git-dir >/dev/null 2>&1; then
    # Its hooks are local ones; they call the tools by name, so the environment comes first in PATH.
    PATH="$(cd "$(dirname "$PY")" && pwd):$PATH" check pre_commit run --all-files
fi

if [ ${#failed[@]} -gt 0 ]; then
    printf 'lint: failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "lint: all checks passed"
