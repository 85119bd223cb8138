#!/usr/bin/env bash
# The objectives of Table 1 on the built-in miniature: three seeds of tilted sampling, variable and fixed length, the hard level, two other
# shares of guesses, and README's two examples. About an hour on two CPU cores.
# Usage: bash benchmark/miniature.sh [OUTPUT]     a row that has its results is skipped; the table at the end is benchmark/miniature.py's
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash benchmark/setup.sh
export PATH=$PWD/.venv/bin:$PATH PYTHONPATH=$PWD
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1
out=${1:-runs/miniature}
common="--num-steps 100 --learning-rate 3e-4 --warmup-steps 10 --eval-every 10 --validation-size 200 --no-checkpoint-activations
    --sampler transformers --num-grading-workers 1"
easy="--model toy --dataset toy --max-total-tokens 64"
hard="--model toy --dataset toy_hard --max-total-tokens 96"

row() { # name, then the command of the row without what all rows share
    local name=$1 && shift
    if compgen -G "$out/${name}__*/results/step_000100/*__n16__seed1.json" >/dev/null; then return; fi
    echo "miniature: $name: $*"
    rm -rf "$out/${name}"__*
    "$@" $common --exp-name "$name" --output-dir "$out" >"$out/$name.log" 2>&1
    evaluate "$out/${name}"__*/checkpoints/step_000100 >>"$out/$name.log" 2>&1
}

evaluate() { # model, then more arguments: on the level that the row was trained on
    local test="--dataset toy_test --max-total-tokens 64"
    if [[ $* == *hard* ]]; then test="--dataset toy_hard_test --max-total-tokens 96"; fi
    python -m common.evaluate --model "$@" $test --limit 200 --n 16 --sampler transformers --num-grading-workers 1
}

other() { python -c "from common.toy import OTHER_CONFIGS, toy_path; print(toy_path(OTHER_CONFIGS['$1']))" | tail -n 1; }

mkdir -p "$out"
row tilted_seed1 python rloo_tilted.py --alpha 2 --beta 0.1 --seed 1 $easy
row task python rloo_task.py --seed 1 $easy
row sharpen python rloo_sharpen.py --seed 1 $easy
row tempered python rloo_tilted.py --alpha 2 --beta inf --seed 1 $easy
row tilted_seed2 python rloo_tilted.py --alpha 2 --beta 0.1 --seed 2 $easy
row tilted_seed3 python rloo_tilted.py --alpha 2 --beta 0.1 --seed 3 $easy
row task_fixed python rloo_task.py --fixed-length --seed 1 $easy
row sharpen_fixed python rloo_sharpen.py --fixed-length --seed 1 $easy
row tempered_fixed python rloo_tilted.py --alpha 2 --beta inf --fixed-length --seed 1 $easy
row tilted_fixed python rloo_tilted.py --alpha 2 --beta 0.1 --fixed-length --seed 1 $easy

# README, "Copy and modify"
sed 's/return -log_ratio.*/return torch.rand_like(r_task)/' rloo_tilted.py >"$out/random_reward.py"
sed 's/return -log_ratio.*/return logp_base \/ length/' rloo_tilted.py >"$out/logp_per_token.py"
row random_reward python "$out/random_reward.py" --seed 1 $easy
row logp_per_token python "$out/logp_per_token.py" --seed 1 $easy

row task_hard python rloo_task.py --seed 1 $hard
row sharpen_hard python rloo_sharpen.py --seed 1 $hard

for shares in more-guesses fewer-guesses; do
    model=$(other $shares)
    shared="--model $model --dataset toy --max-total-tokens 64"
    row "tilted_$shares" python rloo_tilted.py --alpha 2 --beta 0.1 --seed 1 $shared
    row "task_$shares" python rloo_task.py --seed 1 $shared
    row "sharpen_$shares" python rloo_sharpen.py --seed 1 $shared
    evaluate "$model" --output-dir "$out/base_$shares" >"$out/base_$shares.log" 2>&1
done
evaluate toy --output-dir "$out/base" >"$out/base.log" 2>&1
evaluate toy --output-dir "$out/base_hard" >"$out/base_hard.log" 2>&1
python benchmark/miniature.py "$out"
