#!/usr/bin/env bash
# Write constraints/airflow-LINE.txt: every package of one Airflow line, at one version each; for the line "dist",
# constraints/dist.txt, with the tools of `make dist`; for "docs", constraints/docs.txt, with those of `make docs` and
# the Airflow that the package is imported with there.
#
# usage: dev/constraints.sh UV LINE [option for uv, such as --upgrade]
#
# A LINE of two numbers is that line's newest release, one of three is that release: see dev/matrix.py.
# Pins that still fit are kept, so the diff shows only what changed. One file serves Python 3.11 to 3.13:
# where those need different versions, the line carries a marker, which pip reads as well.
set -euo pipefail

uv=$1 line=$2 options=("${@:3}")
cd "$(dirname "$0")/.."

if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX=$PIP_INDEX_URL; fi

compile() {  # option or source of uv's …
    "$uv" pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header "$@"
}

keep() {  # FILE, option or source of uv's …
    compile "${options[@]}" --output-file "constraints/$1" "${@:2}" >/dev/null
    echo "constraints/$1: $(grep -c == "constraints/$1") pins" >&2
}

# Bumped by hand: a new Airflow is a decision, not a side effect of compiling. Behind it are pins for its own sake:
# without them it does not start with what is newest today.
case $line in
    3.1.3) pins=(apache-airflow==3.1.3 structlog==25.4.0 pyjwt==2.10.1) ;;
    3.1) pins=(apache-airflow==3.1.8) ;;
    3.2) pins=(apache-airflow==3.2.2 fastapi==0.136.3 cadwyn==7.0.0) ;;
    3.3.0) pins=(apache-airflow==3.3.0) ;;
    3.3) pins=(apache-airflow==3.3.2) ;;
    3.4) # The newest there is, while that is no release: `make matrix` asks as well.
        newest=$(echo "apache-airflow>=3.4.0a0,<3.5" |
            "$uv" pip compile --quiet --no-deps --prerelease allow --no-header --no-annotate -)
        pins=("$newest" "apache-airflow-core${newest#apache-airflow}" "apache-airflow-task-sdk>=1.4.0a0")
        ;;
    dist) keep dist.txt --group dist; exit ;;
    docs) echo apache-airflow==3.3.2 | keep docs.txt --group docs pyproject.toml -; exit ;;
    *) echo "no Airflow release chosen for line $line: add it to dev/constraints.sh" >&2; exit 2 ;;
esac

floors=()
if [ "$line" = 3.1.3 ]; then
    # The oldest Airflow has each of our dependencies at the floor that pyproject.toml declares.
    lowest=$(mktemp)
    trap 'rm -f "$lowest"' EXIT
    printf '%s\n' "${pins[@]}" | compile --resolution lowest-direct pyproject.toml - >"$lowest"
    floors=(--constraint "$lowest")
fi
printf '%s\n' "${pins[@]}" | keep "airflow-$line.txt" --group dev "${floors[@]}" pyproject.toml -
