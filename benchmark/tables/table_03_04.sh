#!/usr/bin/env bash
# Tables 3 and 4: Qwen2.5-3B-Instruct, variable length. Both tables come from the same runs: last and best checkpoint.
# The comments are the paper's Pass@1, Pass@16 and Maj@16 in per cent (beam search: Pass@1 only), of the last and the best checkpoint.
# GPU model, hours and memory of the rows: not measured.
# Usage: bash benchmark/tables/table_03_04.sh [--dry-run] [--rows REGEX]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

model=Qwen/Qwen2.5-3B-Instruct short=qwen2.5-3b length=variable
test="--dataset math500 minerva"
train="--dataset math --num-steps 500 --num-problems 32 --max-total-tokens 2048"

table() {
    sample base                   # Math-500 58.3 87.5 66.3, Minerva 23.0 47.8 27.2
    sample plain_T0.8 0.8         # not in the paper: the proposals of power sampling at alpha 1.25
    sample plain_T0.5 0.5         # not in the paper: the proposals of power sampling at alpha 2
    sample plain_T0.25 0.25       # not in the paper: the proposals of power sampling at alpha 4
    power 1                       # Math-500 47.7 82.9 62.5, Minerva 20.6 46.8 25.6
    power 2                       # Math-500 64.8 87.1 71.1, Minerva 29.1 43.8 31.7
    power 4                       # Math-500 65.8 85.5 71.1, Minerva 30.7 44.2 32.2
    beam vllm-0.11                # Math-500 69.2, Minerva 24.6
    beam transformers             # not in the paper
    train task rloo_task.py       # last Math-500 66.9 87.9 72.1, Minerva 27.2 47.4 29.4
                                  # best Math-500 66.8 87.8 72.2, Minerva 26.6 46.4 29.0
    train sharpen rloo_sharpen.py # last Math-500 19.6 26.3 19.5, Minerva 10.4 15.9 10.7
                                  # best Math-500 63.5 88.9 69.1, Minerva 25.2 47.5 28.2
    # tilted 1 inf: as in the paper, Base, whose distribution is the optimum
    tilted 1 1e-2                 # last Math-500 64.0 88.7 70.0, Minerva 25.7 48.9 27.3
                                  # best Math-500 63.3 88.7 70.1, Minerva 25.2 48.2 25.5
    tilted 1 1e-4                 # last Math-500 66.9 88.2 71.5, Minerva 26.7 46.8 28.2
                                  # best Math-500 66.0 88.6 71.0, Minerva 26.8 47.3 28.6
    tilted 1.25 inf               # last Math-500 61.7 87.1 68.1, Minerva 25.6 46.8 28.9
                                  # best Math-500 62.4 88.9 69.1, Minerva 24.7 48.5 26.8
    tilted 1.25 1e-2              # Math-500 64.6 88.2 70.3, Minerva 26.9 48.7 28.7
    tilted 1.25 1e-4              # Math-500 66.7 88.6 71.9, Minerva 26.6 47.1 28.8
    tilted 2 inf                  # last Math-500 61.3 84.7 65.7, Minerva 26.5 45.0 28.6
                                  # best Math-500 63.1 88.1 68.6, Minerva 25.6 47.5 29.2
    tilted 2 1e-2                 # Math-500 63.7 87.0 68.5, Minerva 26.4 46.7 28.7
    tilted 2 1e-4                 # last Math-500 66.4 87.9 70.7, Minerva 26.5 47.2 28.3
                                  # best Math-500 67.6 88.4 72.5, Minerva 27.1 49.0 29.5
    tilted 4 inf                  # last Math-500 19.8 30.1 19.9, Minerva 10.8 18.9 11.0
                                  # best Math-500 63.4 88.5 70.1, Minerva 25.0 47.5 27.1
    tilted 4 1e-2                 # last Math-500 19.4 30.3 19.2, Minerva 10.5 16.2 10.9
                                  # best Math-500 63.5 88.9 69.9, Minerva 25.8 47.2 28.3
    tilted 4 1e-4                 # last Math-500 65.6 87.9 70.9, Minerva 25.9 46.7 28.3
                                  # best Math-500 66.1 88.9 70.9, Minerva 26.1 47.4 26.8
}

table | run "3 4" "$@"
