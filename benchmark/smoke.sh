#!/usr/bin/env bash
# Does all of it work here? One tiny run of each of the five scripts and of their evaluation on the built-in miniature, several rows in
# one process, and a report page; through vLLM where there is a GPU. Minutes on any machine; nothing but packages is downloaded.
# Usage: bash benchmark/smoke.sh     says "smoke: all well", or which parts failed and where their logs are
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash benchmark/setup.sh
export PATH=$PWD/.venv/bin:$PATH PYTHONPATH=$PWD TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1
if ! nvidia-smi >/dev/null 2>&1; then export OMP_NUM_THREADS=1; fi

out=runs/smoke-$(date +%Y%m%d-%H%M%S)
training="--model toy --dataset toy --max-total-tokens 64 --num-steps 2 --num-problems 4 --validation-size 4 --output-dir $out"
test="--dataset toy_test --max-total-tokens 64 --limit 4"
failed=()
mkdir -p "$out/logs"

part() { # NAME <<commands    up to the first that fails
    local log=$out/logs/$1.log commands
    commands=$(cat)
    SECONDS=0
    if bash -euc "$commands" >"$log" 2>&1 </dev/null; then
        echo "smoke: $1 well, $SECONDS s"
    else
        echo "smoke: $1 FAILED, log $log" && failed+=("$1")
    fi
}

part miniature <<EOF
python -c "from common.toy import toy_path; toy_path()"
EOF
part task <<EOF
python rloo_task.py $training --exp-name task
python -m common.evaluate --model $out/task__*/checkpoints/step_000002 $test --n 2
EOF
part sharpen <<EOF
python rloo_sharpen.py $training --exp-name sharpen
python -m common.evaluate --model $out/sharpen__*/checkpoints/step_000002 $test --n 2
EOF
part tilted <<EOF
python rloo_tilted.py --alpha 2 --beta 0.1 $training --exp-name tilted
python -m common.evaluate --model $out/tilted__*/checkpoints/step_000002 $test --n 2
EOF
part power <<EOF
python power_sampling.py --model toy $test --n 2 --alpha 2 --num-moves 2 --output-dir $out/results
EOF
part beam <<EOF
python beam_eval.py --model toy $test --num-beams 2 --output-dir $out/results
EOF
part one_process <<EOF
python -m benchmark.run_rows --folder $out <<ROWS
# fixed
python rloo_task.py --fixed-length $training --exp-name fixed
python -m common.evaluate --model $out/fixed__*/checkpoints/step_000002 $test --n 2
# base
python -m common.evaluate --model toy $test --n 2 --output-dir $out/results/base
ROWS
EOF
part report <<EOF
python -m benchmark.tables.report $out --tables
ls $out/report/report.html
EOF

if [ ${#failed[@]} -gt 0 ]; then
    echo "smoke: failed: ${failed[*]}" >&2
    exit 1
fi
echo "smoke: all well; the page is $out/report/report.html"
