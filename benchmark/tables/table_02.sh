#!/usr/bin/env bash
# Table 2: fixed against variable length, Pass@1 of Math-500 and Minerva, per cent. No runs of its own: the rows of Tables 3 to 10.
# Usage: bash benchmark/tables/table_02.sh [--dry-run] [--rows REGEX]     see benchmark/tables/rows.sh
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/rows.sh"

# Dist. Sharpening, Llama-3.2-3B-Instruct, fixed
# Table 2: last 44.5 18.3, best 45.5 18.1
link llama-3.2-3b_fixed_sharpen table_09_10.sh

# Dist. Sharpening, Llama-3.2-3B-Instruct, variable
# Table 2: last 1.9 0.4, best 40.9 12.2
link llama-3.2-3b_variable_sharpen table_07_08.sh

# Task-Reward, Llama-3.2-3B-Instruct, fixed
# Table 2: last 50.6 17.3, best 50.7 17.4
link llama-3.2-3b_fixed_task table_09_10.sh

# Task-Reward, Llama-3.2-3B-Instruct, variable
# Table 2: last 51.5 19.2, best 51.5 19.0
link llama-3.2-3b_variable_task table_07_08.sh

# Dist. Sharpening, Qwen2.5-3B-Instruct, fixed
# Table 2: last 60.0 24.6, best 63.1 26.1
link qwen2.5-3b_fixed_sharpen table_05_06.sh

# Dist. Sharpening, Qwen2.5-3B-Instruct, variable
# Table 2: last 19.6 10.4, best 63.5 25.2
link qwen2.5-3b_variable_sharpen table_03_04.sh

# Task-Reward, Qwen2.5-3B-Instruct, fixed
# Table 2: last 65.8 26.7, best 65.8 26.9
link qwen2.5-3b_fixed_task table_05_06.sh

# Task-Reward, Qwen2.5-3B-Instruct, variable
# Table 2: last 66.9 27.2, best 66.8 26.6
link qwen2.5-3b_variable_task table_03_04.sh

finish
[ "$dry_run" ] || python -m benchmark.tables.report runs/paper --tables 2
