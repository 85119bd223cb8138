#!/usr/bin/env bash
# Table 2: task reward and sharpening, fixed against variable length, Pass@1 of Math-500 and Minerva. It has no runs of its own: its rows
# are in Tables 3 to 10, whose scripts print and run them. At the end, the report shows Table 2 beside the paper's.
# Usage: bash benchmark/tables/table_02.sh [--dry-run] [--rows REGEX]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

failed=0
for table in table_03_04 table_05_06 table_07_08 table_09_10; do
    bash benchmark/tables/$table.sh --part --rows '_(task|sharpen)$' "$@" || failed=1
done
case " $* " in *" --dry-run "*) ;; *) .venv/bin/python -m benchmark.tables.report runs/paper --tables 2 || failed=1 ;; esac
exit $failed
