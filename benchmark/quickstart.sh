#!/usr/bin/env bash
# The whole project in minutes on two CPU cores: set-up, the built-in miniature, training with rloo_tilted.py, Base and the trained
# model evaluated on 200 held-out problems, and where the curves are. A GPU is not needed and not used for the miniature's size.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash benchmark/setup.sh
export PATH=$PWD/.venv/bin:$PATH OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1

seed=${1:-1}
name=quickstart-$(date +%Y%m%d-%H%M%S)
echo "quickstart: training the miniature with rloo_tilted.py"
python rloo_tilted.py --alpha 2 --beta 0.1 --model toy --dataset toy --max-total-tokens 64 --num-steps 60 --learning-rate 3e-4 \
    --warmup-steps 10 --eval-every 20 --validation-size 200 --seed "$seed" --sampler transformers --no-checkpoint-activations \
    --num-grading-workers 2 --exp-name "$name"
run=$(ls -d runs/"$name"__toy__*)

echo "quickstart: evaluating Base and the trained model, 200 held-out problems x 16"
python -m common.evaluate --model toy --dataset toy_test --limit 200 --n 16 --max-total-tokens 64 --sampler transformers \
    --num-grading-workers 2 --output-dir "$run/results/base"
python -m common.evaluate --run "$run" --checkpoint last --dataset toy_test --limit 200 --n 16 --max-total-tokens 64 \
    --sampler transformers --num-grading-workers 2

python - "$run" <<'EOF'
import json
import sys
from pathlib import Path

results = Path(sys.argv[1]) / "results"
print(f"\n{'':22}{'Pass@1 %':>14}{'Pass@16 %':>14}{'Maj@16 %':>14}{'tokens':>14}")
for name, folder in (("Base", results / "base"), ("tilted, after 60 steps", results)):
    metrics = json.loads((folder / "summary.json").read_text())["results"][0]["metrics"]["authors"]
    cells = [f"{100 * metrics[k]:.1f} ± {100 * metrics[k + '_se']:.1f}" for k in ("pass_at_1", "pass_at_16", "maj_at_16")]
    cells.append(f"{metrics['response_length']:.1f} ± {metrics['response_length_se']:.1f}")
    print(f"{name:22}" + "".join(f"{cell:>14}" for cell in cells))
print(f"\nrun folder: {sys.argv[1]}\ncurves:     .venv/bin/tensorboard --logdir runs\nresponses:  {sys.argv[1]}/samples")
EOF
