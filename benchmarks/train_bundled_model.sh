#!/usr/bin/env bash
# Train the bundled model, choose its layer, measure it, and package it as OUT/protembed_t4_1M.
#
#     benchmarks/train_bundled_model.sh CORPUS CLUSTERS VALID OUT [LABELS]
#
# CORPUS and VALID are FASTA, CLUSTERS is a TSV with the columns accession, cluster50, cluster30 and split, LABELS a CSV
# with sequence, label (divided by ;) and split, by which the layer for embedding is chosen (the last one without it).
# The corpus was made from public sources: Swiss-Prot 2014_01 (Debian's metastudent-data), the UniProt, AMRFinder and
# ISfinder subsets of tseemann/prokka, a sample of TrEMBL (Debian's mmseqs2-examples), and the 17 RefSeq proteomes of
# fteufel/signalp-6.0; exact duplicates removed; clustered by MMseqs2 at 50 % and then 30 % identity, 80 % coverage;
# VALID has other 30 % clusters than CORPUS. LABELS are Swiss-Prot's cellular components.
#
# MINUTES (96) of training and THREADS (2) can be set in the environment. A run that was interrupted goes on when the
# same command is repeated. What was tried for this recipe is in benchmarks/README.md; trial_recipes.sh repeats it.
set -euo pipefail
corpus=$1 clusters=$2 valid=$3 out=$4 labels=${5:-}
threads=${THREADS:-2} minutes=${MINUTES:-96}
here=$(dirname "$0") run="$out/training.run" model="$out/protembed_t4_1M"
mkdir -p "$out"

protembed pretrain "$corpus" --clusters "$clusters" --valid "$valid" -o "$run" --size t4_1M --mask-rate 0.2 \
    --max-minutes "$minutes" --threads "$threads" --device cpu

package=(python "$here/bundle_model.py" "$run" "$model" --threads "$threads")
if [ -n "$labels" ]; then
    python "$here/probe_layers.py" "$run" "$labels" --threads "$threads" --json "$out/layers.json"
    package+=(--layers "$out/layers.json")
fi
"${package[@]}"
python "$here/perplexity.py" "$model" "$valid" --run "$run" --clusters "$clusters" --threads "$threads" \
    --json "$out/perplexity.json"
python "$here/neighbours.py" "$model" "$corpus" "$clusters" --threads "$threads" --json "$out/neighbours.json"
"${package[@]}" --perplexity "$out/perplexity.json" --neighbours "$out/neighbours.json"
