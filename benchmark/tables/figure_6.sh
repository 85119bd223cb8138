#!/usr/bin/env bash
# Figure 6: Pass@k of Qwen3-4B-Instruct-2507. The paper's curves, k = 1 to 16, come from the rows of table_11_12.sh. The rows here are not
# in the paper: 256 samples a problem of Base and of the same checkpoints, to see whether the curves cross.
# GPU model, hours and memory of the rows: not measured.
# Usage: bash benchmark/tables/figure_6.sh [--dry-run] [--rows REGEX]     after table_11_12.sh, which trains
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

evaluate="$launch -m -- common.evaluate"
test="--dataset aime24 aime25 hmmt25 --n 256 --max-total-tokens 4096"

figure() {
    echo "# figure_6_qwen3-4b_base"
    echo "$evaluate --model Qwen/Qwen3-4B-Instruct-2507 $test --output-dir $out/qwen3-4b/plain_T1"
    echo "# figure_6_qwen3-4b_variable_task needs qwen3-4b_variable_task"
    echo "$evaluate --run $out/qwen3-4b_variable_task__* --checkpoint last $test"
    echo "# figure_6_qwen3-4b_variable_sharpen needs qwen3-4b_variable_sharpen"
    echo "$evaluate --run $out/qwen3-4b_variable_sharpen__* --checkpoint last best_authors best_held_out $test"
}

figure | run "" "$@"
