#!/usr/bin/env bash
# Tables 7 and 8: Llama-3.2-3B-Instruct, variable length. Both tables come from the same runs: last and best checkpoint.
# The comments are the paper's Pass@1, Pass@16 and Maj@16 in per cent (beam search: Pass@1 only), of the last and the best checkpoint.
# GPU model, hours and memory of the rows: not measured.
# Usage: bash benchmark/tables/table_07_08.sh [--dry-run] [--rows REGEX]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

model=meta-llama/Llama-3.2-3B-Instruct short=llama-3.2-3b length=variable
test="--dataset math500 minerva"
train="--dataset math --num-steps 500 --num-problems 32 --max-total-tokens 2048"

table() {
    sample base                   # Math-500 38.2 76.3 49.3, Minerva 10.8 37.5 14.3
    sample plain_T0.8 0.8         # not in the paper: the proposals of power sampling at alpha 1.25
    sample plain_T0.5 0.5         # not in the paper: the proposals of power sampling at alpha 2
    sample plain_T0.25 0.25       # not in the paper: the proposals of power sampling at alpha 4
    power 1                       # Math-500 30.5 70.5 40.9, Minerva 9.3 34.4 12.9
    power 2                       # Math-500 44.4 74.1 50.1, Minerva 18.2 41.3 21.1
    power 4                       # Math-500 46.3 72.2 49.6, Minerva 19.3 38.1 21.1
    beam vllm-0.11                # Math-500 44.8, Minerva 15.4
    beam transformers             # not in the paper
    train task rloo_task.py       # last Math-500 51.5 76.9 55.5, Minerva 19.2 40.6 21.8
                                  # best Math-500 51.5 79.5 57.0, Minerva 19.0 42.3 21.1
    train sharpen rloo_sharpen.py # last Math-500 1.9 2.7 1.7, Minerva 0.4 1.3 0.2
                                  # best Math-500 40.9 79.5 49.6, Minerva 12.2 39.1 14.7
    tilted 1 inf                  # Math-500 38.5 78.0 48.6, Minerva 11.4 38.0 14.0
    tilted 1 1e-2                 # Math-500 49.0 78.1 56.6, Minerva 17.6 41.1 21.6
    tilted 1 1e-4                 # last Math-500 50.9 78.5 55.9, Minerva 19.5 42.8 21.3
                                  # best Math-500 50.7 79.6 56.7, Minerva 19.3 43.4 21.6
    tilted 1.25 inf               # last Math-500 38.5 64.3 45.2, Minerva 13.9 39.2 16.4
                                  # best Math-500 43.3 79.1 50.6, Minerva 15.4 41.3 18.0
    tilted 1.25 1e-2              # last Math-500 47.5 79.1 53.3, Minerva 17.6 42.2 20.1
                                  # best Math-500 48.3 80.4 54.1, Minerva 18.3 44.5 21.0
    tilted 1.25 1e-4              # Math-500 51.6 78.5 57.3, Minerva 19.9 44.9 21.4
    tilted 2 inf                  # last Math-500 17.6 30.4 19.0, Minerva 5.3 21.1 5.9
                                  # best Math-500 44.6 78.6 52.3, Minerva 16.1 41.3 18.1
    tilted 2 1e-2                 # last Math-500 46.7 69.5 51.5, Minerva 18.4 41.7 20.3
                                  # best Math-500 48.3 75.6 54.2, Minerva 18.8 43.8 21.2
    tilted 2 1e-4                 # last Math-500 50.9 78.6 55.8, Minerva 20.1 42.3 22.4
                                  # best Math-500 51.1 78.5 56.1, Minerva 20.3 43.4 22.7
    tilted 4 inf                  # last Math-500 9.2 15.7 9.5, Minerva 1.6 8.8 1.1
                                  # best Math-500 39.9 78.2 49.7, Minerva 11.7 39.0 14.6
    tilted 4 1e-2                 # last Math-500 34.6 49.2 36.9, Minerva 12.7 24.6 12.7
                                  # best Math-500 46.2 76.5 52.1, Minerva 18.3 42.5 20.6
    tilted 4 1e-4                 # last Math-500 50.2 78.5 56.0, Minerva 19.1 42.9 21.1
                                  # best Math-500 50.1 79.2 55.5, Minerva 18.9 44.5 20.2
}

table | run "7 8" "$@"
