#!/usr/bin/env bash
# Figure 7: time of the inference methods. The text names neither data nor hardware and the paper prints no numbers. Ours is
# Qwen2.5-3B-Instruct on the first 100 problems of Math-500, on one GPU with nothing else on it: 16 answers a problem, one for beam search.
# GPU model, hours and memory of the rows: not measured.
# Usage: bash benchmark/tables/figure_7.sh [--dry-run] [--rows REGEX]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

model="--model Qwen/Qwen2.5-3B-Instruct"
test="--dataset math500 --limit 100"

figure() {
    echo "# figure_7_plain"
    echo "mkdir -p $out/figure_7"
    echo "nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader --id=0 >$out/figure_7/hardware.txt"
    echo "python -m common.evaluate $model $test --n 16 --output-dir $out/figure_7/plain_T1"
    echo "# figure_7_beam"
    echo "python beam_eval.py $model --num-beams 4 --length-penalty 0 --rule vllm-0.11 $test --output-dir $out/figure_7"
    for mode in exact mh-llm-signfix; do
        echo "# figure_7_power_$mode needs figure_7_plain"
        echo "python power_sampling.py $model --alpha 4 --mode $mode --num-moves 10 $test --n 16 --output-dir $out/figure_7"
    done
}

figure | run "" "$@"
