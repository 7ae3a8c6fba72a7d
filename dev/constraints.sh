#!/usr/bin/env bash
# Write constraints/airflow-LINE.txt: every package of one Airflow line, at one version each; for the line "dist",
# constraints/dist.txt, with the tools of `make dist`; for "docs", constraints/docs.txt, with those of `make docs` and
# the Airflow that the package is imported with there.
#
# usage: dev/constraints.sh UV LINE [option for uv, such as --upgrade]
#
# Pins that still fit are kept, so the diff shows only what changed. One file serves Python 3.10 to 3.13:
# where those need different versions, the line carries a marker, which pip reads as well.
set -euo pipefail

uv=$1 line=$2 options=("${@:3}")
cd "$(dirname "$0")/.."

compile() {  # FILE GROUP [source]
    "$uv" pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header "${options[@]}" \
        --output-file "constraints/$1" --group "$2" "${@:3}" >/dev/null
    echo "constraints/$1: $(grep -c == "constraints/$1") pins" >&2
}

# Bumped by hand: a new Airflow is a decision, not a side effect of compiling.
case $line in
    3.3 | docs) airflow=3.3.2 ;;
    3.1) airflow=3.1.8 ;;
    dist) ;;
    *) echo "no Airflow release chosen for line $line: add it to dev/constraints.sh" >&2; exit 2 ;;
esac

if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX=$PIP_INDEX_URL; fi

if [ "$line" = dist ]; then
    compile dist.txt dist
elif [ "$line" = docs ]; then
    echo "apache-airflow==$airflow" | compile docs.txt docs pyproject.toml -
else
    echo "apache-airflow==$airflow" | compile "airflow-$line.txt" dev pyproject.toml -
fi
