#!/usr/bin/env bash
# Figure 7: time of inference methods. The text names neither data nor hardware; ours is Qwen/Qwen2.5-3B-Instruct on the first 100 problems of
# Math-500, one GPU, nothing else on it: 16 answers a problem, one for beam search. The paper prints no numbers.
# GPU model, hours and memory of every row: not measured.
# Usage: bash benchmark/tables/figure_7.sh [--dry-run] [--rows REGEX]     see benchmark/tables/rows.sh
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

row figure_7_plain <<'EOF'
mkdir -p runs/paper/figure_7
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader --id=0 >runs/paper/figure_7/hardware.txt
python -m common.evaluate --model Qwen/Qwen2.5-3B-Instruct --dataset math500 --limit 100 --n 16 --output-dir runs/paper/figure_7/plain_T1
EOF

row figure_7_beam <<'EOF'
python beam_eval.py --model Qwen/Qwen2.5-3B-Instruct --num-beams 4 --length-penalty 0 --rule vllm-0.11 --dataset math500 --limit 100 \
    --output-dir runs/paper/figure_7
EOF

row figure_7_power_exact needs figure_7_plain <<'EOF'
python power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 4 --mode exact --num-moves 10 --dataset math500 --limit 100 --n 16 \
    --output-dir runs/paper/figure_7
EOF

row figure_7_power_mh-llm-signfix needs figure_7_plain <<'EOF'
python power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 4 --mode mh-llm-signfix --num-moves 10 --dataset math500 --limit 100 --n 16 \
    --output-dir runs/paper/figure_7
EOF

finish
