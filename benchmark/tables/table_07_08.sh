#!/usr/bin/env bash
# Tables 7 and 8: meta-llama/Llama-3.2-3B-Instruct, variable length; last and best checkpoint come from the same runs.
# The paper's numbers above a row are Pass@1, Pass@16 and Maj@16, per cent (beam search: Pass@1). Rows marked "ours" are not in the paper.
# GPU model, hours and memory of every row: not measured.
# Inference rows share runs/paper/llama-3.2-3b, where plain sampling serves as Base of power sampling too: so it comes first.
# Usage: bash benchmark/tables/table_07_08.sh [--dry-run] [--rows REGEX]     see benchmark/tables/rows.sh
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

# Base
# Tables 7, 8: Math-500 38.2 76.3 49.3, Minerva 10.8 37.5 14.3
row llama-3.2-3b_base <<'EOF'
torchrun --nproc-per-node gpu -m -- common.evaluate --model meta-llama/Llama-3.2-3B-Instruct --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/llama-3.2-3b/plain_T1
EOF

# ours: Plain sampling, T = 0.8, as in the proposals of power sampling at alpha 1.25
row llama-3.2-3b_plain_T0.8 <<'EOF'
torchrun --nproc-per-node gpu -m -- common.evaluate --model meta-llama/Llama-3.2-3B-Instruct --dataset math500 minerva --n 16 --repeats 3 --temperature 0.8 --output-dir runs/paper/llama-3.2-3b/plain_T0.8
EOF

# ours: Plain sampling, T = 0.5, as in the proposals of power sampling at alpha 2
row llama-3.2-3b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu -m -- common.evaluate --model meta-llama/Llama-3.2-3B-Instruct --dataset math500 minerva --n 16 --repeats 3 --temperature 0.5 --output-dir runs/paper/llama-3.2-3b/plain_T0.5
EOF

# ours: Plain sampling, T = 0.25, as in the proposals of power sampling at alpha 4
row llama-3.2-3b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu -m -- common.evaluate --model meta-llama/Llama-3.2-3B-Instruct --dataset math500 minerva --n 16 --repeats 3 --temperature 0.25 --output-dir runs/paper/llama-3.2-3b/plain_T0.25
EOF

# MH-LLM, alpha 1: four readings of the row, the exact one 10 moves of whole answers
# Tables 7, 8: Math-500 30.5 70.5 40.9, Minerva 9.3 34.4 12.9
row llama-3.2-3b_power_mh-llm-signfix_alpha1 needs llama-3.2-3b_base <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model meta-llama/Llama-3.2-3B-Instruct --alpha 1 --mode mh-llm-signfix --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/llama-3.2-3b
EOF

row llama-3.2-3b_power_mh-llm_alpha1 needs llama-3.2-3b_base <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model meta-llama/Llama-3.2-3B-Instruct --alpha 1 --mode mh-llm --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/llama-3.2-3b
EOF

row llama-3.2-3b_power_karan-du_alpha1 needs llama-3.2-3b_base <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model meta-llama/Llama-3.2-3B-Instruct --alpha 1 --mode karan-du --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/llama-3.2-3b
EOF

row llama-3.2-3b_power_exact_alpha1 needs llama-3.2-3b_base <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model meta-llama/Llama-3.2-3B-Instruct --alpha 1 --mode exact --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/llama-3.2-3b
EOF

# MH-LLM, alpha 2: four readings of the row, the exact one 10 moves of whole answers
# Tables 7, 8: Math-500 44.4 74.1 50.1, Minerva 18.2 41.3 21.1
row llama-3.2-3b_power_mh-llm-signfix_alpha2 needs llama-3.2-3b_base llama-3.2-3b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model meta-llama/Llama-3.2-3B-Instruct --alpha 2 --mode mh-llm-signfix --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/llama-3.2-3b
EOF

row llama-3.2-3b_power_mh-llm_alpha2 needs llama-3.2-3b_base llama-3.2-3b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model meta-llama/Llama-3.2-3B-Instruct --alpha 2 --mode mh-llm --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/llama-3.2-3b
EOF

row llama-3.2-3b_power_karan-du_alpha2 needs llama-3.2-3b_base llama-3.2-3b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model meta-llama/Llama-3.2-3B-Instruct --alpha 2 --mode karan-du --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/llama-3.2-3b
EOF

row llama-3.2-3b_power_exact_alpha2 needs llama-3.2-3b_base llama-3.2-3b_plain_T0.5 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model meta-llama/Llama-3.2-3B-Instruct --alpha 2 --mode exact --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/llama-3.2-3b
EOF

# MH-LLM, alpha 4: four readings of the row, the exact one 10 moves of whole answers
# Tables 7, 8: Math-500 46.3 72.2 49.6, Minerva 19.3 38.1 21.1
row llama-3.2-3b_power_mh-llm-signfix_alpha4 needs llama-3.2-3b_base llama-3.2-3b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model meta-llama/Llama-3.2-3B-Instruct --alpha 4 --mode mh-llm-signfix --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/llama-3.2-3b
EOF

row llama-3.2-3b_power_mh-llm_alpha4 needs llama-3.2-3b_base llama-3.2-3b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model meta-llama/Llama-3.2-3B-Instruct --alpha 4 --mode mh-llm --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/llama-3.2-3b
EOF

row llama-3.2-3b_power_karan-du_alpha4 needs llama-3.2-3b_base llama-3.2-3b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model meta-llama/Llama-3.2-3B-Instruct --alpha 4 --mode karan-du --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/llama-3.2-3b
EOF

row llama-3.2-3b_power_exact_alpha4 needs llama-3.2-3b_base llama-3.2-3b_plain_T0.25 <<'EOF'
torchrun --nproc-per-node gpu power_sampling.py --model meta-llama/Llama-3.2-3B-Instruct --alpha 4 --mode exact --num-moves 10 \
    --dataset math500 minerva --n 16 --repeats 3 --output-dir runs/paper/llama-3.2-3b
EOF

# Beam search: the text says length penalty 0, the public harness has 1; one search serves both
# Tables 7, 8: Math-500 44.8, Minerva 15.4
row llama-3.2-3b_beam_vllm-0.11 <<'EOF'
torchrun --nproc-per-node gpu beam_eval.py --model meta-llama/Llama-3.2-3B-Instruct --num-beams 4 --length-penalty 0 1 --rule vllm-0.11 \
    --dataset math500 minerva --output-dir runs/paper/llama-3.2-3b
EOF

# ours: beam search by the rule of transformers
row llama-3.2-3b_beam_transformers <<'EOF'
torchrun --nproc-per-node gpu beam_eval.py --model meta-llama/Llama-3.2-3B-Instruct --num-beams 4 --length-penalty 0 1 --rule transformers \
    --dataset math500 minerva --output-dir runs/paper/llama-3.2-3b
EOF

# Task-Reward
# Table 7, last: Math-500 51.5 76.9 55.5, Minerva 19.2 40.6 21.8
# Table 8, best: Math-500 51.5 79.5 57.0, Minerva 19.0 42.3 21.1
row llama-3.2-3b_variable_task <<'EOF'
torchrun --nproc-per-node gpu rloo_task.py --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_task --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_task__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Dist. Sharpen
# Table 7, last: Math-500 1.9 2.7 1.7, Minerva 0.4 1.3 0.2
# Table 8, best: Math-500 40.9 79.5 49.6, Minerva 12.2 39.1 14.7
row llama-3.2-3b_variable_sharpen <<'EOF'
torchrun --nproc-per-node gpu rloo_sharpen.py --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_sharpen --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_sharpen__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1, beta inf
# Tables 7, 8: Math-500 38.5 78.0 48.6, Minerva 11.4 38.0 14.0
# Not Base's numbers, so it was trained.
row llama-3.2-3b_variable_tilted_alpha1_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1 --beta inf --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_tilted_alpha1_betainf --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_tilted_alpha1_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1, beta 1e-2
# Tables 7, 8: Math-500 49.0 78.1 56.6, Minerva 17.6 41.1 21.6
row llama-3.2-3b_variable_tilted_alpha1_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1 --beta 1e-2 --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_tilted_alpha1_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_tilted_alpha1_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1, beta 1e-4
# Table 7, last: Math-500 50.9 78.5 55.9, Minerva 19.5 42.8 21.3
# Table 8, best: Math-500 50.7 79.6 56.7, Minerva 19.3 43.4 21.6
row llama-3.2-3b_variable_tilted_alpha1_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1 --beta 1e-4 --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_tilted_alpha1_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_tilted_alpha1_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1.25, beta inf
# Table 7, last: Math-500 38.5 64.3 45.2, Minerva 13.9 39.2 16.4
# Table 8, best: Math-500 43.3 79.1 50.6, Minerva 15.4 41.3 18.0
row llama-3.2-3b_variable_tilted_alpha1.25_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta inf --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_tilted_alpha1.25_betainf --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_tilted_alpha1.25_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1.25, beta 1e-2
# Table 7, last: Math-500 47.5 79.1 53.3, Minerva 17.6 42.2 20.1
# Table 8, best: Math-500 48.3 80.4 54.1, Minerva 18.3 44.5 21.0
row llama-3.2-3b_variable_tilted_alpha1.25_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta 1e-2 --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_tilted_alpha1.25_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_tilted_alpha1.25_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1.25, beta 1e-4
# Tables 7, 8: Math-500 51.6 78.5 57.3, Minerva 19.9 44.9 21.4
row llama-3.2-3b_variable_tilted_alpha1.25_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta 1e-4 --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_tilted_alpha1.25_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_tilted_alpha1.25_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 2, beta inf
# Table 7, last: Math-500 17.6 30.4 19.0, Minerva 5.3 21.1 5.9
# Table 8, best: Math-500 44.6 78.6 52.3, Minerva 16.1 41.3 18.1
row llama-3.2-3b_variable_tilted_alpha2_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta inf --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_tilted_alpha2_betainf --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_tilted_alpha2_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 2, beta 1e-2
# Table 7, last: Math-500 46.7 69.5 51.5, Minerva 18.4 41.7 20.3
# Table 8, best: Math-500 48.3 75.6 54.2, Minerva 18.8 43.8 21.2
row llama-3.2-3b_variable_tilted_alpha2_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta 1e-2 --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_tilted_alpha2_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_tilted_alpha2_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 2, beta 1e-4
# Table 7, last: Math-500 50.9 78.6 55.8, Minerva 20.1 42.3 22.4
# Table 8, best: Math-500 51.1 78.5 56.1, Minerva 20.3 43.4 22.7
row llama-3.2-3b_variable_tilted_alpha2_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta 1e-4 --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_tilted_alpha2_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_tilted_alpha2_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 4, beta inf
# Table 7, last: Math-500 9.2 15.7 9.5, Minerva 1.6 8.8 1.1
# Table 8, best: Math-500 39.9 78.2 49.7, Minerva 11.7 39.0 14.6
row llama-3.2-3b_variable_tilted_alpha4_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta inf --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_tilted_alpha4_betainf --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_tilted_alpha4_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 4, beta 1e-2
# Table 7, last: Math-500 34.6 49.2 36.9, Minerva 12.7 24.6 12.7
# Table 8, best: Math-500 46.2 76.5 52.1, Minerva 18.3 42.5 20.6
row llama-3.2-3b_variable_tilted_alpha4_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta 1e-2 --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_tilted_alpha4_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_tilted_alpha4_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 4, beta 1e-4
# Table 7, last: Math-500 50.2 78.5 56.0, Minerva 19.1 42.9 21.1
# Table 8, best: Math-500 50.1 79.2 55.5, Minerva 18.9 44.5 20.2
row llama-3.2-3b_variable_tilted_alpha4_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta 1e-4 --model meta-llama/Llama-3.2-3B-Instruct --dataset math \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_variable_tilted_alpha4_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_variable_tilted_alpha4_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

finish
