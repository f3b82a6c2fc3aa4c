#!/usr/bin/env bash
# Train a bundled model, choose its layer, measure it, and package it as OUT/protembed_SIZE.
#
#     benchmarks/train_bundled_model.sh DATA OUT
#
# The layer for embedding is chosen with DATA/tasks/go_cc_multilabel.csv.gz, a CSV with sequence, label (separated by ;)
# and split; the contact head is fitted to DATA/structures. The corpus was made from public sources: Swiss-Prot 2014_01 (Debian's metastudent-data), the UniProt, AMRFinder
# and ISfinder subsets of tseemann/prokka, a sample of TrEMBL (Debian's mmseqs2-examples), and the 17 RefSeq proteomes of
# fteufel/signalp-6.0; exact duplicates removed; clustered by MMseqs2 at 50 % and then 30 % identity, 80 % coverage;
# valid.fasta.gz has other 30 % clusters than train.fasta.xz.
#
# DATA is a folder with corpus/, tasks/, structures/ and dms/ as quality.py describes it; the corpus' files are those
# named here. In the environment: SIZE (t6_8M), MINUTES of training (8.2), HARDWARE in words, THREADS for measuring (2),
# and OPTIONS of protembed pretrain. The recipe is that of the bundled model, which was trained on a GPU. On two cores
#
#     SIZE=t4_1M MINUTES=96 OPTIONS="--mask-rate 0.2" HARDWARE="2 threads of a CPU, float32"
#
# trains a smaller one. Run the same command again to resume an interrupted run. The trials behind both recipes are in
# benchmarks/README.md.
set -euo pipefail
data=$1 out=$2 corpus=$1/corpus
size=${SIZE:-t6_8M} minutes=${MINUTES:-8.2} threads=${THREADS:-2} hardware=${HARDWARE:-one NVIDIA H100, bfloat16}
options=${OPTIONS:---mask-rate 0.2 --crop-residues 512 --batch-tokens 131072 --micro-batch-tokens 65536}
here=$(dirname "$0") run="$out/training.run" model="$out/protembed_$size"
mkdir -p "$out"

# shellcheck disable=SC2086  # options are several words
protembed pretrain "$corpus/train.fasta.xz" --clusters "$corpus/clusters.tsv.gz" --valid "$corpus/valid.fasta.gz" \
    -o "$run" --size "$size" --max-minutes "$minutes" --threads "$threads" $options

python "$here/probe_layers.py" "$run" "$data/tasks/go_cc_multilabel.csv.gz" --threads "$threads" --json "$out/layers.json"
awk -F'\t' 'NR > 1 { print ">" $1 "\n" $NF }' "$data/structures/list.tsv" > "$out/chains.fasta"
protembed inspect-attention "$out/chains.fasta" --model "$run" --structures "$data/structures" -o "$out/contacts" \
    --save-maps 0 --threads "$threads"
package=(python "$here/bundle_model.py" "$run" "$model" --hardware "$hardware" --layers "$out/layers.json"
    --contacts "$out/contacts")
"${package[@]}"
python "$here/quality.py" "$model" --data "$data" --threads "$threads" --json "$out/quality.json"
"${package[@]}" --quality "$out/quality.json"
