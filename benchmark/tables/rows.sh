# What the table scripts share: functions that print rows, and `run`, which hands them to benchmark/run_rows.py.
#
#     bash benchmark/tables/table_03_04.sh                  runs every row that is not complete
#     bash benchmark/tables/table_03_04.sh --dry-run        prints the commands, the paper's numbers above them
#     bash benchmark/tables/table_03_04.sh --rows REGEX     only rows whose name matches
#
# A table script sets $model, $short (the model's name in row names), $length, $test (how to evaluate) and $train (how to train).

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=runs/paper
launch="torchrun --nproc-per-node gpu"

sample() { # NAME [TEMPERATURE]    plain sampling
    echo "# ${short}_$1"
    echo "$launch -m -- common.evaluate --model $model $test --n 16 --repeats 3 ${2:+--temperature $2 }--output-dir $out/$short/plain_T${2:-1}"
}

power() { # ALPHA    power sampling: four readings of the paper's row. It reuses plain samples at T = 1 and T = 1/alpha
    local needs="${short}_base" mode
    case $1 in 2) needs+=" ${short}_plain_T0.5" ;; 4) needs+=" ${short}_plain_T0.25" ;; esac
    for mode in mh-llm-signfix mh-llm karan-du exact; do
        echo "# ${short}_power_${mode}_alpha$1 needs $needs"
        echo "$launch power_sampling.py --model $model --alpha $1 --mode $mode --num-moves 10 $test --n 16 --repeats 3 --output-dir $out/$short"
    done
}

beam() { # RULE    beam search. The text says length penalty 0, the public harness has 1: one search serves both
    echo "# ${short}_beam_$1"
    echo "$launch beam_eval.py --model $model --num-beams 4 --length-penalty 0 1 --rule $1 $test --output-dir $out/$short"
}

train() { # NAME SCRIPT ARGUMENTS...    a training run, then its last checkpoint and both of its best
    local name=${short}_${length}_$1
    echo "# $name"
    echo "$launch ${*:2} --model $model $train --exp-name $name --output-dir $out"
    echo "$launch -m -- common.evaluate --run $out/${name}__* --checkpoint last best_authors best_held_out $test --n 16 --repeats 3"
}

tilted() { # ALPHA BETA
    train "tilted_alpha$1_beta$2" rloo_tilted.py --alpha "$1" --beta "$2"
}

run() { # TABLES ARGUMENTS...    runs the rows on standard input, which belong to these tables of the paper
    local rows chosen
    rows=$(python3 -m benchmark.tables.paper $1)
    chosen=$(python3 -m benchmark.run_rows --folder $out --dry-run "${@:2}" <<<"$rows") # refuses a wrong argument at once
    [ "$chosen" ] || return 0
    case " ${*:2} " in *" --dry-run "*) ;; *) bash benchmark/setup.sh ;; esac
    export PATH=$PWD/.venv/bin:$PATH TOKENIZERS_PARALLELISM=false
    python3 -m benchmark.run_rows --folder $out "${@:2}" <<<"$rows"
}
