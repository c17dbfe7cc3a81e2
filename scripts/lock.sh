#!/bin/sh
# Resolve the locks anew from pyproject.toml; `make lock` calls this.
#
#     sh scripts/lock.sh [--find-links FOLDER …]
set -eu
cd "$(dirname "$0")/.."

# The local part (+cpu) names one builder's wheel; without it a lock installs elsewhere too.
compile() { # $1: lock; $2: what is wanted; the rest: options of uv
    lock=locks/$1.txt wanted=$2
    shift 2
    .venv/bin/python -m uv pip compile "$wanted" --override locks/overrides.txt \
        --python-version 3.11 --no-header --no-annotate --quiet "$@" | sed 's/+cpu$//' >"$lock.new"
    mv "$lock.new" "$lock"
}

# A laptop has no use for what only servers need (the extras airflow and mlflow).
compile laptop pyproject.toml --extra library --extra annotate --extra train --extra orchestrate \
    --extra dev "$@"
for image in data annotate train airflow mlflow; do
    compile "$image" pyproject.toml --extra "$image" --constraint locks/laptop.txt "$@"
done
compile sbom images/sbom.in
# With GPUs: the torch of PyPI, and the CUDA libraries that it pins.
grep '^torch==' locks/laptop.txt | compile cuda - --python-platform x86_64-manylinux_2_28 \
    --constraint locks/laptop.txt
sh demo/vllm/lock.sh "$@"
