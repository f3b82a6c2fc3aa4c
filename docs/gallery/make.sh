#!/usr/bin/env bash
# Make the pages of the gallery from the examples, in about five minutes on two cores, and take
# pictures of them with chromium: docs/gallery/make.sh [FOLDER]
# Results are kept in FOLDER, from which an interrupted run resumes; without it they are removed.
set -euo pipefail
cd "$(dirname "$0")/../.."
work="${1:-}"
if [ -z "$work" ]; then
  work="$(mktemp -d)"
  trap 'rm -rf "$work"' EXIT
fi

protembed finetune examples/signal_peptides.csv --method frozen -o "$work/signal.model"
protembed inspect-attention examples/known_proteins.fasta --save-maps 2 -o "$work/attention"
protembed pretrain examples/proteins.fasta --size t4_1M --steps 120 -o "$work/small.run"
protembed embed examples/proteins.fasta --report -o "$work/proteins.npy"
protembed score examples/beta_lactamase.fasta --scan --method wildtype-marginals --measurements examples/variants.csv -o "$work/tem1.scan"
awk -F, 'NR > 1 { print ">" $1 "\n" $2 }' examples/signal_peptides.csv > "$work/peptides.fasta"
protembed embed "$work/peptides.fasta" -o "$work/peptides.npy"
protembed map "$work/peptides.npy" --labels examples/signal_peptides.csv -o "$work/peptides.map"

cp "$work/signal.model/report.html" docs/gallery/finetune.html
cp "$work/attention/report.html" docs/gallery/attention.html
cp "$work/small.run/report.html" docs/gallery/pretrain.html
cp "$work/proteins.report.html" docs/gallery/embed.html
cp "$work/tem1.scan/report.html" docs/gallery/scan.html
cp "$work/peptides.map/map.html" docs/gallery/map.html
python docs/gallery/pictures.py
