"""Turn a trained story reader into the package's weights: ONNX, eight-bit integers.

    python training/export_reader.py --model /tmp/reader/model/final

Writes src/ballet_qa/weights/reader.onnx and tokenizer.json, and prints their sha256, to be put into
src/ballet_qa/networks.py. Weights become int8, activations are quantised on the fly
(ONNX Runtime's dynamic quantisation): a quarter of the size, and about twice as fast on processors
without bfloat16.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn
from train_reader import StoryReader, load_tokenizer

from ballet_qa.cross_encoder import Context, padded, token_row
from ballet_qa.networks import TOKENIZER, WEIGHTS


class Heads(nn.Module):
    """The model as ONNX sees it: three inputs, two outputs."""

    def __init__(self, model: StoryReader) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model.heads(input_ids, attention_mask, token_type_ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="its folder, for a checkpoint without one")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = StoryReader.from_pretrained(options.model, attn_implementation="eager").eval()
    tokenizer = load_tokenizer(options.tokenizer or options.model)
    target = options.out / "reader.onnx"
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole.onnx")
        contexts = [Context("", "", "A swan."), Context("Pond", "", "A pig came.")]
        example = padded([token_row(tokenizer, "Who swam?", context) for context in contexts])
        inputs = tuple(torch.from_numpy(example[name]) for name in INPUTS)
        with torch.no_grad():
            torch.onnx.export(
                Heads(model),
                inputs,
                str(whole),
                input_names=list(INPUTS),
                output_names=["judged", "places"],
                dynamic_axes={name: {0: "rows", 1: "tokens"} for name in (*INPUTS, "places")}
                | {"judged": {0: "rows"}},
                opset_version=17,
                dynamo=False,
            )
        quantize_dynamic(whole, target, weight_type=QuantType.QInt8, per_channel=True)
    tokenizer.save(str(options.out / TOKENIZER), pretty=False)
    for path in (target, options.out / TOKENIZER):
        print(
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name} {path.stat().st_size:,}"
        )


INPUTS = ("input_ids", "attention_mask", "token_type_ids")


if __name__ == "__main__":
    main()
