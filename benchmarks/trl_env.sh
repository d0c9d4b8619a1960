#!/usr/bin/env bash
# Make the environment that benchmarks/trl_step.py runs TRL in (about 1.5 GB):
#   benchmarks/trl_env.sh [FOLDER]        default: .venv-trl beside the repository's .venv
# TORCH_INDEX=<PyTorch's CPU wheel index> takes the much smaller CPU build of torch on Linux.
set -euo pipefail
folder=${1:-"$(dirname "$(dirname "$(realpath "$0")")")/.venv-trl"}
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0
"$folder/bin/pip" install --quiet trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 datasets==5.2.0
echo "$folder"
