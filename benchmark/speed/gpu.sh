#!/usr/bin/env bash
# Takes every figure that only a GPU can give, in order of worth: the project's GPU tests, a training step beside TRL's, its variants,
# LoRA as a 24 GB card would run it, Qwen3-4B at 4096, power sampling and beam search in the shape of a 3B model.
#
#     bash benchmark/speed/gpu.sh [FOLDER]            (default results/gpu; one 80 GB card, 15 GB of disk; the limits add up to 110 minutes)
#     bash benchmark/speed/gpu.sh --dry-run           prints the commands
#     TRL_PYTHON=/path/to/python bash benchmark/speed/gpu.sh
#
# Models have random weights and are made on the spot: nothing is downloaded but packages. Each part has a time limit and leaves its
# output in FOLDER/<part>.txt; a part that fails does not stop the others, and one that has ended well is not run again, so one that
# was cut off goes on where it was. Steps are added to FOLDER/throughput.md. TRL wants a vLLM of its own choice: unless TRL_PYTHON names a
# Python that has both, .venv-trl is made for it.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

dry=
if [ "${1-}" = --dry-run ]; then dry=yes && shift; fi
out=${1:-results/gpu}
trl_python=${TRL_PYTHON:-.venv-trl/bin/python}

part() { # part NAME MINUTES COMMAND...
    local name=$1 minutes=$2
    shift 2
    if [ "$dry" ]; then echo "timeout ${minutes}m $*" && return; fi
    if grep -qs "^ended well$" "$out/$name.txt"; then echo "$name: done before" && return; fi
    echo "$(date +%H:%M:%S) $name: $*"
    if timeout -k 30 "${minutes}m" "$@" >"$out/$name.txt" 2>&1; then
        echo "ended well" >>"$out/$name.txt"
    else
        echo "$name: exit code $?, see $out/$name.txt"
    fi
    grep -E "^(step [0-9.]+ s|tokens/s|MFU|memory:|torch:|tail|TRL|ours|lockstep|LLM.beam|[0-9]+ passed|.*failed)" "$out/$name.txt"
}

if [ ! "$dry" ]; then
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv || exit 1
    bash benchmark/setup.sh tests || exit 1
    mkdir -p "$out"
    if [ ! -x "$trl_python" ]; then
        python3 -m venv .venv-trl && .venv-trl/bin/python -m pip install -q "trl[vllm]==1.16.0"
    fi
fi
export PATH=$PWD/.venv/bin:$PATH OMP_NUM_THREADS=4 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1
export VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_LOGGING_LEVEL=WARNING VLLM_NO_USAGE_STATS=1

# The model once, for all that have its shape.
part model 3 python -m benchmark.speed.random_model qwen2.5-3b "$out/qwen2.5-3b"
results="--results $out/throughput.md"
shape="--shape qwen2.5-3b --model $out/qwen2.5-3b --prompt 118"
step="$shape --response 512 --batch 256 --steps 4 $results"

part tests 15 python -m pytest tests/common/test_gpu.py -q -rs
part step 6 python -m benchmark.speed.throughput $step --gpu-memory-utilization 0.25
part step_trl 12 python -m benchmark.speed.throughput $step --gpu-memory-utilization 0.25 --trl --trl-python "$trl_python"
part lognormal 6 python -m benchmark.speed.throughput $shape --response 400 --lognormal --batch 256 --steps 4 $results
part lora_24gb 6 python -m benchmark.speed.throughput $step --lora-rank 16 --gpu-memory-utilization 0.125
part 4b_4096 10 python -m benchmark.speed.throughput --shape qwen3-4b --prompt 118 --response 3978 --batch 64 --steps 1 --moments-on-host $results
part 3b_2048 8 python -m benchmark.speed.throughput $shape --response 1930 --batch 256 --steps 1 $results
part lockstep 10 python -m benchmark.speed.lockstep --model "$out/qwen2.5-3b" --dataset toy_test --max-total-tokens 640
part beam 10 python -m benchmark.speed.beams --model "$out/qwen2.5-3b" --dataset toy_test --max-total-tokens 640

# What makes the step faster, or might: layers compiled or not, nothing recomputed, larger or smaller passes.
part no_checkpoints 6 python -m benchmark.speed.throughput $step --moments-on-host --no-checkpoint-activations --microbatch-tokens 5040
part not_compiled 6 python -m benchmark.speed.throughput $step --gpu-memory-utilization 0.25 --no-compile-layers
part large_passes 6 python -m benchmark.speed.throughput $step --gpu-memory-utilization 0.25 --microbatch-tokens 32768
part small_passes 6 python -m benchmark.speed.throughput $step --gpu-memory-utilization 0.25 --microbatch-tokens 8192
