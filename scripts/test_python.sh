#!/usr/bin/env bash
# Run the tests of the library and of the steps with a newer Python than this machine has: Debian
# trixie's 3.13, in a folder below .cache/python, with the packages of locks/laptop.txt.
#
#     scripts/test_python.sh [arguments of pytest]      needs root and mmdebstrap; `make test-python`
#
# The first time it fetches Debian's packages and, unless a CPU build of torch can be had, torch's
# CUDA libraries: about 6 GB, and a quarter of an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly repository=$PWD
readonly base=$repository/.cache/python/trixie
readonly environment=.cache/python/venv-3.13
readonly left_out=(orchestration images vllm peers)

if [ ! -e "$base/.complete" ]; then
    rm -rf "$base"
    mkdir -p "$(dirname "$base")"
    mmdebstrap --quiet --variant=minbase --dpkgopt='path-exclude=/usr/share/man/*' \
        --include=python3,python3-venv,ca-certificates,git,libgomp1,procps trixie "$base"
    touch "$base/.complete"
fi

# A mount namespace of its own: whatever is mounted here is gone with the process.
# shellcheck disable=SC2016
exec unshare --mount bash -euo pipefail -c '
    repository=$1 base=$2
    shift 2
    show() { # $1: a folder or file of this machine, at the same place inside
        [ -e "$1" ] || return 0
        if [ -d "$1" ]; then mkdir -p "$base$1"; else mkdir -p "$(dirname "$base$1")"; touch "$base$1"; fi
        mount --rbind "$1" "$base$1"
    }
    for path in "$repository" /proc /dev /sys /etc/resolv.conf /etc/hosts /etc/ssl/certs \
        /etc/pip.conf /etc/xdg/pip "$HOME/.config/pip" "$HOME/.cache/uv" ${PIP_FIND_LINKS:-}; do
        show "$path"
    done
    exec chroot "$base" env PATH=/usr/bin:/bin bash -euo pipefail -c "$@"
' - "$repository" "$base" '
    repository=$1 environment=$2 left_out=$3
    shift 3
    cd "$repository"
    install() { python3 scripts/install.py --venv "$environment" --lock locks/laptop.txt "$@"; }
    if ! "$environment/bin/python" -c "import torch" 2>/dev/null || ! install; then
        # No CPU build for this Python: the one of the index, with the libraries it pins.
        TORCH_BACKEND="" install
        "$environment/bin/python" -m uv pip install --python "$environment/bin/python" \
            --constraint locks/laptop.txt torch
    fi
    export GX_ANALYTICS_ENABLED=false DVC_NO_ANALYTICS=true DO_NOT_TRACK=1 PYTHONUTF8=1
    export PIXCLIP_HOME=$repository
    ignored=()
    for name in $left_out; do ignored+=("--ignore=tests/$name"); done
    exec "$environment/bin/python" -m pytest -n 2 --dist loadfile "${ignored[@]}" \
        -m "not vllm and not gpu and not peers and not docker and not slow" "$@"
' - "$repository" "$environment" "${left_out[*]}" "$@"
