#!/usr/bin/env bash
# Trials for the recipe of the bundled model: short trainings that differ from the first in one setting.
#
#     benchmarks/trial_recipes.sh CORPUS CLUSTERS VALID OUT [MINUTES]
#
# The arguments are those of train_bundled_model.sh. Two trials run in parallel, one thread and MINUTES (8.5) each. The
# last line of OUT/NAME.run/metrics.jsonl has the metrics of a trial, OUT/losses.tsv those of all.
set -euo pipefail
corpus=$1 clusters=$2 valid=$3 out=$4 minutes=${5:-8.5}
mkdir -p "$out"

trial() { # NAME SIZE [further options of protembed pretrain]
    protembed pretrain "$corpus" --valid "$valid" -o "$out/$1.run" --size "$2" --max-minutes "$minutes" \
        --threads 1 --quiet "${@:3}"
}
by_clusters=(--clusters "$clusters")

trial t4_1M t4_1M "${by_clusters[@]}" &
trial t6_3M t6_3M "${by_clusters[@]}" &
wait -n
wait -n
trial no_clusters t4_1M &
trial mask_20 t4_1M "${by_clusters[@]}" --mask-rate 0.2 &
wait -n
wait -n
trial tokens_2048 t4_1M "${by_clusters[@]}" --batch-tokens 2048 &
trial tokens_1024 t4_1M "${by_clusters[@]}" --batch-tokens 1024 &
wait -n
wait -n

for run in "$out"/*.run; do
    python -c '
import json, pathlib, sys
run = pathlib.Path(sys.argv[1])
last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
print(run.stem, last["step"], last["residues"], round(last["valid_loss"], 4), sep="\t")
' "$run"
done | tee "$out/losses.tsv"
