#!/usr/bin/env bash
# Train a bundled model, choose its layer, measure it, and package it as OUT/protembed_SIZE.
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
# In the environment: SIZE (t4_1M), MINUTES of training (96), THREADS (2), and further OPTIONS of protembed pretrain. With
# a GPU, which was not tried yet: SIZE=t6_8M MINUTES=9 OPTIONS="--crop-residues 512 --tokens-per-batch 131072".
# A run that was interrupted goes on when the same command is repeated. What was tried for this recipe is in
# benchmarks/README.md.
set -euo pipefail
corpus=$1 clusters=$2 valid=$3 out=$4 labels=${5:-}
size=${SIZE:-t4_1M} minutes=${MINUTES:-96} threads=${THREADS:-2}
here=$(dirname "$0") run="$out/training.run" model="$out/protembed_$size"
mkdir -p "$out"

# shellcheck disable=SC2086  # OPTIONS are several words
protembed pretrain "$corpus" --clusters "$clusters" --valid "$valid" -o "$run" --size "$size" --mask-rate 0.2 \
    --max-minutes "$minutes" --threads "$threads" ${OPTIONS:-}

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
