#!/usr/bin/env bash
# Tables 5 and 6: Qwen/Qwen2.5-3B-Instruct, EOS an ordinary token in training (App. B); last and best checkpoint come from the same runs.
# The paper's numbers above a row are Pass@1, Pass@16 and Maj@16, per cent (beam search: Pass@1). Rows marked "ours" are not in the paper.
# GPU model, hours and memory of every row: not measured.
# The rows that need no training are those of benchmark/tables/table_03_04.sh, which runs them.
# Usage: bash benchmark/tables/table_05_06.sh [--dry-run] [--rows REGEX]     see benchmark/tables/rows.sh
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

# Base (the tables leave the row empty)
link qwen2.5-3b_base table_03_04.sh # runs/paper/qwen2.5-3b/plain_T1

# ours: Plain sampling, T = 0.8, as in the proposals of power sampling at alpha 1.25
link qwen2.5-3b_plain_T0.8 table_03_04.sh # runs/paper/qwen2.5-3b/plain_T0.8

# ours: Plain sampling, T = 0.5, as in the proposals of power sampling at alpha 2
link qwen2.5-3b_plain_T0.5 table_03_04.sh # runs/paper/qwen2.5-3b/plain_T0.5

# ours: Plain sampling, T = 0.25, as in the proposals of power sampling at alpha 4
link qwen2.5-3b_plain_T0.25 table_03_04.sh # runs/paper/qwen2.5-3b/plain_T0.25

# MH-LLM, alpha 1: four readings of the row, the exact one 10 moves of whole answers
# Tables 5, 6: Math-500 47.7 82.9 62.5, Minerva 20.6 46.8 25.6
link qwen2.5-3b_power_mh-llm-signfix_alpha1 table_03_04.sh # runs/paper/qwen2.5-3b
link qwen2.5-3b_power_mh-llm_alpha1 table_03_04.sh # runs/paper/qwen2.5-3b
link qwen2.5-3b_power_karan-du_alpha1 table_03_04.sh # runs/paper/qwen2.5-3b
link qwen2.5-3b_power_exact_alpha1 table_03_04.sh # runs/paper/qwen2.5-3b

# MH-LLM, alpha 2: four readings of the row, the exact one 10 moves of whole answers
# Tables 5, 6: Math-500 64.8 87.1 71.1, Minerva 29.1 43.8 31.7
link qwen2.5-3b_power_mh-llm-signfix_alpha2 table_03_04.sh # runs/paper/qwen2.5-3b
link qwen2.5-3b_power_mh-llm_alpha2 table_03_04.sh # runs/paper/qwen2.5-3b
link qwen2.5-3b_power_karan-du_alpha2 table_03_04.sh # runs/paper/qwen2.5-3b
link qwen2.5-3b_power_exact_alpha2 table_03_04.sh # runs/paper/qwen2.5-3b

# MH-LLM, alpha 4: four readings of the row, the exact one 10 moves of whole answers
# Tables 5, 6: Math-500 65.8 85.5 71.1, Minerva 30.7 44.2 32.2
link qwen2.5-3b_power_mh-llm-signfix_alpha4 table_03_04.sh # runs/paper/qwen2.5-3b
link qwen2.5-3b_power_mh-llm_alpha4 table_03_04.sh # runs/paper/qwen2.5-3b
link qwen2.5-3b_power_karan-du_alpha4 table_03_04.sh # runs/paper/qwen2.5-3b
link qwen2.5-3b_power_exact_alpha4 table_03_04.sh # runs/paper/qwen2.5-3b

# Beam search: the text says length penalty 0, the public harness has 1; one search serves both
# Tables 5, 6: Math-500 69.2, Minerva 24.6
link qwen2.5-3b_beam_vllm-0.11 table_03_04.sh # runs/paper/qwen2.5-3b

# ours: beam search by the rule of transformers
link qwen2.5-3b_beam_transformers table_03_04.sh # runs/paper/qwen2.5-3b

# Task-Reward
# Table 5, last: Math-500 65.8 89.4 70.8, Minerva 26.7 46.2 29.4
# Table 6, best: Math-500 65.8 90.4 70.7, Minerva 26.9 49.0 28.2
row qwen2.5-3b_fixed_task <<'EOF'
torchrun --nproc-per-node gpu rloo_task.py --model Qwen/Qwen2.5-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_fixed_task --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_fixed_task__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Dist. Sharpen
# Table 5, last: Math-500 60.0 79.6 63.5, Minerva 24.6 43.1 26.5
# Table 6, best: Math-500 63.1 87.2 68.9, Minerva 26.1 47.9 28.7
row qwen2.5-3b_fixed_sharpen <<'EOF'
torchrun --nproc-per-node gpu rloo_sharpen.py --model Qwen/Qwen2.5-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_fixed_sharpen --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_fixed_sharpen__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1, beta inf
# Tables 5, 6: Math-500 58.3 87.5 66.3, Minerva 23.0 47.8 27.2
# The numbers of Base, whose law is the optimum; no run of its own.
link qwen2.5-3b_base table_03_04.sh # runs/paper/qwen2.5-3b/plain_T1

# Tilted Sampling, alpha 1, beta 1e-2
# Table 5, last: Math-500 60.9 89.0 68.8, Minerva 24.1 48.0 27.3
# Table 6, best: Math-500 60.6 89.1 67.8, Minerva 24.0 48.7 26.3
row qwen2.5-3b_fixed_tilted_alpha1_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1 --beta 1e-2 --model Qwen/Qwen2.5-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_fixed_tilted_alpha1_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_fixed_tilted_alpha1_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1, beta 1e-4
# Table 5, last: Math-500 65.5 88.9 69.9, Minerva 26.5 46.6 27.6
# Table 6, best: Math-500 65.2 89.3 71.1, Minerva 26.2 47.5 28.6
row qwen2.5-3b_fixed_tilted_alpha1_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1 --beta 1e-4 --model Qwen/Qwen2.5-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_fixed_tilted_alpha1_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_fixed_tilted_alpha1_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1.25, beta inf
# Table 5, last: Math-500 62.1 88.3 69.3, Minerva 26.0 49.1 28.7
# Table 6, best: Math-500 60.5 88.9 68.9, Minerva 23.6 48.0 26.1
row qwen2.5-3b_fixed_tilted_alpha1.25_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta inf --model Qwen/Qwen2.5-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_fixed_tilted_alpha1.25_betainf --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_fixed_tilted_alpha1.25_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1.25, beta 1e-2
# Table 5, last: Math-500 63.0 88.5 69.9, Minerva 25.7 47.2 28.7
# Table 6, best: Math-500 63.6 89.3 69.7, Minerva 25.7 46.8 27.6
row qwen2.5-3b_fixed_tilted_alpha1.25_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta 1e-2 --model Qwen/Qwen2.5-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_fixed_tilted_alpha1.25_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_fixed_tilted_alpha1.25_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1.25, beta 1e-4
# Tables 5, 6: Math-500 65.2 88.5 70.9, Minerva 25.7 48.4 27.2
row qwen2.5-3b_fixed_tilted_alpha1.25_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta 1e-4 --model Qwen/Qwen2.5-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_fixed_tilted_alpha1.25_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_fixed_tilted_alpha1.25_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 2, beta inf
# Table 5, last: Math-500 61.2 86.4 67.1, Minerva 24.4 47.2 28.9
# Table 6, best: Math-500 63.9 88.3 69.7, Minerva 24.5 46.7 27.9
row qwen2.5-3b_fixed_tilted_alpha2_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta inf --model Qwen/Qwen2.5-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_fixed_tilted_alpha2_betainf --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_fixed_tilted_alpha2_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 2, beta 1e-2
# Table 5, last: Math-500 63.8 89.1 69.7, Minerva 26.4 48.3 28.6
# Table 6, best: Math-500 63.9 89.1 68.8, Minerva 26.2 47.5 28.8
row qwen2.5-3b_fixed_tilted_alpha2_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta 1e-2 --model Qwen/Qwen2.5-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_fixed_tilted_alpha2_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_fixed_tilted_alpha2_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 2, beta 1e-4
# Table 5, last: Math-500 65.3 89.9 69.5, Minerva 26.6 47.4 29.9
# Table 6, best: Math-500 65.3 88.9 70.3, Minerva 26.7 47.4 28.3
row qwen2.5-3b_fixed_tilted_alpha2_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta 1e-4 --model Qwen/Qwen2.5-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_fixed_tilted_alpha2_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_fixed_tilted_alpha2_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 4, beta inf
# Table 5, last: Math-500 61.2 84.2 64.9, Minerva 24.3 45.0 26.7
# Table 6, best: Math-500 64.3 89.8 70.8, Minerva 24.7 46.9 27.7
row qwen2.5-3b_fixed_tilted_alpha4_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta inf --model Qwen/Qwen2.5-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_fixed_tilted_alpha4_betainf --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_fixed_tilted_alpha4_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 4, beta 1e-2
# Table 5, last: Math-500 64.0 87.7 68.5, Minerva 24.1 46.0 26.3
# Table 6, best: Math-500 64.1 90.0 71.3, Minerva 25.0 47.7 26.8
row qwen2.5-3b_fixed_tilted_alpha4_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta 1e-2 --model Qwen/Qwen2.5-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_fixed_tilted_alpha4_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_fixed_tilted_alpha4_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 4, beta 1e-4
# Table 5, last: Math-500 65.5 88.9 71.2, Minerva 25.3 46.3 28.1
# Table 6, best: Math-500 65.5 88.1 70.0, Minerva 25.3 47.2 26.2
row qwen2.5-3b_fixed_tilted_alpha4_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta 1e-4 --model Qwen/Qwen2.5-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_fixed_tilted_alpha4_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_fixed_tilted_alpha4_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

finish
