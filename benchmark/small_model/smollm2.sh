#!/usr/bin/env bash
# A small real model on real problems that it can partly solve: SmolLM2-135M-Instruct with two worked examples, on one-step word
# problems of ASDiv and MAWPS with numbers up to 20. The paper's 14 training rows at variable length and 4 at fixed length, 60 steps each,
# in one process with one engine; Base, plain sampling, power sampling and beam search beside them. Sized for an hour of one GPU; neither
# time nor memory was measured. Base, of a 4-bit copy of the weights, 16 test problems x 4: 3.1 ± 2.1 % right, 23.4 ± 5.6 % at T = 1/2.
# Usage: bash benchmark/small_model/smollm2.sh [--dry-run] [--rows REGEX] [OUTPUT]
#     --dry-run      prints the rows' commands and runs nothing
#     --rows REGEX   only rows whose name matches
#     MODEL=...      a folder with the model, default: from the hub
#     DATA=...       a folder with small_{train,validation,test}.jsonl, default: made in OUTPUT/data by benchmark/small_model/data.py
# It ends with OUTPUT/report/ (default runs/small/report/). A row that has its results is skipped; one that was stopped begins anew.
# Learning rate, warm-up and window are ours, for a model this small and 60 steps; all else is the paper's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
dry_run= rows=. out=runs/small
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry_run=--dry-run && shift ;;
    --rows) rows=${2:?--rows needs a regular expression} && shift 2 ;;
    -*) echo "$0: unknown argument '$1': use --dry-run, --rows REGEX, OUTPUT" >&2 && exit 2 ;;
    *) out=$1 && shift ;;
    esac
done
bash benchmark/setup.sh
export PATH=$PWD/.venv/bin:$PATH TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_PROGRESS_BARS=1

model="--model ${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct}"
data=${DATA:-$out/data}
prompt="--prompt-file common/prompts/bare.txt --examples-file common/prompts/two_shot.jsonl" # about 190 tokens, at most 220
window="--max-total-tokens 288 $prompt"
test="--dataset $data/small_test.jsonl $window"
training="--dataset $data/small_train.jsonl --validation-dataset $data/small_validation.jsonl $window
    --num-steps 60 --learning-rate 1e-5 --warmup-steps 6"

train() { # NAME SCRIPT ARGUMENTS...    a run, then its last and its best checkpoint
    echo "# $1"
    echo python "${@:2}" $model $training --exp-name $1 --output-dir $out
    echo python -m common.evaluate --model "$out/$1__*/checkpoints/step_000060" $test --n 16
    echo python -m common.evaluate --model "$out/$1__*/checkpoints/best_honest.json" $test --n 16
}

plain_rows() {
    for temperature in 1 0.8 0.5 0.25; do
        echo "# plain_T$temperature"
        echo python -m common.evaluate $model $test --n 16 --temperature $temperature --output-dir $out/results/plain_T$temperature
    done
}

variable_rows() {
    train task rloo_task.py
    train sharpen rloo_sharpen.py
    for alpha in 1 1.25 2 4; do
        for beta in inf 1e-2 1e-4; do
            train tilted_alpha${alpha}_beta$beta rloo_tilted.py --alpha $alpha --beta $beta
        done
    done
}

fixed_rows() {
    train fixed_task rloo_task.py --fixed-length
    train fixed_sharpen rloo_sharpen.py --fixed-length
    train fixed_tilted_alpha2_betainf rloo_tilted.py --alpha 2 --beta inf --fixed-length
    train fixed_tilted_alpha2_beta1e-2 rloo_tilted.py --alpha 2 --beta 1e-2 --fixed-length
}

power_rows() {
    for alpha in 2 4; do
        for mode in exact mh-llm-signfix; do
            echo "# power_${mode}_alpha$alpha"
            echo python power_sampling.py $model $test --n 16 --alpha $alpha --mode $mode --num-moves 10 --output-dir $out/results
        done
    done
}

beam_rows() {
    echo "# beam4"
    echo python beam_eval.py $model $test --num-beams 4 --length-penalty 0 1 --rule vllm-0.11 --output-dir $out/results
}

together() { python -m benchmark.run_rows --folder "$out" --rows "$rows" $dry_run || failed=1; }

failed=0
if [ ! "$dry_run" ] && [ ! "${DATA:-}" ]; then python -m benchmark.small_model.data "$data"; fi
{ plain_rows && variable_rows && fixed_rows; } | together
power_rows | together # each with an engine of its own kind
beam_rows | together
if [ ! "$dry_run" ]; then python -m benchmark.tables.report "$out" --tables; fi
exit $failed
