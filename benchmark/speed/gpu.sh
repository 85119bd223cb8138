#!/usr/bin/env bash
# Takes every figure that needs a GPU, in order of worth: the project's GPU tests, a training step beside TRL's, its variants, LoRA as a
# 24 GB card would run it, Qwen3-4B at 4096, power sampling and beam search on a model of the 3B shape.
#
#     bash benchmark/speed/gpu.sh [--dry-run] [--rows REGEX] [--python PATH] [FOLDER]
#     --dry-run        prints the commands; installs and runs nothing
#     --rows REGEX     only parts whose name matches
#     --python PATH    uses this Python with the packages it has, instead of setting up .venv and .venv-trl. A part whose packages are
#                      missing there is skipped, with the reason. torch 2.11, transformers 5.17 and vLLM 0.26 are meant to work too.
#     TRL_PYTHON=PATH  a Python with TRL and the vLLM it wants (default: that of --python, else .venv-trl, which is made)
#     FOLDER           where the results go (default results/gpu): steps are added to FOLDER/throughput.md
#
# One 80 GB card and 15 GB of disk; the limits of the parts add up to 110 minutes. Models have random weights and are made on the spot:
# nothing is downloaded except packages. A part that fails does not stop the others, and a part that is complete is not run again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

dry_run= rows=. python= out=results/gpu
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry_run=--dry-run && shift ;;
    --rows) rows=${2:?--rows needs a regular expression} && shift 2 ;;
    --python) python=${2:?--python needs the path of a Python} && shift 2 ;;
    -*) echo "$0: unknown argument '$1': use --dry-run, --rows REGEX, --python PATH, FOLDER" >&2 && exit 2 ;;
    *) out=$1 && shift ;;
    esac
done
trl_python=${TRL_PYTHON:-${python:-.venv-trl/bin/python}}

if [ ! "$dry_run" ]; then
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
    if [ ! "$python" ]; then
        bash benchmark/setup.sh tests
        if [ ! -x "$trl_python" ]; then
            python3 -m venv .venv-trl && .venv-trl/bin/python -m pip install -q "trl[vllm]==1.16.0"
        fi
    fi
fi
export PATH=$PWD/.venv/bin:$PATH OMP_NUM_THREADS=4 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1
export VLLM_NO_USAGE_STATS=1
python=${python:-python3}
ours="torch transformers tokenizers tyro tensorboard math_verify numpy"

missing() { # PYTHON PACKAGES...    prints the packages that it does not have
    "$1" -c 'import importlib.util as u, sys; print(*[p for p in sys.argv[1:] if u.find_spec(p) is None])' "${@:2}"
}

part() { # NAME MINUTES "PACKAGES" ARGUMENTS...    a row: python ARGUMENTS with a limit, if the packages are there
    local lacking=
    [ "$dry_run" ] || lacking=$(missing "$python" $3)
    [ "$dry_run" ] || [ "$1" != step_trl ] || lacking+=$(missing "$trl_python" trl torch transformers)
    if [ "$lacking" ]; then echo "$1: skipped, these packages are not installed: $lacking" >&2 && return; fi
    echo "# $1"
    echo "timeout -s INT -k 30 $2m $python ${*:4}" # INT: pytest still reports what has failed so far
}

parts() {
    local results="--results $out/throughput.md" engine="$ours vllm"
    local shape="--shape qwen2.5-3b --model $out/qwen2.5-3b --prompt 118"
    local step="-m benchmark.speed.throughput $shape --response 512 --batch 256 --steps 4 $results"

    part model 3 "$ours" -m benchmark.speed.random_model qwen2.5-3b "$out/qwen2.5-3b"
    part tests 15 "$engine pytest" -m pytest tests/common/test_gpu.py -q -rs
    part step 6 "$engine" $step --gpu-memory-utilization 0.25
    part step_trl 12 "$engine" $step --gpu-memory-utilization 0.25 --trl --trl-python "$trl_python"
    part lognormal 6 "$engine" -m benchmark.speed.throughput $shape --response 400 --lognormal --batch 256 --steps 4 $results
    part lora_24gb 6 "$engine peft" $step --lora-rank 16 --gpu-memory-utilization 0.125
    part 4b_4096 10 "$engine" -m benchmark.speed.throughput --shape qwen3-4b --prompt 118 --response 3978 --batch 64 --steps 1 \
        --moments-on-host $results
    part 3b_2048 8 "$engine" -m benchmark.speed.throughput $shape --response 1930 --batch 256 --steps 1 $results
    part lockstep 10 "$engine" -m benchmark.speed.lockstep --model "$out/qwen2.5-3b" --dataset toy_test --max-total-tokens 640
    part beam 10 "$engine" -m benchmark.speed.beams --model "$out/qwen2.5-3b" --dataset toy_test --max-total-tokens 640
    # What makes the step faster, or might: layers compiled or not, nothing recomputed, larger or smaller passes.
    part no_checkpoints 6 "$engine" $step --moments-on-host --no-checkpoint-activations --microbatch-tokens 5040
    part not_compiled 6 "$engine" $step --gpu-memory-utilization 0.25 --no-compile-layers
    part large_passes 6 "$engine" $step --gpu-memory-utilization 0.25 --microbatch-tokens 32768
    part small_passes 6 "$engine" $step --gpu-memory-utilization 0.25 --microbatch-tokens 8192
}

figures="^(step [0-9.]+ s|tokens/s|MFU|memory:|torch:|tail|TRL|ours|lockstep|LLM.beam|[0-9]+ passed|.*failed)"
parts | "$python" -m benchmark.run_rows --folder "$out" --rows "$rows" --show "$figures" $dry_run
