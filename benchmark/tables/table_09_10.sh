#!/usr/bin/env bash
# Tables 9 and 10: meta-llama/Llama-3.2-3B-Instruct, EOS an ordinary token in training (App. B); last and best checkpoint come from the same runs.
# The paper's numbers above a row are Pass@1, Pass@16 and Maj@16, per cent (beam search: Pass@1). Rows marked "ours" are not in the paper.
# GPU model, hours and memory of every row: not measured.
# The rows that need no training are those of benchmark/tables/table_07_08.sh, which runs them.
# Usage: bash benchmark/tables/table_09_10.sh [--dry-run] [--rows REGEX]     see benchmark/tables/rows.sh
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

# Base (the tables leave the row empty)
link llama-3.2-3b_base table_07_08.sh # runs/paper/llama-3.2-3b/plain_T1

# ours: Plain sampling, T = 0.8, as in the proposals of power sampling at alpha 1.25
link llama-3.2-3b_plain_T0.8 table_07_08.sh # runs/paper/llama-3.2-3b/plain_T0.8

# ours: Plain sampling, T = 0.5, as in the proposals of power sampling at alpha 2
link llama-3.2-3b_plain_T0.5 table_07_08.sh # runs/paper/llama-3.2-3b/plain_T0.5

# ours: Plain sampling, T = 0.25, as in the proposals of power sampling at alpha 4
link llama-3.2-3b_plain_T0.25 table_07_08.sh # runs/paper/llama-3.2-3b/plain_T0.25

# MH-LLM, alpha 1: four readings of the row, the exact one 10 moves of whole answers
# Tables 9, 10: Math-500 30.5 70.5 40.9, Minerva 9.3 34.4 12.9
link llama-3.2-3b_power_mh-llm-signfix_alpha1 table_07_08.sh # runs/paper/llama-3.2-3b
link llama-3.2-3b_power_mh-llm_alpha1 table_07_08.sh # runs/paper/llama-3.2-3b
link llama-3.2-3b_power_karan-du_alpha1 table_07_08.sh # runs/paper/llama-3.2-3b
link llama-3.2-3b_power_exact_alpha1 table_07_08.sh # runs/paper/llama-3.2-3b

# MH-LLM, alpha 2: four readings of the row, the exact one 10 moves of whole answers
# Tables 9, 10: Math-500 44.4 74.1 50.1, Minerva 18.2 41.3 21.1
link llama-3.2-3b_power_mh-llm-signfix_alpha2 table_07_08.sh # runs/paper/llama-3.2-3b
link llama-3.2-3b_power_mh-llm_alpha2 table_07_08.sh # runs/paper/llama-3.2-3b
link llama-3.2-3b_power_karan-du_alpha2 table_07_08.sh # runs/paper/llama-3.2-3b
link llama-3.2-3b_power_exact_alpha2 table_07_08.sh # runs/paper/llama-3.2-3b

# MH-LLM, alpha 4: four readings of the row, the exact one 10 moves of whole answers
# Tables 9, 10: Math-500 46.3 72.2 49.6, Minerva 19.3 38.1 21.1
link llama-3.2-3b_power_mh-llm-signfix_alpha4 table_07_08.sh # runs/paper/llama-3.2-3b
link llama-3.2-3b_power_mh-llm_alpha4 table_07_08.sh # runs/paper/llama-3.2-3b
link llama-3.2-3b_power_karan-du_alpha4 table_07_08.sh # runs/paper/llama-3.2-3b
link llama-3.2-3b_power_exact_alpha4 table_07_08.sh # runs/paper/llama-3.2-3b

# Beam search: the text says length penalty 0, the public harness has 1; one search serves both
# Tables 9, 10: Math-500 44.8, Minerva 15.4
link llama-3.2-3b_beam_vllm-0.11 table_07_08.sh # runs/paper/llama-3.2-3b

# ours: beam search by the rule of transformers
link llama-3.2-3b_beam_transformers table_07_08.sh # runs/paper/llama-3.2-3b

# Task-Reward
# Table 9, last: Math-500 50.6 79.2 55.5, Minerva 17.3 41.9 18.9
# Table 10, best: Math-500 50.7 79.0 56.6, Minerva 17.4 41.4 19.1
row llama-3.2-3b_fixed_task <<'EOF'
torchrun --nproc-per-node gpu rloo_task.py --model meta-llama/Llama-3.2-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_fixed_task --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_fixed_task__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Dist. Sharpen
# Table 9, last: Math-500 44.5 72.4 48.2, Minerva 18.3 39.0 20.1
# Table 10, best: Math-500 45.5 72.3 49.4, Minerva 18.1 39.7 20.5
row llama-3.2-3b_fixed_sharpen <<'EOF'
torchrun --nproc-per-node gpu rloo_sharpen.py --model meta-llama/Llama-3.2-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_fixed_sharpen --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_fixed_sharpen__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1, beta inf
# Tables 9, 10: Math-500 38.5 78.0 48.6, Minerva 11.4 38.0 14.0
# The numbers of the run of variable length.
link llama-3.2-3b_variable_tilted_alpha1_betainf table_07_08.sh # runs/paper/llama-3.2-3b_variable_tilted_alpha1_betainf__*

# Tilted Sampling, alpha 1, beta 1e-2
# Table 9, last: Math-500 46.7 78.9 54.7, Minerva 16.3 43.4 18.5
# Table 10, best: Math-500 46.6 79.8 55.2, Minerva 16.2 43.5 18.1
row llama-3.2-3b_fixed_tilted_alpha1_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1 --beta 1e-2 --model meta-llama/Llama-3.2-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_fixed_tilted_alpha1_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_fixed_tilted_alpha1_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1, beta 1e-4
# Tables 9, 10: Math-500 49.9 78.1 55.3, Minerva 18.7 42.4 21.9
row llama-3.2-3b_fixed_tilted_alpha1_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1 --beta 1e-4 --model meta-llama/Llama-3.2-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_fixed_tilted_alpha1_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_fixed_tilted_alpha1_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1.25, beta inf
# Table 9, last: Math-500 45.7 79.9 52.3, Minerva 17.1 43.1 20.0
# Table 10, best: Math-500 45.6 79.9 52.8, Minerva 16.8 43.4 18.9
row llama-3.2-3b_fixed_tilted_alpha1.25_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta inf --model meta-llama/Llama-3.2-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_fixed_tilted_alpha1.25_betainf --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_fixed_tilted_alpha1.25_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1.25, beta 1e-2
# Table 9, last: Math-500 46.2 80.4 54.1, Minerva 16.3 41.7 19.4
# Table 10, best: Math-500 46.3 80.6 53.5, Minerva 16.4 42.5 19.1
row llama-3.2-3b_fixed_tilted_alpha1.25_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta 1e-2 --model meta-llama/Llama-3.2-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_fixed_tilted_alpha1.25_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_fixed_tilted_alpha1.25_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 1.25, beta 1e-4
# Table 9, last: Math-500 49.6 78.5 55.3, Minerva 19.2 42.8 20.8
# Table 10, best: Math-500 49.6 78.4 55.3, Minerva 19.0 45.3 21.1
row llama-3.2-3b_fixed_tilted_alpha1.25_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 1.25 --beta 1e-4 --model meta-llama/Llama-3.2-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_fixed_tilted_alpha1.25_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_fixed_tilted_alpha1.25_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 2, beta inf
# Table 9, last: Math-500 46.4 77.5 51.9, Minerva 18.0 41.9 20.0
# Table 10, best: Math-500 46.4 77.8 51.7, Minerva 18.5 42.6 20.5
row llama-3.2-3b_fixed_tilted_alpha2_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta inf --model meta-llama/Llama-3.2-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_fixed_tilted_alpha2_betainf --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_fixed_tilted_alpha2_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 2, beta 1e-2
# Tables 9, 10: Math-500 45.7 78.3 52.8, Minerva 17.2 42.3 20.2
row llama-3.2-3b_fixed_tilted_alpha2_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta 1e-2 --model meta-llama/Llama-3.2-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_fixed_tilted_alpha2_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_fixed_tilted_alpha2_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 2, beta 1e-4
# Table 9, last: Math-500 50.2 78.4 56.5, Minerva 18.9 42.2 22.3
# Table 10, best: Math-500 50.0 79.9 56.8, Minerva 18.5 40.9 20.7
row llama-3.2-3b_fixed_tilted_alpha2_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 2 --beta 1e-4 --model meta-llama/Llama-3.2-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_fixed_tilted_alpha2_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_fixed_tilted_alpha2_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 4, beta inf
# Table 9, last: Math-500 44.7 75.9 48.9, Minerva 18.0 42.8 17.0
# Table 10, best: Math-500 45.7 77.0 49.6, Minerva 18.4 41.8 20.0
row llama-3.2-3b_fixed_tilted_alpha4_betainf <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta inf --model meta-llama/Llama-3.2-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_fixed_tilted_alpha4_betainf --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_fixed_tilted_alpha4_betainf__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 4, beta 1e-2
# Table 9, last: Math-500 45.8 77.2 50.9, Minerva 17.9 43.3 19.2
# Table 10, best: Math-500 45.5 76.9 50.1, Minerva 17.6 42.5 19.9
row llama-3.2-3b_fixed_tilted_alpha4_beta1e-2 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta 1e-2 --model meta-llama/Llama-3.2-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_fixed_tilted_alpha4_beta1e-2 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_fixed_tilted_alpha4_beta1e-2__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

# Tilted Sampling, alpha 4, beta 1e-4
# Table 9, last: Math-500 48.9 78.9 54.9, Minerva 18.1 41.9 20.6
# Table 10, best: Math-500 48.1 79.5 54.5, Minerva 17.2 42.2 19.1
row llama-3.2-3b_fixed_tilted_alpha4_beta1e-4 <<'EOF'
torchrun --nproc-per-node gpu rloo_tilted.py --alpha 4 --beta 1e-4 --model meta-llama/Llama-3.2-3B-Instruct --dataset math --fixed-length \
    --num-steps 500 --num-problems 32 --max-total-tokens 2048 --exp-name llama-3.2-3b_fixed_tilted_alpha4_beta1e-4 --output-dir runs/paper
run=$(echo runs/paper/llama-3.2-3b_fixed_tilted_alpha4_beta1e-4__*)
best_authors=$(grep -o 'step_[0-9]*' $run/checkpoints/best_authors.json)
best_honest=$(grep -o 'step_[0-9]*' $run/checkpoints/best_honest.json)
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/step_000500 --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_authors --dataset math500 minerva --n 16 --repeats 3
torchrun --nproc-per-node gpu -m -- common.evaluate --model $run/checkpoints/$best_honest --dataset math500 minerva --n 16 --repeats 3
EOF

finish
