#!/usr/bin/env bash
# Questions that the paper leaves open, answered on the miniature. The runs of observations.sh are used as they are; what else is needed
# is run here. Each question has a program in benchmark/miniature/beyond/ with its method, and its rules, written before the first run.
# Usage: bash benchmark/miniature/beyond.sh [--dry-run] [--rows REGEX] [OBSERVATIONS [OUTPUT]]
#     OBSERVATIONS   the folder of observations.sh (default runs/observations), complete
#     OUTPUT         where runs and OUTPUT/page/beyond.md go (default runs/beyond)
#     --dry-run      prints the commands of the rows and runs nothing
#     --rows REGEX   only rows whose name matches, and no page
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
dry_run= rows=. folders=()
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry_run=--dry-run && shift ;;
    --rows) rows=${2:?--rows needs a regular expression} && shift 2 ;;
    -*) echo "$0: unknown argument '$1': use --dry-run, --rows REGEX, OBSERVATIONS, OUTPUT" >&2 && exit 2 ;;
    *) folders+=("$1") && shift ;;
    esac
done
observations=${folders[0]:-runs/observations} out=${folders[1]:-runs/beyond}
export PATH=$PWD/.venv/bin:$PATH
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1

cpu="--sampler transformers --num-grading-workers 1"
training="--num-steps 80 --learning-rate 3e-4 --warmup-steps 10 --eval-every 10 --validation-size 200 --no-checkpoint-activations $cpu"
easy="--dataset toy_test --max-total-tokens 64" hard="--dataset toy_hard_test --max-total-tokens 96"

length_rows() { # question 6: copies of rloo_tilted.py whose return is divided by |y|^gamma
    for alpha in 0.5 2 4; do
        for gamma in 0 0.5 1; do
            case $alpha,$gamma in 2,0 | 4,0) continue ;; esac # rows of observations.sh
            local name=length_alpha${alpha}_gamma$gamma
            echo "# $name"
            echo "python $out/length_gamma$gamma.py --alpha $alpha --beta inf --seed 1 --model toy --dataset toy --max-total-tokens 64 $training --exp-name $name --output-dir $out"
            echo "python -m common.evaluate --model $out/${name}__*/checkpoints/step_000080 $easy $cpu --output-dir $out/results/$name --n 16 --limit 200"
        done
    done
}

mixture_rows() { # question 8: easy and hard problems together
    for method in task sharpen; do
        echo "# ${method}_mixed"
        echo "python rloo_$method.py --seed 1 --model toy --dataset $out/mixed_train.jsonl --validation-dataset $out/mixed_validation.jsonl --prompt-file common/prompts/bare.txt --max-total-tokens 96 $training --exp-name ${method}_mixed --output-dir $out"
        for test in "$easy" "$hard"; do
            echo "python -m common.evaluate --model $out/${method}_mixed__*/checkpoints/step_000080 $test $cpu --output-dir $out/results/${method}_mixed --n 16 --limit 200"
        done
    done
}

skill_rows() { # question 8: a base that has seen chains of one or two operations, on four to six
    local model="--model $out/short-chains" long="--prompt-file common/prompts/bare.txt --max-total-tokens 96"
    local test="--dataset $out/skills_test.jsonl $long $cpu --n 256"
    echo "# skills_base"
    echo "python -m common.evaluate $model $test --output-dir $out/results/skills_base"
    for row in task sharpen curriculum; do
        local script=rloo_$row.py data=train
        if [ $row = curriculum ]; then script=rloo_task.py data=curriculum; fi
        echo "# skills_$row"
        echo "python $script --seed 1 $model --dataset $out/skills_$data.jsonl --validation-dataset $out/skills_validation.jsonl $long $training --exp-name skills_$row --output-dir $out"
        echo "python -m common.evaluate --model $out/skills_${row}__*/checkpoints/step_000080 $test --output-dir $out/results/skills_$row"
    done
}

all_rows() {
    length_rows
    mixture_rows
    skill_rows
}

if [ ! "$dry_run" ]; then
    all_rows | python3 -m benchmark.run_rows --folder "$out" --rows "$rows" --dry-run >/dev/null # refuses a wrong --rows
    bash benchmark/setup.sh
    mkdir -p "$out"
    for gamma in 0 0.5 1; do
        sed "s/return -log_ratio if .*/return -log_ratio \/ length**$gamma/" rloo_tilted.py >"$out/length_gamma$gamma.py"
    done
    python -m benchmark.miniature.beyond.mixture write "$out"
    python -m benchmark.miniature.beyond.new_skills write "$out"
    ln -sfn "$(python -c "from common.toy import OTHER_CONFIGS, toy_path; print(toy_path(OTHER_CONFIGS['short-chains']))" | tail -n 1)" "$out/short-chains"
fi
all_rows | python3 -m benchmark.run_rows --folder "$out" --in-process 2 --rows "$rows" $dry_run
if [ "$dry_run" ] || [ "$rows" != . ]; then exit; fi

page=$out/page
python -m benchmark.miniature.beyond.distance "$page" "$observations"
python -m benchmark.miniature.beyond.landscape "$page"
python -m benchmark.miniature.beyond.alpha_one "$page"
python -m benchmark.miniature.beyond.frontier "$page" "$observations"
python -m benchmark.miniature.beyond.compute "$page" "$observations"
python -m benchmark.miniature.beyond.taught "$page" "$observations"
python -m benchmark.miniature.beyond.length_aware "$page" "$observations" "$out"
python -m benchmark.miniature.beyond.estimators "$page"
python -m benchmark.miniature.beyond.mixture "$page" "$observations" "$out"
python -m benchmark.miniature.beyond.new_skills "$page" "$out"
{
    printf '# Beyond the paper, on the miniature\n\nMade by `bash benchmark/miniature/beyond.sh`; every number belongs to the miniature.\n\n'
    for name in distance landscape alpha_one frontier compute taught length_aware estimators mixture new_skills; do cat "$page/$name.md" && echo; done
} >"$page/beyond.md"
echo "page: $page/beyond.md"
