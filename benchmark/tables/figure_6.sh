#!/usr/bin/env bash
# Figure 6: Pass@k of Qwen/Qwen3-4B-Instruct-2507. The paper's curves need no runs of their own: k = 1 to 16 comes from the rows of Tables 11
# and 12. Ours beside them: 256 samples a problem of Base and of the same checkpoints, to see whether the curves cross.
# GPU model, hours and memory of every row: not measured.
# Usage: bash benchmark/tables/figure_6.sh [--dry-run] [--rows REGEX]     see benchmark/tables/rows.sh
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

link qwen3-4b_base table_11_12.sh
link qwen3-4b_power_mh-llm-signfix_alpha4 table_11_12.sh
link qwen3-4b_variable_task table_11_12.sh
link qwen3-4b_variable_sharpen table_11_12.sh

# ours
row figure_6_qwen3-4b_base <<'EOF'
torchrun --nproc-per-node gpu -m -- common.evaluate --model Qwen/Qwen3-4B-Instruct-2507 --dataset aime24 aime25 hmmt25 --n 256 --max-total-tokens 4096 \
    --output-dir runs/paper/qwen3-4b/plain_T1
EOF

# ours
row figure_6_qwen3-4b_variable_task needs qwen3-4b_variable_task <<'EOF'
run=$(echo runs/paper/qwen3-4b_variable_task__*)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 256 --max-total-tokens 4096
EOF

# ours
row figure_6_qwen3-4b_variable_sharpen needs qwen3-4b_variable_sharpen <<'EOF'
run=$(echo runs/paper/qwen3-4b_variable_sharpen__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 256 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 256 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 256 --max-total-tokens 4096
EOF

finish
