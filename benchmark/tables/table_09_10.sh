#!/usr/bin/env bash
# Tables 9 and 10: Llama-3.2-3B-Instruct, fixed length: EOS is an ordinary token in training (App. B). Both tables come from the same runs.
# The comments are the paper's Pass@1, Pass@16 and Maj@16 in per cent (beam search: Pass@1 only), of the last and the best checkpoint.
# Base, plain sampling, power sampling and beam search are the rows of table_07_08.sh.
# GPU model, hours and memory of the rows: not measured.
# Usage: bash benchmark/tables/table_09_10.sh [--dry-run] [--rows REGEX]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

model=meta-llama/Llama-3.2-3B-Instruct short=llama-3.2-3b length=fixed
test="--dataset math500 minerva"
train="--dataset math --fixed-length --num-steps 500 --num-problems 32 --max-total-tokens 2048"

table() {
    train task rloo_task.py       # last Math-500 50.6 79.2 55.5, Minerva 17.3 41.9 18.9
                                  # best Math-500 50.7 79.0 56.6, Minerva 17.4 41.4 19.1
    train sharpen rloo_sharpen.py # last Math-500 44.5 72.4 48.2, Minerva 18.3 39.0 20.1
                                  # best Math-500 45.5 72.3 49.4, Minerva 18.1 39.7 20.5
    # tilted 1 inf: as in the paper, the row of table_07_08.sh
    tilted 1 1e-2                 # last Math-500 46.7 78.9 54.7, Minerva 16.3 43.4 18.5
                                  # best Math-500 46.6 79.8 55.2, Minerva 16.2 43.5 18.1
    tilted 1 1e-4                 # Math-500 49.9 78.1 55.3, Minerva 18.7 42.4 21.9
    tilted 1.25 inf               # last Math-500 45.7 79.9 52.3, Minerva 17.1 43.1 20.0
                                  # best Math-500 45.6 79.9 52.8, Minerva 16.8 43.4 18.9
    tilted 1.25 1e-2              # last Math-500 46.2 80.4 54.1, Minerva 16.3 41.7 19.4
                                  # best Math-500 46.3 80.6 53.5, Minerva 16.4 42.5 19.1
    tilted 1.25 1e-4              # last Math-500 49.6 78.5 55.3, Minerva 19.2 42.8 20.8
                                  # best Math-500 49.6 78.4 55.3, Minerva 19.0 45.3 21.1
    tilted 2 inf                  # last Math-500 46.4 77.5 51.9, Minerva 18.0 41.9 20.0
                                  # best Math-500 46.4 77.8 51.7, Minerva 18.5 42.6 20.5
    tilted 2 1e-2                 # Math-500 45.7 78.3 52.8, Minerva 17.2 42.3 20.2
    tilted 2 1e-4                 # last Math-500 50.2 78.4 56.5, Minerva 18.9 42.2 22.3
                                  # best Math-500 50.0 79.9 56.8, Minerva 18.5 40.9 20.7
    tilted 4 inf                  # last Math-500 44.7 75.9 48.9, Minerva 18.0 42.8 17.0
                                  # best Math-500 45.7 77.0 49.6, Minerva 18.4 41.8 20.0
    tilted 4 1e-2                 # last Math-500 45.8 77.2 50.9, Minerva 17.9 43.3 19.2
                                  # best Math-500 45.5 76.9 50.1, Minerva 17.6 42.5 19.9
    tilted 4 1e-4                 # last Math-500 48.9 78.9 54.9, Minerva 18.1 41.9 20.6
                                  # best Math-500 48.1 79.5 54.5, Minerva 17.2 42.2 19.1
}

table | run "9 10" "$@"
