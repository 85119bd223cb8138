#!/usr/bin/env bash
# Tables 11 and 12: Qwen/Qwen3-4B-Instruct-2507, variable length; last and best checkpoint come from the same runs.
# The paper's numbers above a row are Pass@1, Pass@16 and Maj@16, per cent (beam search: Pass@1). Rows marked "ours" are not in the paper.
# GPU model, hours and memory of every row: not measured.
# Inference rows share runs/paper/qwen3-4b, where plain sampling serves as Base of power sampling too: so it comes first.
# Usage: bash benchmark/tables/table_11_12.sh [--dry-run] [--rows REGEX]     see benchmark/tables/rows.sh
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

# Base
# Tables 11, 12: AIME 2024 29.5 45.6 37.8, AIME 2025 27.6 40.0 30.0, HMMT 2025 9.4 21.1 12.2
row qwen3-4b_base <<'EOF'
torchrun --nproc-per-node gpu -m -- common.evaluate --model Qwen/Qwen3-4B-Instruct-2507 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b/plain_T1
EOF

# ours: Plain sampling, T = 0.8, as in the proposals of power sampling at alpha 1.25
row qwen3-4b_plain_T0.8 <<'EOF'
torchrun --nproc-per-node gpu -m -- common.evaluate --model Qwen/Qwen3-4B-Instruct-2507 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --temperature 0.8 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b/plain_T0.8
EOF

# ours: Plain sampling, T = 0.5, as in the proposals of power sampling at alpha 2
row qwen3-4b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu -m -- common.evaluate --model Qwen/Qwen3-4B-Instruct-2507 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --temperature 0.5 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b/plain_T0.5
EOF

# ours: Plain sampling, T = 0.25, as in the proposals of power sampling at alpha 4
row qwen3-4b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu -m -- common.evaluate --model Qwen/Qwen3-4B-Instruct-2507 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --temperature 0.25 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b/plain_T0.25
EOF

# MH-LLM, alpha 1: four readings of the row, the exact one 10 moves of whole answers
# Tables 11, 12: AIME 2024 22.4 47.8 31.1, AIME 2025 16.0 28.9 23.3, HMMT 2025 5.5 15.6 6.7
row qwen3-4b_power_mh-llm-signfix_alpha1 needs qwen3-4b_base <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen3-4B-Instruct-2507 --alpha 1 --mode mh-llm-signfix --num-moves 10 \
    --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

row qwen3-4b_power_mh-llm_alpha1 needs qwen3-4b_base <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen3-4B-Instruct-2507 --alpha 1 --mode mh-llm --num-moves 10 \
    --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

row qwen3-4b_power_karan-du_alpha1 needs qwen3-4b_base <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen3-4B-Instruct-2507 --alpha 1 --mode karan-du --num-moves 10 \
    --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

row qwen3-4b_power_exact_alpha1 needs qwen3-4b_base <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen3-4B-Instruct-2507 --alpha 1 --mode exact --num-moves 10 \
    --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

# MH-LLM, alpha 2: four readings of the row, the exact one 10 moves of whole answers
# Tables 11, 12: AIME 2024 28.1 55.6 31.1, AIME 2025 23.7 33.3 25.6, HMMT 2025 7.5 21.1 10.0
row qwen3-4b_power_mh-llm-signfix_alpha2 needs qwen3-4b_base qwen3-4b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen3-4B-Instruct-2507 --alpha 2 --mode mh-llm-signfix --num-moves 10 \
    --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

row qwen3-4b_power_mh-llm_alpha2 needs qwen3-4b_base qwen3-4b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen3-4B-Instruct-2507 --alpha 2 --mode mh-llm --num-moves 10 \
    --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

row qwen3-4b_power_karan-du_alpha2 needs qwen3-4b_base qwen3-4b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen3-4B-Instruct-2507 --alpha 2 --mode karan-du --num-moves 10 \
    --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

row qwen3-4b_power_exact_alpha2 needs qwen3-4b_base qwen3-4b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen3-4B-Instruct-2507 --alpha 2 --mode exact --num-moves 10 \
    --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

# MH-LLM, alpha 4: four readings of the row, the exact one 10 moves of whole answers
# Tables 11, 12: AIME 2024 27.6 52.2 34.4, AIME 2025 24.4 31.1 27.8, HMMT 2025 6.9 21.1 5.6
row qwen3-4b_power_mh-llm-signfix_alpha4 needs qwen3-4b_base qwen3-4b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen3-4B-Instruct-2507 --alpha 4 --mode mh-llm-signfix --num-moves 10 \
    --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

row qwen3-4b_power_mh-llm_alpha4 needs qwen3-4b_base qwen3-4b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen3-4B-Instruct-2507 --alpha 4 --mode mh-llm --num-moves 10 \
    --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

row qwen3-4b_power_karan-du_alpha4 needs qwen3-4b_base qwen3-4b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen3-4B-Instruct-2507 --alpha 4 --mode karan-du --num-moves 10 \
    --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

row qwen3-4b_power_exact_alpha4 needs qwen3-4b_base qwen3-4b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen3-4B-Instruct-2507 --alpha 4 --mode exact --num-moves 10 \
    --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

# Beam search: the text says length penalty 0, the public harness has 1; one search serves both
# Tables 11, 12: AIME 2024 30.0, AIME 2025 26.7, HMMT 2025 6.7
row qwen3-4b_beam_vllm-0.11 <<'EOF'
torchrun --nproc-per-node gpu beam_eval.py --model Qwen/Qwen3-4B-Instruct-2507 --num-beams 4 --length-penalty 0 1 --rule vllm-0.11 \
    --dataset aime24 aime25 hmmt25 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

# ours: beam search by the rule of transformers
row qwen3-4b_beam_transformers <<'EOF'
torchrun --nproc-per-node gpu beam_eval.py --model Qwen/Qwen3-4B-Instruct-2507 --num-beams 4 --length-penalty 0 1 --rule transformers \
    --dataset aime24 aime25 hmmt25 --max-total-tokens 4096 --output-dir runs/paper/qwen3-4b
EOF

# Task-Reward
# Table 11, last: AIME 2024 40.9 66.7 46.7, AIME 2025 32.2 52.2 37.8, HMMT 2025 16.6 32.2 20.0
# Table 12, best: AIME 2024 43.4 64.4 50.0, AIME 2025 29.0 48.9 32.2, HMMT 2025 16.6 26.7 20.0
row qwen3-4b_variable_task <<'EOF'
torchrun --nproc-per-node gpu rloo_task.py --model Qwen/Qwen3-4B-Instruct-2507 --dataset deepscaler \
    --num-steps 1000 --num-problems 64 --max-total-tokens 4096 --exp-name qwen3-4b_variable_task --output-dir runs/paper
run=$(echo runs/paper/qwen3-4b_variable_task__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
EOF

# Dist. Sharpen
# Table 11, last: AIME 2024 12.0 23.3 15.6, AIME 2025 19.9 25.6 23.3, HMMT 2025 4.9 10.0 5.6
# Table 12, best: AIME 2024 35.4 60.0 40.0, AIME 2025 28.5 53.3 32.2, HMMT 2025 13.6 30.0 20.0
row qwen3-4b_variable_sharpen <<'EOF'
torchrun --nproc-per-node gpu rloo_sharpen.py --model Qwen/Qwen3-4B-Instruct-2507 --dataset deepscaler \
    --num-steps 1000 --num-problems 64 --max-total-tokens 4096 --exp-name qwen3-4b_variable_sharpen --output-dir runs/paper
run=$(echo runs/paper/qwen3-4b_variable_sharpen__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
EOF

# Tilted Sampling, alpha 1, beta inf
# Tables 11, 12: AIME 2024 29.5 45.6 37.8, AIME 2025 27.6 40.0 30.0, HMMT 2025 9.4 21.1 12.2
# The numbers of Base, whose law is the optimum; no run of its own.
link qwen3-4b_base table_11_12.sh # runs/paper/qwen3-4b/plain_T1

# Tilted Sampling, alpha 1, beta 1e-2
# Table 11, last: AIME 2024 36.9 56.7 45.6, AIME 2025 29.3 48.9 33.3, HMMT 2025 12.1 26.7 16.7
# Table 12, best: AIME 2024 36.4 58.9 44.4, AIME 2025 29.5 48.9 33.3, HMMT 2025 12.6 22.2 18.9
row qwen3-4b_variable_tilted_alpha1_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1 --beta 1e-2 --model Qwen/Qwen3-4B-Instruct-2507 --dataset deepscaler \
    --num-steps 1000 --num-problems 64 --max-total-tokens 4096 --exp-name qwen3-4b_variable_tilted_alpha1_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/qwen3-4b_variable_tilted_alpha1_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
EOF

# Tilted Sampling, alpha 1, beta 1e-4
# Tables 11, 12: AIME 2024 45.3 71.1 45.6, AIME 2025 35.8 56.7 42.2, HMMT 2025 16.0 32.2 15.6
row qwen3-4b_variable_tilted_alpha1_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1 --beta 1e-4 --model Qwen/Qwen3-4B-Instruct-2507 --dataset deepscaler \
    --num-steps 1000 --num-problems 64 --max-total-tokens 4096 --exp-name qwen3-4b_variable_tilted_alpha1_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/qwen3-4b_variable_tilted_alpha1_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
EOF

# Tilted Sampling, alpha 1.25, beta inf
# Table 11, last: AIME 2024 35.2 62.2 42.2, AIME 2025 28.3 52.2 33.3, HMMT 2025 15.3 28.9 22.2
# Table 12, best: AIME 2024 34.0 61.1 40.0, AIME 2025 27.4 47.8 33.3, HMMT 2025 14.7 30.0 21.1
row qwen3-4b_variable_tilted_alpha1.25_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta inf --model Qwen/Qwen3-4B-Instruct-2507 --dataset deepscaler \
    --num-steps 1000 --num-problems 64 --max-total-tokens 4096 --exp-name qwen3-4b_variable_tilted_alpha1.25_betainf --output-dir runs/paper
run=$(echo runs/paper/qwen3-4b_variable_tilted_alpha1.25_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
EOF

# Tilted Sampling, alpha 1.25, beta 1e-2
# Table 11, last: AIME 2024 36.3 60.0 44.4, AIME 2025 30.1 53.3 35.6, HMMT 2025 16.0 33.3 21.1
# Table 12, best: AIME 2024 37.0 64.4 44.4, AIME 2025 29.6 52.2 34.4, HMMT 2025 15.9 32.2 22.2
row qwen3-4b_variable_tilted_alpha1.25_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta 1e-2 --model Qwen/Qwen3-4B-Instruct-2507 --dataset deepscaler \
    --num-steps 1000 --num-problems 64 --max-total-tokens 4096 --exp-name qwen3-4b_variable_tilted_alpha1.25_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/qwen3-4b_variable_tilted_alpha1.25_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
EOF

# Tilted Sampling, alpha 1.25, beta 1e-4
# Table 11, last: AIME 2024 44.2 66.7 46.7, AIME 2025 32.2 50.0 36.7, HMMT 2025 18.1 36.7 18.9
# Table 12, best: AIME 2024 47.0 65.6 55.6, AIME 2025 33.6 52.2 40.0, HMMT 2025 17.0 28.9 18.9
row qwen3-4b_variable_tilted_alpha1.25_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta 1e-4 --model Qwen/Qwen3-4B-Instruct-2507 --dataset deepscaler \
    --num-steps 1000 --num-problems 64 --max-total-tokens 4096 --exp-name qwen3-4b_variable_tilted_alpha1.25_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/qwen3-4b_variable_tilted_alpha1.25_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
EOF

# Tilted Sampling, alpha 2, beta inf
# Table 11, last: AIME 2024 22.2 41.1 25.6, AIME 2025 18.6 32.2 22.2, HMMT 2025 8.6 17.8 8.9
# Table 12, best: AIME 2024 34.6 62.2 43.3, AIME 2025 28.1 45.6 35.6, HMMT 2025 15.3 32.2 22.2
row qwen3-4b_variable_tilted_alpha2_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta inf --model Qwen/Qwen3-4B-Instruct-2507 --dataset deepscaler \
    --num-steps 1000 --num-problems 64 --max-total-tokens 4096 --exp-name qwen3-4b_variable_tilted_alpha2_betainf --output-dir runs/paper
run=$(echo runs/paper/qwen3-4b_variable_tilted_alpha2_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
EOF

# Tilted Sampling, alpha 2, beta 1e-2
# Table 11, last: AIME 2024 31.4 54.4 35.6, AIME 2025 25.6 48.9 26.7, HMMT 2025 14.2 31.1 14.4
# Table 12, best: AIME 2024 36.7 70.0 43.3, AIME 2025 26.9 53.3 28.9, HMMT 2025 14.0 33.3 20.0
row qwen3-4b_variable_tilted_alpha2_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta 1e-2 --model Qwen/Qwen3-4B-Instruct-2507 --dataset deepscaler \
    --num-steps 1000 --num-problems 64 --max-total-tokens 4096 --exp-name qwen3-4b_variable_tilted_alpha2_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/qwen3-4b_variable_tilted_alpha2_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
EOF

# Tilted Sampling, alpha 2, beta 1e-4
# Table 11, last: AIME 2024 44.4 64.4 47.8, AIME 2025 34.0 55.6 36.7, HMMT 2025 15.5 32.2 13.3
# Table 12, best: AIME 2024 45.0 67.8 47.8, AIME 2025 33.0 52.2 37.8, HMMT 2025 16.1 32.2 16.7
row qwen3-4b_variable_tilted_alpha2_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta 1e-4 --model Qwen/Qwen3-4B-Instruct-2507 --dataset deepscaler \
    --num-steps 1000 --num-problems 64 --max-total-tokens 4096 --exp-name qwen3-4b_variable_tilted_alpha2_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/qwen3-4b_variable_tilted_alpha2_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
EOF

# Tilted Sampling, alpha 4, beta inf
# Tables 11, 12: AIME 2024 23.0 42.2 24.4, AIME 2025 18.4 22.2 20.0, HMMT 2025 8.3 13.3 8.9
row qwen3-4b_variable_tilted_alpha4_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta inf --model Qwen/Qwen3-4B-Instruct-2507 --dataset deepscaler \
    --num-steps 1000 --num-problems 64 --max-total-tokens 4096 --exp-name qwen3-4b_variable_tilted_alpha4_betainf --output-dir runs/paper
run=$(echo runs/paper/qwen3-4b_variable_tilted_alpha4_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
EOF

# Tilted Sampling, alpha 4, beta 1e-2
# Table 11, last: AIME 2024 24.1 40.0 28.9, AIME 2025 24.2 34.4 26.7, HMMT 2025 9.0 21.1 8.9
# Table 12, best: AIME 2024 34.0 61.1 38.9, AIME 2025 27.6 48.9 32.2, HMMT 2025 15.5 37.8 21.1
row qwen3-4b_variable_tilted_alpha4_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta 1e-2 --model Qwen/Qwen3-4B-Instruct-2507 --dataset deepscaler \
    --num-steps 1000 --num-problems 64 --max-total-tokens 4096 --exp-name qwen3-4b_variable_tilted_alpha4_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/qwen3-4b_variable_tilted_alpha4_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
EOF

# Tilted Sampling, alpha 4, beta 1e-4
# Table 11, last: AIME 2024 40.1 66.7 50.0, AIME 2025 32.5 56.7 35.6, HMMT 2025 17.7 37.8 20.0
# Table 12, best: AIME 2024 42.8 67.8 46.7, AIME 2025 29.4 52.2 32.2, HMMT 2025 18.1 33.3 20.0
row qwen3-4b_variable_tilted_alpha4_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta 1e-4 --model Qwen/Qwen3-4B-Instruct-2507 --dataset deepscaler \
    --num-steps 1000 --num-problems 64 --max-total-tokens 4096 --exp-name qwen3-4b_variable_tilted_alpha4_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/qwen3-4b_variable_tilted_alpha4_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_001000 --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset aime24 aime25 hmmt25 --n 16 --repeats 3 --max-total-tokens 4096
EOF

finish
