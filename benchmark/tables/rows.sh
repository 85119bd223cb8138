# What benchmark/tables/table_*.sh and figure_*.sh share; they call `row` and `link`, and `finish` at the end.
#
#     bash benchmark/tables/table_03_04.sh [--dry-run] [--rows REGEX]
#     --dry-run      prints the commands and runs nothing
#     --rows REGEX   only rows whose name matches, for instance one a SLURM job
#
# The commands of a row are its here-document, whole, so that they can be copied out. Runs and results are in runs/paper, and
# benchmark/tables/report.py knows when a row is complete. A complete row is skipped; one that was stopped goes on: training from its newest
# checkpoint, evaluation where it was. A row that fails stops nothing: it is listed at the end with its log, and the exit code is 1.
# The resume/ folder of a complete row is removed, since it takes 12 bytes a parameter.

out=runs/paper rows=. dry_run= failed=()
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry_run=yes && shift ;;
    --rows) rows=${2:?--rows needs a regular expression} && shift 2 ;;
    *) echo "$0: unknown argument '$1': use --dry-run or --rows REGEX" >&2 && exit 2 ;;
    esac
done
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [ ! "$dry_run" ]; then
    bash benchmark/setup.sh
    export PATH=$PWD/.venv/bin:$PATH TOKENIZERS_PARALLELISM=false
    mkdir -p $out/logs
fi

complete() { python -m benchmark.tables.report $out --has "$1"; } # prints what a row lacks

row() { # NAME [needs NAME...] <<commands    the rows that it needs must be complete
    local name=$1 log=$out/logs/$1.log commands other
    commands=$(cat)
    [[ $name =~ $rows ]] || return 0
    if [ "$dry_run" ]; then printf '\n# %s\n%s\n' "$*" "$commands" && return; fi
    if complete "$name" >/dev/null; then echo "$name: has its results" && return; fi
    for other in "${@:3}"; do
        if ! complete "$other" >/dev/null; then failed+=("$name: needs $other, which is not complete") && return; fi
    done
    echo "$name: begun $(date '+%F %T'), log $log"
    if { run_commands "$name" "$commands" && complete "$name"; } >>"$log" 2>&1; then
        echo "$name: done $(date '+%F %T')"
        rm -rf "$out/${name}__"*/resume
    else
        echo "$name: FAILED, log $log"
        failed+=("$name: failed, log $log")
    fi
}

run_commands() { # NAME COMMANDS    one after the other, up to the first that fails
    local name=$1 line expanded evaluated=$'\n'
    while read line; do # without -r: a backslash at the end of a line joins it with the next
        if [[ $line == *" rloo_"* ]]; then
            trained "$name" "$line" && continue
            line+=$(resume "$name") || return 1
        elif [[ $line == *" common.evaluate "* ]]; then
            expanded=$(eval "echo $line")
            [[ $evaluated == *$'\n'"$expanded"$'\n'* ]] && continue # the best checkpoint may be the last
            evaluated+=$expanded$'\n'
        fi
        echo "+ $line"
        eval "$line" </dev/null || return 1
    done <<<"$2"
}

trained() { # NAME COMMAND    whether the checkpoint of the last step is there
    [[ $2 =~ --num-steps\ ([0-9]+) ]]
    compgen -G "$out/${1}__*/checkpoints/$(printf 'step_%06d' "${BASH_REMATCH[1]}")/config.json" >/dev/null
}

resume() { # NAME    the argument to go on with a run that was stopped; a run without a checkpoint is begun anew
    local folder
    for folder in $(compgen -G "$out/${1}__*"); do
        if [ -e "$folder/resume/latest.json" ]; then echo " --resume $folder" && return; fi
        if compgen -G "$folder/checkpoints/step_*" >/dev/null; then echo "$folder has no resume/: move it away" >&2 && return 1; fi
        rm -rf "$folder"
    done
}

link() { # NAME FILE    a row that another file runs
    [[ $1 =~ $rows ]] || return 0
    if [ "$dry_run" ]; then printf '\n# %s: benchmark/%s\n' "$1" "$2" && return; fi
    if complete "$1" >/dev/null; then echo "$1: has its results"; else echo "$1: not complete, run benchmark/tables/$2"; fi
}

finish() { # lists the rows that failed
    [ ${#failed[@]} -eq 0 ] && return
    printf '%s\n' "not all rows are complete:" "${failed[@]}" >&2
    exit 1
}
