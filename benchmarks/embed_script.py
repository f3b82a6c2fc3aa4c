"""A typical script that embeds proteins with transformers; `embed.py` times it as a whole process.

python benchmarks/embed_script.py MODEL proteins.fasta OUT.npy NUM_SEQUENCES_PER_BATCH
"""

import sys

import numpy as np
import torch
from Bio import SeqIO
from transformers import AutoTokenizer, EsmModel

model_name, fasta, output, batch_size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
tokenizer = AutoTokenizer.from_pretrained(model_name)
model = EsmModel.from_pretrained(model_name, add_pooling_layer=False).eval()
sequences = [str(record.seq) for record in SeqIO.parse(fasta, "fasta")]
vectors = []
for start in range(0, len(sequences), batch_size):
    batch = sequences[start : start + batch_size]
    inputs = tokenizer(batch, return_tensors="pt", padding=True)
    with torch.inference_mode():
        hidden = model(**inputs).last_hidden_state
    for states, sequence in zip(hidden, batch, strict=True):
        vectors.append(states[1 : len(sequence) + 1].mean(0).numpy())
np.save(output, np.stack(vectors))
