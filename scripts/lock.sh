#!/bin/sh
# Resolve the locks anew from pyproject.toml; `make lock` calls this.
#
#     sh scripts/lock.sh [--find-links FOLDER …]
set -eu
cd "$(dirname "$0")/.."

# The local part (+cpu) names one builder's wheel; without it a lock installs elsewhere too.
compile() { # $1: lock; the rest: options of uv
    lock=locks/$1.txt
    shift
    .venv/bin/python -m uv pip compile pyproject.toml --override locks/overrides.txt \
        --python-version 3.11 --no-header --no-annotate --quiet "$@" | sed 's/+cpu$//' >"$lock.new"
    mv "$lock.new" "$lock"
}

compile laptop --all-extras "$@"
for image in data annotate train; do
    compile "$image" --extra "$image" --constraint locks/laptop.txt "$@"
done
sh demo/vllm/lock.sh "$@"
