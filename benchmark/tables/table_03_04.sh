#!/usr/bin/env bash
# Tables 3 and 4: Qwen/Qwen2.5-3B-Instruct, variable length; last and best checkpoint come from the same runs.
# The paper's numbers above a row are Pass@1, Pass@16 and Maj@16, per cent (beam search: Pass@1). Rows marked "ours" are not in the paper.
# GPU model, hours and memory of every row: not measured.
# Inference rows share runs/paper/qwen2.5-3b, where plain sampling serves as Base of power sampling too: so it comes first.
# Usage: bash benchmark/tables/table_03_04.sh [--dry-run] [--rows REGEX]     see benchmark/tables/rows.sh
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

# Base
# Tables 3, 4: Math-500 58.3 87.5 66.3, Minerva 23.0 47.8 27.2
row qwen2.5-3b_base <<'EOF'
torchrun --nproc-per-node gpu -m -- common.evaluate --model Qwen/Qwen2.5-3B-Instruct --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/qwen2.5-3b/plain_T1
EOF

# ours: Plain sampling, T = 0.8, as in the proposals of power sampling at alpha 1.25
row qwen2.5-3b_plain_T0.8 <<'EOF'
torchrun --nproc-per-node gpu -m -- common.evaluate --model Qwen/Qwen2.5-3B-Instruct --dataset math500 minerva --n 16 --repeats 3 --temperature 0.8 --output-dir runs/paper/qwen2.5-3b/plain_T0.8
EOF

# ours: Plain sampling, T = 0.5, as in the proposals of power sampling at alpha 2
row qwen2.5-3b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu -m -- common.evaluate --model Qwen/Qwen2.5-3B-Instruct --dataset math500 minerva --n 16 --repeats 3 --temperature 0.5 --output-dir runs/paper/qwen2.5-3b/plain_T0.5
EOF

# ours: Plain sampling, T = 0.25, as in the proposals of power sampling at alpha 4
row qwen2.5-3b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu -m -- common.evaluate --model Qwen/Qwen2.5-3B-Instruct --dataset math500 minerva --n 16 --repeats 3 --temperature 0.25 --output-dir runs/paper/qwen2.5-3b/plain_T0.25
EOF

# MH-LLM, alpha 1: four readings of the row, the exact one 10 moves of whole answers
# Tables 3, 4: Math-500 47.7 82.9 62.5, Minerva 20.6 46.8 25.6
row qwen2.5-3b_power_mh-llm-signfix_alpha1 needs qwen2.5-3b_base <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 1 --mode mh-llm-signfix --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/qwen2.5-3b
EOF

row qwen2.5-3b_power_mh-llm_alpha1 needs qwen2.5-3b_base <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 1 --mode mh-llm --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/qwen2.5-3b
EOF

row qwen2.5-3b_power_karan-du_alpha1 needs qwen2.5-3b_base <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 1 --mode karan-du --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/qwen2.5-3b
EOF

row qwen2.5-3b_power_exact_alpha1 needs qwen2.5-3b_base <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 1 --mode exact --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/qwen2.5-3b
EOF

# MH-LLM, alpha 2: four readings of the row, the exact one 10 moves of whole answers
# Tables 3, 4: Math-500 64.8 87.1 71.1, Minerva 29.1 43.8 31.7
row qwen2.5-3b_power_mh-llm-signfix_alpha2 needs qwen2.5-3b_base qwen2.5-3b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 2 --mode mh-llm-signfix --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/qwen2.5-3b
EOF

row qwen2.5-3b_power_mh-llm_alpha2 needs qwen2.5-3b_base qwen2.5-3b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 2 --mode mh-llm --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/qwen2.5-3b
EOF

row qwen2.5-3b_power_karan-du_alpha2 needs qwen2.5-3b_base qwen2.5-3b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 2 --mode karan-du --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/qwen2.5-3b
EOF

row qwen2.5-3b_power_exact_alpha2 needs qwen2.5-3b_base qwen2.5-3b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 2 --mode exact --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/qwen2.5-3b
EOF

# MH-LLM, alpha 4: four readings of the row, the exact one 10 moves of whole answers
# Tables 3, 4: Math-500 65.8 85.5 71.1, Minerva 30.7 44.2 32.2
row qwen2.5-3b_power_mh-llm-signfix_alpha4 needs qwen2.5-3b_base qwen2.5-3b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 4 --mode mh-llm-signfix --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/qwen2.5-3b
EOF

row qwen2.5-3b_power_mh-llm_alpha4 needs qwen2.5-3b_base qwen2.5-3b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 4 --mode mh-llm --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/qwen2.5-3b
EOF

row qwen2.5-3b_power_karan-du_alpha4 needs qwen2.5-3b_base qwen2.5-3b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 4 --mode karan-du --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/qwen2.5-3b
EOF

row qwen2.5-3b_power_exact_alpha4 needs qwen2.5-3b_base qwen2.5-3b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model Qwen/Qwen2.5-3B-Instruct --alpha 4 --mode exact --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/qwen2.5-3b
EOF

# Beam search: the text says length penalty 0, the public harness has 1; one search serves both
# Tables 3, 4: Math-500 69.2, Minerva 24.6
row qwen2.5-3b_beam_vllm-0.11 <<'EOF'
torchrun --nproc-per-node gpu beam_eval.py --model Qwen/Qwen2.5-3B-Instruct --num-beams 4 --length-penalty 0 1 --rule vllm-0.11 \
    --dataset math500 minerva --output-dir runs/paper/qwen2.5-3b
EOF

# ours: beam search by the rule of transformers
row qwen2.5-3b_beam_transformers <<'EOF'
torchrun --nproc-per-node gpu beam_eval.py --model Qwen/Qwen2.5-3B-Instruct --num-beams 4 --length-penalty 0 1 --rule transformers \
    --dataset math500 minerva --output-dir runs/paper/qwen2.5-3b
EOF

# Task-Reward
# Table 3, last: Math-500 66.9 87.9 72.1, Minerva 27.2 47.4 29.4
# Table 4, best: Math-500 66.8 87.8 72.2, Minerva 26.6 46.4 29.0
row qwen2.5-3b_variable_task <<'EOF'
torchrun --nproc-per-node gpu rloo_task.py --model Qwen/Qwen2.5-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_variable_task --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_variable_task__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Dist. Sharpen
# Table 3, last: Math-500 19.6 26.3 19.5, Minerva 10.4 15.9 10.7
# Table 4, best: Math-500 63.5 88.9 69.1, Minerva 25.2 47.5 28.2
row qwen2.5-3b_variable_sharpen <<'EOF'
torchrun --nproc-per-node gpu rloo_sharpen.py --model Qwen/Qwen2.5-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_variable_sharpen --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_variable_sharpen__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1, beta inf
# Tables 3, 4: Math-500 58.3 87.5 66.3, Minerva 23.0 47.8 27.2
# The numbers of Base, whose law is the optimum; no run of its own.
link qwen2.5-3b_base table_03_04.sh # runs/paper/qwen2.5-3b/plain_T1

# Tilted Sampling, alpha 1, beta 1e-2
# Table 3, last: Math-500 64.0 88.7 70.0, Minerva 25.7 48.9 27.3
# Table 4, best: Math-500 63.3 88.7 70.1, Minerva 25.2 48.2 25.5
row qwen2.5-3b_variable_tilted_alpha1_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1 --beta 1e-2 --model Qwen/Qwen2.5-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_variable_tilted_alpha1_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_variable_tilted_alpha1_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1, beta 1e-4
# Table 3, last: Math-500 66.9 88.2 71.5, Minerva 26.7 46.8 28.2
# Table 4, best: Math-500 66.0 88.6 71.0, Minerva 26.8 47.3 28.6
row qwen2.5-3b_variable_tilted_alpha1_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1 --beta 1e-4 --model Qwen/Qwen2.5-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_variable_tilted_alpha1_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_variable_tilted_alpha1_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1.25, beta inf
# Table 3, last: Math-500 61.7 87.1 68.1, Minerva 25.6 46.8 28.9
# Table 4, best: Math-500 62.4 88.9 69.1, Minerva 24.7 48.5 26.8
row qwen2.5-3b_variable_tilted_alpha1.25_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta inf --model Qwen/Qwen2.5-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_variable_tilted_alpha1.25_betainf --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_variable_tilted_alpha1.25_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1.25, beta 1e-2
# Tables 3, 4: Math-500 64.6 88.2 70.3, Minerva 26.9 48.7 28.7
row qwen2.5-3b_variable_tilted_alpha1.25_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta 1e-2 --model Qwen/Qwen2.5-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_variable_tilted_alpha1.25_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_variable_tilted_alpha1.25_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1.25, beta 1e-4
# Tables 3, 4: Math-500 66.7 88.6 71.9, Minerva 26.6 47.1 28.8
row qwen2.5-3b_variable_tilted_alpha1.25_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta 1e-4 --model Qwen/Qwen2.5-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_variable_tilted_alpha1.25_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_variable_tilted_alpha1.25_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 2, beta inf
# Table 3, last: Math-500 61.3 84.7 65.7, Minerva 26.5 45.0 28.6
# Table 4, best: Math-500 63.1 88.1 68.6, Minerva 25.6 47.5 29.2
row qwen2.5-3b_variable_tilted_alpha2_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta inf --model Qwen/Qwen2.5-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_variable_tilted_alpha2_betainf --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_variable_tilted_alpha2_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 2, beta 1e-2
# Tables 3, 4: Math-500 63.7 87.0 68.5, Minerva 26.4 46.7 28.7
row qwen2.5-3b_variable_tilted_alpha2_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta 1e-2 --model Qwen/Qwen2.5-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_variable_tilted_alpha2_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_variable_tilted_alpha2_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 2, beta 1e-4
# Table 3, last: Math-500 66.4 87.9 70.7, Minerva 26.5 47.2 28.3
# Table 4, best: Math-500 67.6 88.4 72.5, Minerva 27.1 49.0 29.5
row qwen2.5-3b_variable_tilted_alpha2_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta 1e-4 --model Qwen/Qwen2.5-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_variable_tilted_alpha2_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_variable_tilted_alpha2_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 4, beta inf
# Table 3, last: Math-500 19.8 30.1 19.9, Minerva 10.8 18.9 11.0
# Table 4, best: Math-500 63.4 88.5 70.1, Minerva 25.0 47.5 27.1
row qwen2.5-3b_variable_tilted_alpha4_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta inf --model Qwen/Qwen2.5-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_variable_tilted_alpha4_betainf --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_variable_tilted_alpha4_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 4, beta 1e-2
# Table 3, last: Math-500 19.4 30.3 19.2, Minerva 10.5 16.2 10.9
# Table 4, best: Math-500 63.5 88.9 69.9, Minerva 25.8 47.2 28.3
row qwen2.5-3b_variable_tilted_alpha4_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta 1e-2 --model Qwen/Qwen2.5-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_variable_tilted_alpha4_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_variable_tilted_alpha4_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 4, beta 1e-4
# Table 3, last: Math-500 65.6 87.9 70.9, Minerva 25.9 46.7 28.3
# Table 4, best: Math-500 66.1 88.9 70.9, Minerva 26.1 47.4 26.8
row qwen2.5-3b_variable_tilted_alpha4_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta 1e-4 --model Qwen/Qwen2.5-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name qwen2.5-3b_variable_tilted_alpha4_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/qwen2.5-3b_variable_tilted_alpha4_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

finish
