#!/usr/bin/env bash
# Trials: short trainings of equal time, each of which differs from the first in one setting.
#
#     benchmarks/trials.sh TRIALS CORPUS CLUSTERS VALID OUT [MINUTES]
#
# TRIALS has a trial on each line: its name, and options of protembed pretrain (trials/*.txt). The other inputs are those
# of train_bundled_model.sh. Two trials run in parallel, one thread and MINUTES (8.5) each. The same command resumes, and
# keeps the trials that have finished. trial_curves.py OUT lists and draws them.
set -euo pipefail
trials=$1 minutes=${6:-8.5}
export corpus=$2 clusters=$3 valid=$4 out=$5 minutes
mkdir -p "$out"

trial() { # NAME [options]
    protembed pretrain "$corpus" --clusters "$clusters" --valid "$valid" -o "$out/$1.run" --max-minutes "$minutes" \
        --threads 1 --quiet "${@:2}"
}
export -f trial
grep -v '^#' "$trials" | xargs -P 2 -L 1 bash -c 'trial "$@"' trial
