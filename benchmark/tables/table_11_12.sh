#!/usr/bin/env bash
# Tables 11 and 12: Qwen3-4B-Instruct-2507, variable length. Both tables come from the same runs: last and best checkpoint.
# The comments are the paper's Pass@1, Pass@16 and Maj@16 in per cent (beam search: Pass@1 only), of the last and the best checkpoint.
# GPU model, hours and memory of the rows: not measured.
# Usage: bash benchmark/tables/table_11_12.sh [--dry-run] [--rows REGEX]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

model=Qwen/Qwen3-4B-Instruct-2507 short=qwen3-4b length=variable
test="--dataset aime24 aime25 hmmt25 --max-total-tokens 4096"
train="--dataset deepscaler --num-steps 1000 --num-problems 64 --max-total-tokens 4096"

table() {
    sample base                   # AIME 2024 29.5 45.6 37.8, AIME 2025 27.6 40.0 30.0, HMMT 2025 9.4 21.1 12.2
    sample plain_T0.8 0.8         # not in the paper: the proposals of power sampling at alpha 1.25
    sample plain_T0.5 0.5         # not in the paper: the proposals of power sampling at alpha 2
    sample plain_T0.25 0.25       # not in the paper: the proposals of power sampling at alpha 4
    power 1                       # AIME 2024 22.4 47.8 31.1, AIME 2025 16.0 28.9 23.3, HMMT 2025 5.5 15.6 6.7
    power 2                       # AIME 2024 28.1 55.6 31.1, AIME 2025 23.7 33.3 25.6, HMMT 2025 7.5 21.1 10.0
    power 4                       # AIME 2024 27.6 52.2 34.4, AIME 2025 24.4 31.1 27.8, HMMT 2025 6.9 21.1 5.6
    beam vllm-0.11                # AIME 2024 30.0, AIME 2025 26.7, HMMT 2025 6.7
    beam transformers             # not in the paper
    train task rloo_task.py       # last AIME 2024 40.9 66.7 46.7, AIME 2025 32.2 52.2 37.8, HMMT 2025 16.6 32.2 20.0
                                  # best AIME 2024 43.4 64.4 50.0, AIME 2025 29.0 48.9 32.2, HMMT 2025 16.6 26.7 20.0
    train sharpen rloo_sharpen.py # last AIME 2024 12.0 23.3 15.6, AIME 2025 19.9 25.6 23.3, HMMT 2025 4.9 10.0 5.6
                                  # best AIME 2024 35.4 60.0 40.0, AIME 2025 28.5 53.3 32.2, HMMT 2025 13.6 30.0 20.0
    # tilted 1 inf: as in the paper, Base, whose distribution is the optimum
    tilted 1 1e-2                 # last AIME 2024 36.9 56.7 45.6, AIME 2025 29.3 48.9 33.3, HMMT 2025 12.1 26.7 16.7
                                  # best AIME 2024 36.4 58.9 44.4, AIME 2025 29.5 48.9 33.3, HMMT 2025 12.6 22.2 18.9
    tilted 1 1e-4                 # AIME 2024 45.3 71.1 45.6, AIME 2025 35.8 56.7 42.2, HMMT 2025 16.0 32.2 15.6
    tilted 1.25 inf               # last AIME 2024 35.2 62.2 42.2, AIME 2025 28.3 52.2 33.3, HMMT 2025 15.3 28.9 22.2
                                  # best AIME 2024 34.0 61.1 40.0, AIME 2025 27.4 47.8 33.3, HMMT 2025 14.7 30.0 21.1
    tilted 1.25 1e-2              # last AIME 2024 36.3 60.0 44.4, AIME 2025 30.1 53.3 35.6, HMMT 2025 16.0 33.3 21.1
                                  # best AIME 2024 37.0 64.4 44.4, AIME 2025 29.6 52.2 34.4, HMMT 2025 15.9 32.2 22.2
    tilted 1.25 1e-4              # last AIME 2024 44.2 66.7 46.7, AIME 2025 32.2 50.0 36.7, HMMT 2025 18.1 36.7 18.9
                                  # best AIME 2024 47.0 65.6 55.6, AIME 2025 33.6 52.2 40.0, HMMT 2025 17.0 28.9 18.9
    tilted 2 inf                  # last AIME 2024 22.2 41.1 25.6, AIME 2025 18.6 32.2 22.2, HMMT 2025 8.6 17.8 8.9
                                  # best AIME 2024 34.6 62.2 43.3, AIME 2025 28.1 45.6 35.6, HMMT 2025 15.3 32.2 22.2
    tilted 2 1e-2                 # last AIME 2024 31.4 54.4 35.6, AIME 2025 25.6 48.9 26.7, HMMT 2025 14.2 31.1 14.4
                                  # best AIME 2024 36.7 70.0 43.3, AIME 2025 26.9 53.3 28.9, HMMT 2025 14.0 33.3 20.0
    tilted 2 1e-4                 # last AIME 2024 44.4 64.4 47.8, AIME 2025 34.0 55.6 36.7, HMMT 2025 15.5 32.2 13.3
                                  # best AIME 2024 45.0 67.8 47.8, AIME 2025 33.0 52.2 37.8, HMMT 2025 16.1 32.2 16.7
    tilted 4 inf                  # AIME 2024 23.0 42.2 24.4, AIME 2025 18.4 22.2 20.0, HMMT 2025 8.3 13.3 8.9
    tilted 4 1e-2                 # last AIME 2024 24.1 40.0 28.9, AIME 2025 24.2 34.4 26.7, HMMT 2025 9.0 21.1 8.9
                                  # best AIME 2024 34.0 61.1 38.9, AIME 2025 27.6 48.9 32.2, HMMT 2025 15.5 37.8 21.1
    tilted 4 1e-4                 # last AIME 2024 40.1 66.7 50.0, AIME 2025 32.5 56.7 35.6, HMMT 2025 17.7 37.8 20.0
                                  # best AIME 2024 42.8 67.8 46.7, AIME 2025 29.4 52.2 32.2, HMMT 2025 18.1 33.3 20.0
}

table | run "11 12" "$@"
