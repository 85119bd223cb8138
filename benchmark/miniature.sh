#!/usr/bin/env bash
# The four objectives of Table 1 on the built-in miniature, at variable and at fixed length: about 40 minutes on two CPU cores.
# Usage: bash benchmark/miniature.sh [OUTPUT]     a row that has its results is skipped; the table at the end is benchmark/miniature.py's
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash benchmark/setup.sh
export PATH=$PWD/.venv/bin:$PATH OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1
out=${1:-runs/miniature}
common="--model toy --dataset toy --max-total-tokens 64 --num-steps 100 --learning-rate 3e-4 --warmup-steps 10 --eval-every 10
    --validation-size 200 --no-checkpoint-activations --sampler transformers --num-grading-workers 1"
evaluation="--dataset toy_test --limit 200 --n 16 --max-total-tokens 64 --sampler transformers --num-grading-workers 1"

row() { # name, then the command of the row without what all rows share
    local name=$1 && shift
    if compgen -G "$out/${name}__toy__*/results/step_000100/toy_test__n16__seed1.json" >/dev/null; then return; fi
    echo "miniature: $name: $*"
    rm -rf "$out/${name}"__toy__*
    "$@" $common --exp-name "$name" --output-dir "$out" >"$out/$name.log" 2>&1
    python -m common.evaluate --model "$out/${name}"__toy__*/checkpoints/step_000100 $evaluation >>"$out/$name.log" 2>&1
}

mkdir -p "$out"
row tilted_seed1 python rloo_tilted.py --alpha 2 --beta 0.1 --seed 1
row task python rloo_task.py --seed 1
row sharpen python rloo_sharpen.py --seed 1
row tempered python rloo_tilted.py --alpha 2 --beta inf --seed 1
row tilted_seed2 python rloo_tilted.py --alpha 2 --beta 0.1 --seed 2
row tilted_seed3 python rloo_tilted.py --alpha 2 --beta 0.1 --seed 3
row task_fixed python rloo_task.py --fixed-length --seed 1
row sharpen_fixed python rloo_sharpen.py --fixed-length --seed 1
row tempered_fixed python rloo_tilted.py --alpha 2 --beta inf --fixed-length --seed 1
row tilted_fixed python rloo_tilted.py --alpha 2 --beta 0.1 --fixed-length --seed 1

# The two examples of README, "Copy and modify".
export PYTHONPATH=$PWD
sed 's/return -log_ratio.*/return torch.rand_like(r_task)/' rloo_tilted.py >"$out/random_reward.py"
sed 's/return -log_ratio.*/return logp_base \/ length/' rloo_tilted.py >"$out/logp_per_token.py"
row random_reward python "$out/random_reward.py" --seed 1
row logp_per_token python "$out/logp_per_token.py" --seed 1

python -m common.evaluate --model toy $evaluation --output-dir "$out/base" >"$out/base.log" 2>&1
python benchmark/miniature.py "$out"
