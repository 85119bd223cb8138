#!/usr/bin/env bash
# Tables 5 and 6: Qwen2.5-3B-Instruct, fixed length: EOS is an ordinary token in training (App. B). Both tables come from the same runs.
# The comments are the paper's Pass@1, Pass@16 and Maj@16 in per cent (beam search: Pass@1 only), of the last and the best checkpoint.
# Base, plain sampling, power sampling and beam search are the rows of table_03_04.sh.
# GPU model, hours and memory of the rows: not measured.
# Usage: bash benchmark/tables/table_05_06.sh [--dry-run] [--rows REGEX]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

model=Qwen/Qwen2.5-3B-Instruct short=qwen2.5-3b length=fixed
test="--dataset math500 minerva"
train="--dataset math --fixed-length --num-steps 500 --num-problems 32 --max-total-tokens 2048"

table() {
    train task rloo_task.py       # last Math-500 65.8 89.4 70.8, Minerva 26.7 46.2 29.4
                                  # best Math-500 65.8 90.4 70.7, Minerva 26.9 49.0 28.2
    train sharpen rloo_sharpen.py # last Math-500 60.0 79.6 63.5, Minerva 24.6 43.1 26.5
                                  # best Math-500 63.1 87.2 68.9, Minerva 26.1 47.9 28.7
    # tilted 1 inf: as in the paper, Base, whose distribution is the optimum
    tilted 1 1e-2                 # last Math-500 60.9 89.0 68.8, Minerva 24.1 48.0 27.3
                                  # best Math-500 60.6 89.1 67.8, Minerva 24.0 48.7 26.3
    tilted 1 1e-4                 # last Math-500 65.5 88.9 69.9, Minerva 26.5 46.6 27.6
                                  # best Math-500 65.2 89.3 71.1, Minerva 26.2 47.5 28.6
    tilted 1.25 inf               # last Math-500 62.1 88.3 69.3, Minerva 26.0 49.1 28.7
                                  # best Math-500 60.5 88.9 68.9, Minerva 23.6 48.0 26.1
    tilted 1.25 1e-2              # last Math-500 63.0 88.5 69.9, Minerva 25.7 47.2 28.7
                                  # best Math-500 63.6 89.3 69.7, Minerva 25.7 46.8 27.6
    tilted 1.25 1e-4              # Math-500 65.2 88.5 70.9, Minerva 25.7 48.4 27.2
    tilted 2 inf                  # last Math-500 61.2 86.4 67.1, Minerva 24.4 47.2 28.9
                                  # best Math-500 63.9 88.3 69.7, Minerva 24.5 46.7 27.9
    tilted 2 1e-2                 # last Math-500 63.8 89.1 69.7, Minerva 26.4 48.3 28.6
                                  # best Math-500 63.9 89.1 68.8, Minerva 26.2 47.5 28.8
    tilted 2 1e-4                 # last Math-500 65.3 89.9 69.5, Minerva 26.6 47.4 29.9
                                  # best Math-500 65.3 88.9 70.3, Minerva 26.7 47.4 28.3
    tilted 4 inf                  # last Math-500 61.2 84.2 64.9, Minerva 24.3 45.0 26.7
                                  # best Math-500 64.3 89.8 70.8, Minerva 24.7 46.9 27.7
    tilted 4 1e-2                 # last Math-500 64.0 87.7 68.5, Minerva 24.1 46.0 26.3
                                  # best Math-500 64.1 90.0 71.3, Minerva 25.0 47.7 26.8
    tilted 4 1e-4                 # last Math-500 65.5 88.9 71.2, Minerva 25.3 46.3 28.1
                                  # best Math-500 65.5 88.1 70.0, Minerva 25.3 47.2 26.2
}

table | run "5 6" "$@"
