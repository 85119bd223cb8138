#!/usr/bin/env bash
# The paper's five observations on the built-in miniature: 113 minutes of processor time on two CPU cores. Nothing is downloaded.
# Usage: bash benchmark/miniature/observations.sh [--quick] [--dry-run] [--rows REGEX] [OUTPUT]
#     --quick        six runs of 60 steps and no verdicts, 7 minutes on two cores
#     --dry-run      prints the commands of the rows and runs nothing
#     --rows REGEX   only rows whose name matches, and no page
# The result is OUTPUT/page/ (default runs/observations/page/): what each observation predicts, what was measured, and agree, disagree
# or undecided by the rules in benchmark/miniature/observations.py, which were written down before the first run. Complete rows are
# skipped and stopped ones resumed, so it can be called again at any time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
quick= dry_run= rows=. out=
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=--quick && shift ;;
    --dry-run) dry_run=--dry-run && shift ;;
    --rows) rows=${2:?--rows needs a regular expression} && shift 2 ;;
    -*) echo "$0: unknown argument '$1': use --quick, --dry-run, --rows REGEX, OUTPUT" >&2 && exit 2 ;;
    *) out=$1 && shift ;;
    esac
done
out=${out:-runs/observations${quick:+-quick}}
export PATH=$PWD/.venv/bin:$PATH
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1

steps=${quick:+60}
steps=${steps:-80}
last=step_$(printf %06d $steps)
cpu="--sampler transformers --num-grading-workers 1"
training="--num-steps $steps --learning-rate 3e-4 --warmup-steps 10 --eval-every 10 --validation-size 200 --keep-all-checkpoints --no-checkpoint-activations $cpu"
easy="--dataset toy_test --max-total-tokens 64" hard="--dataset toy_hard_test --max-total-tokens 96"

base() { # NAME MODEL TEST N LIMIT [TEMPERATURE]    a model without training
    echo "# $1"
    echo "python -m common.evaluate --model $2 $3 --n $4 --limit $5 --temperature ${6:-1} $cpu --output-dir $out/results/$1"
}

train() { # NAME TEMPERATURE LEVEL MODEL SCRIPT ARGUMENTS...    a training run, then its last checkpoint at T = 1 and at TEMPERATURE
    local name=$1 temperature=$2 level=$3 model=$4 test=$easy
    if [ "$level" = toy_hard ]; then test=$hard; fi
    local evaluate="python -m common.evaluate --model $out/${name}__*/checkpoints/$last $test $cpu --output-dir $out/results/$name"
    echo "# $name"
    echo "python ${*:5} --model $model --dataset $level --max-total-tokens ${test##* } $training --exp-name $name --output-dir $out"
    echo "$evaluate --n 16 --limit 200"
    [ "$temperature" = 1 ] || echo "${evaluate}_cool --n 16 --limit 200 --temperature $temperature"
    case $name$quick in # Pass@k
    task_seed1 | sharpen_seed1 | tilted_seed1 | task_hard | sharpen_hard) echo "${evaluate}_256 --n 256 --limit 100" ;;
    esac
}

objectives() { # SUFFIX ARGUMENTS...    the four objectives of Table 1
    train "task_$1" 0.5 toy toy rloo_task.py "${@:2}"
    train "sharpen_$1" 0.5 toy toy rloo_sharpen.py "${@:2}"
    train "tempered_$1" 0.5 toy toy rloo_tilted.py --alpha 2 --beta inf "${@:2}"
    train "tilted_$1" 0.5 toy toy rloo_tilted.py --alpha 2 --beta 0.1 "${@:2}"
}

power() { # NAME ARGUMENTS...
    echo "# $1"
    echo "python power_sampling.py --model toy $easy --limit 100 --n 4 $cpu --output-dir $out/results/$1 ${*:2}"
}

quick_rows() {
    base base toy "$easy" 16 200
    base base_hard toy "$hard" 16 200
    objectives seed1 --seed 1
    train task_hard 0.5 toy_hard toy rloo_task.py --seed 1
    train sharpen_hard 0.5 toy_hard toy rloo_sharpen.py --seed 1
}

rows() {
    quick_rows
    objectives fixed_seed1 --fixed-length --seed 1
    for seed in 2 3; do
        objectives seed$seed --seed $seed
        objectives fixed_seed$seed --fixed-length --seed $seed
    done
    for seed in 4 5; do # at variable length, sharpening ends elsewhere with every seed
        objectives seed$seed --seed $seed
    done
    # the rest of the paper's grid, alpha {1, 1.25, 2, 4} by beta {inf, and two that matter on the miniature}
    while read -r alpha beta cool; do
        train "alpha${alpha}_beta$beta" "$cool" toy toy rloo_tilted.py --alpha "$alpha" --beta "$beta" --seed 1
    done <<<"1 inf 1
1 0.3 1
1 0.1 1
1.25 inf 0.8
1.25 0.3 0.8
1.25 0.1 0.8
2 0.3 0.5
4 inf 0.25
4 0.3 0.25
4 0.1 0.25"
    # controls
    train random_reward 0.5 toy toy "$out/random_reward.py" --alpha 1 --beta 1 --seed 1
    train logp_per_token 0.5 toy toy "$out/logp_per_token.py" --alpha 1 --beta 1 --seed 1
    # two other bases, which differ in the share of guesses only
    for shares in more-guesses fewer-guesses; do
        base "base_$shares" "$out/$shares" "$easy" 16 200
        train "task_$shares" 0.5 toy "$out/$shares" rloo_task.py --seed 1
        train "sharpen_$shares" 0.5 toy "$out/$shares" rloo_sharpen.py --seed 1
    done
    # no training
    base base_256 toy "$easy" 256 100
    base base_hard_256 toy "$hard" 256 100
    for cool in 0.8 0.5 0.25; do
        base "base_T$cool" toy "$easy" 16 200 $cool
        base "base_hard_T$cool" toy "$hard" 16 200 $cool
    done
    for beams in 1 4 16 64; do
        echo "# beam$beams"
        for test in "$easy" "$hard"; do
            echo "python beam_eval.py --model toy $test --limit 200 --num-beams $beams --length-penalty 0 1 $cpu --output-dir $out/results/beam$beams"
        done
    done
    for moves in 0 1 10 100; do
        for mode in exact karan-du mh-llm mh-llm-signfix; do
            power "power_${mode}_$moves" --alpha 2 --mode $mode --num-moves $moves --block-size 0
        done
        power "power4_exact_$moves" --alpha 4 --mode exact --num-moves $moves --block-size 0
    done
    for mode in karan-du mh-llm mh-llm-signfix; do # as published: a 16th of the window a block, 10 moves a block
        power "power_${mode}_blocks" --alpha 2 --mode $mode --num-moves 10
    done
}

if [ ! "$dry_run" ]; then
    ${quick:+quick_}rows | python3 -m benchmark.run_rows --folder "$out" --rows "$rows" --dry-run >/dev/null # refuses a wrong --rows
    bash benchmark/setup.sh
    mkdir -p "$out"
    sed 's/return -log_ratio.*/return torch.rand_like(r_task)/' rloo_tilted.py >"$out/random_reward.py"
    sed 's/return -log_ratio.*/return logp_base \/ length/' rloo_tilted.py >"$out/logp_per_token.py"
    python -c "from common.toy import toy_path; toy_path()"
    if [ ! "$quick" ]; then
        for shares in more-guesses fewer-guesses; do
            ln -sfn "$(python -c "from common.toy import OTHER_CONFIGS, toy_path; print(toy_path(OTHER_CONFIGS['$shares']))" | tail -n 1)" "$out/$shares"
        done
    fi
fi
${quick:+quick_}rows | python3 -m benchmark.run_rows --folder "$out" --in-process 2 --rows "$rows" $dry_run
if [ ! "$dry_run" ] && [ "$rows" = . ]; then python -m benchmark.miniature.observations "$out" $quick; fi
