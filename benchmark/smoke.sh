#!/usr/bin/env bash
# Does everything work here? One tiny run of each of the five scripts and of their evaluation on the built-in miniature, several rows in
# one process, and a report page; through vLLM where there is a GPU. Minutes on any machine; nothing is downloaded except packages.
# Usage: bash benchmark/smoke.sh [--dry-run]     says "smoke: all is well", or which rows failed and where their logs are
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
dry_run=
case "${1-}" in "") ;; --dry-run) dry_run=--dry-run ;; *) echo "$0: unknown argument '$1': use --dry-run" >&2 && exit 2 ;; esac
[ "$dry_run" ] || bash benchmark/setup.sh
export PATH=$PWD/.venv/bin:$PATH TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1
if ! nvidia-smi >/dev/null 2>&1; then export OMP_NUM_THREADS=1; fi

out=runs/smoke-$(date +%Y%m%d-%H%M%S)
training="--model toy --dataset toy --max-total-tokens 64 --num-steps 2 --num-problems 4 --validation-size 4"
test="--dataset toy_test --max-total-tokens 64 --limit 4"

train() { # NAME SCRIPT ARGUMENTS...
    echo "# $1"
    echo "python ${*:2} $training --exp-name $1 --output-dir $out"
    echo "python -m common.evaluate --run $out/$1__* --checkpoint last $test --n 2"
}

each_in_its_own_process() {
    train task rloo_task.py
    train sharpen rloo_sharpen.py
    train tilted rloo_tilted.py --alpha 2 --beta 0.1
    echo "# power"
    echo "python power_sampling.py --model toy $test --n 2 --alpha 2 --num-moves 2 --output-dir $out/results"
    echo "# beam"
    echo "python beam_eval.py --model toy $test --num-beams 2 --output-dir $out/results"
}

in_one_process() {
    train fixed rloo_task.py --fixed-length
    echo "# base"
    echo "python -m common.evaluate --model toy $test --n 2 --output-dir $out/results/base"
}

report() {
    echo "# report"
    echo "python -m benchmark.tables.report $out --tables"
}

failed=0
each_in_its_own_process | python3 -m benchmark.run_rows --folder "$out" $dry_run || failed=1
[ ! "$dry_run" ] || echo
in_one_process | python3 -m benchmark.run_rows --folder "$out" --in-process 1 $dry_run || failed=1
[ ! "$dry_run" ] || echo
report | python3 -m benchmark.run_rows --folder "$out" $dry_run || failed=1
[ ! "$dry_run" ] || exit 0
if [ $failed = 1 ]; then echo "smoke: not all is well, see above" >&2 && exit 1; fi
echo "smoke: all is well; the page is $out/report/report.html"
