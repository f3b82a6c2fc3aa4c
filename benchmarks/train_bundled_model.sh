#!/usr/bin/env bash
# Train a bundled model, choose its layer, fit its contact head, measure it, and package it as OUT/NAME.
#
#     benchmarks/train_bundled_model.sh DATA OUT
#
# DATA is a folder with corpus/, tasks/, structures/ and dms/ as quality.py describes it; the corpus' files are those
# named here. The layer for embedding is chosen with tasks/go_cc_multilabel.csv.gz, a CSV with sequence, label (separated
# by ;) and split; the contact head is fitted to structures/. The corpus was made from public sources: Swiss-Prot 2014_01
# (Debian's metastudent-data), the UniProt, AMRFinder and ISfinder subsets of tseemann/prokka, a sample of TrEMBL
# (Debian's mmseqs2-examples), and the 17 RefSeq proteomes of fteufel/signalp-6.0; exact duplicates removed; clustered by
# MMseqs2 at 50 % and then 30 % identity, 80 % coverage; valid.fasta.gz has other 30 % clusters than train.fasta.xz.
#
# In the environment: NAME (protembed_t6_8M), MODEL and LENGTH of the training as options of protembed pretrain
# ("--size t6_8M", "--max-minutes 8.2"), other OPTIONS of it, HARDWARE in words, THREADS of the CPU (2). The recipe is
# that of the bundled model, which was trained on a GPU. On two cores in the background
#
#     NAME=protembed_t4_1M MODEL="--size t4_1M" LENGTH="--max-minutes 96" OPTIONS="--mask-rate 0.2" \
#         HARDWARE="2 threads of a CPU" nohup benchmarks/train_bundled_model.sh DATA OUT &
#
# trains a smaller one. The same command resumes after an interruption of any kind. PART_MINUTES ends a call that trains
# for longer, so that the training can be divided into calls. OUT/training.run/metrics.jsonl has a line for each step, and
# forecast.py says each hour what the training would come to. The trials behind the recipes are in benchmarks/README.md.
set -euo pipefail
data=$1 out=$2 corpus=$1/corpus
name=${NAME:-protembed_t6_8M} threads=${THREADS:-2} hardware=${HARDWARE:-one NVIDIA H100, bfloat16}
training="${MODEL:---size t6_8M} ${LENGTH:---max-minutes 8.2}"
training+=" ${OPTIONS:---mask-rate 0.2 --crop-residues 512 --batch-tokens 131072 --micro-batch-tokens 65536}"
here=$(dirname "$0") run="$out/training.run" model="$out/$name"
mkdir -p "$out"

hourly() { # in short sleeps, because one of an hour would outlive this script
    for ((tens = 1; ; tens++)); do
        sleep 10
        ((tens % 360)) || python "$here/forecast.py" "$run" >&2 || true
    done
}
hourly & forecasts=$!
trap 'kill $forecasts' EXIT

part=()
[[ -z ${PART_MINUTES:-} ]] || part=(timeout --signal=TERM "${PART_MINUTES}m")
# shellcheck disable=SC2086  # options are several words
"${part[@]}" protembed pretrain "$corpus/train.fasta.xz" --clusters "$corpus/clusters.tsv.gz" \
    --valid "$corpus/valid.fasta.gz" -o "$run" --threads "$threads" $training || {
    echo "the training is not finished: run the same command again" >&2
    exit 1
}

python "$here/probe_layers.py" "$run" "$data/tasks/go_cc_multilabel.csv.gz" --threads "$threads" --json "$out/layers.json"
awk -F'\t' 'NR > 1 { print ">" $1 "\n" $NF }' "$data/structures/list.tsv" > "$out/chains.fasta"
protembed inspect-attention "$out/chains.fasta" --model "$run" --structures "$data/structures" -o "$out/contacts" \
    --save-maps 0 --threads "$threads"
package=(python "$here/bundle_model.py" "$run" "$model" --hardware "$hardware" --layers "$out/layers.json"
    --contacts "$out/contacts")
"${package[@]}"
python "$here/quality.py" "$model" --data "$data" --threads "$threads" --json "$out/quality.json"
"${package[@]}" --quality "$out/quality.json"
