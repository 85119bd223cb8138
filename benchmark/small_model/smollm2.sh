#!/usr/bin/env bash
# A small real model on real problems that it can partly solve: SmolLM2-135M-Instruct with two worked examples, on one-step word problems
# of ASDiv and MAWPS with numbers up to 20. The rows are the paper's 14 training rows at variable length and 4 at fixed length, 60 steps
# each, in one process with one engine, and plain sampling, power sampling and beam search without training. Meant for an hour of one
# GPU; neither time nor memory has been measured. Base, from a 4-bit copy of the weights on 16 test problems x 4: 3.1 ± 2.1 % right at
# T = 1, 23.4 ± 5.6 % at T = 1/2. Learning rate, warm-up and window are ours, for a model this small; everything else is the paper's.
# Usage: bash benchmark/small_model/smollm2.sh [--dry-run] [--rows REGEX] [OUTPUT]
#     --dry-run      prints the commands of the rows and runs nothing
#     --rows REGEX   only rows whose name matches
#     MODEL=...      a folder with the model (default: from the hub)
#     DATA=...       a folder with small_{train,validation,test}.jsonl (default: OUTPUT/data, made by benchmark/small_model/data.py)
# The result is OUTPUT/report/ (default runs/small/report/).
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
[ "$dry_run" ] || bash benchmark/setup.sh
export PATH=$PWD/.venv/bin:$PATH TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_PROGRESS_BARS=1

model="--model ${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct}"
data=${DATA:-$out/data}
prompt="--prompt-file common/prompts/bare.txt --examples-file common/prompts/two_shot.jsonl" # about 190 tokens, at most 220
window="--max-total-tokens 288 $prompt"
test="--dataset $data/small_test.jsonl $window"
training="--dataset $data/small_train.jsonl --validation-dataset $data/small_validation.jsonl $window"
training+=" --num-steps 60 --learning-rate 1e-5 --warmup-steps 6"

plain() { # TEMPERATURE
    echo "# plain_T$1"
    echo "python -m common.evaluate $model $test --n 16 --temperature $1 --output-dir $out/results/plain_T$1"
}

train() { # NAME SCRIPT ARGUMENTS...    a training run, then its last and its best checkpoint
    echo "# $1"
    echo "python ${*:2} $model $training --exp-name $1 --output-dir $out"
    echo "python -m common.evaluate --run $out/$1__* --checkpoint last best_held_out $test --n 16"
}

power() { # ALPHA
    for mode in exact mh-llm-signfix; do
        echo "# power_${mode}_alpha$1"
        echo "python power_sampling.py $model $test --n 16 --alpha $1 --mode $mode --num-moves 10 --output-dir $out/results"
    done
}

shared_engine() {
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

own_engine() {
    power 2
    power 4
    echo "# beam4"
    echo "python beam_eval.py $model $test --num-beams 4 --length-penalty 0 1 --rule vllm-0.11 --output-dir $out/results"
}

run() { # ARGUMENTS...
    python3 -m benchmark.run_rows --folder "$out" --part --rows "$rows" $dry_run "$@"
}

failed=0
if [ ! "$dry_run" ] && [ ! "${DATA:-}" ]; then python -m benchmark.small_model.data "$data"; fi
shared_engine | run --in-process 1 || failed=1
[ ! "$dry_run" ] || echo
own_engine | run || failed=1
[ "$dry_run" ] || python -m benchmark.tables.report "$out" --tables || failed=1
exit $failed
