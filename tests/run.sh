#!/usr/bin/env bash
# Sets everything up in .venv, then checks the code and runs the tests.
# Usage: bash tests/run.sh [long] [pytest arguments]      long: the long forms too
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash benchmark/setup.sh tests

marks=(-m "not long")
if [ "${1-}" = long ]; then marks=() && shift; fi

# One thread a process: vLLM's and torch's threads spin against one another on few cores. Nothing is fetched, nothing is reported.
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
export VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1
if ! nvidia-smi >/dev/null 2>&1; then export TORCHDYNAMO_DISABLE=1; fi # on a CPU, vLLM would compile for 14 s

.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy
exec .venv/bin/python -m pytest "${marks[@]}" "$@"
