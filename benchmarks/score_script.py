"""A typical script that computes pseudo-log-likelihoods with transformers; `score.py` times it as a whole process.

python benchmarks/score_script.py MODEL proteins.fasta OUT.tsv NUM_COPIES_PER_BATCH
"""

import sys

import torch
from Bio import SeqIO
from transformers import AutoModelForMaskedLM, AutoTokenizer

model_name, fasta, output, batch_size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
tokenizer = AutoTokenizer.from_pretrained(model_name)
model = AutoModelForMaskedLM.from_pretrained(model_name).eval()
classes = torch.tensor(tokenizer.convert_tokens_to_ids(list("ACDEFGHIKLMNPQRSTVWY")))
lines = []
for record in SeqIO.parse(fasta, "fasta"):
    tokens = tokenizer(str(record.seq), return_tensors="pt")["input_ids"]  # (1, residues + 2)
    likelihood = 0.0
    for start in range(1, len(record) + 1, batch_size):
        positions = torch.arange(start, min(start + batch_size, len(record) + 1))
        copies = tokens.repeat(len(positions), 1)
        rows = torch.arange(len(positions))
        copies[rows, positions] = tokenizer.mask_token_id
        with torch.inference_mode():
            logits = model(copies).logits[rows, positions]  # (copies, 33)
        log_probs = logits[:, classes].log_softmax(-1)
        is_residue = tokens[0, positions][:, None] == classes  # (copies, 20), of X and others all False
        likelihood += float(log_probs[is_residue].sum())
    lines.append(f"{record.id}\t{likelihood:.7g}\n")
with open(output, "w") as stream:
    stream.writelines(lines)
