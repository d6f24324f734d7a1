"""Turn a trained reader into what the package can carry: ONNX, a cut vocabulary, few bits.

    python training/export_network.py --work ../reader-training \
        --network ../reader-training/runs/deep-1/final --bits 4 --out ../reader-training/export/int4

Writes `reader.onnx`, `tokenizer.json` and `network.json`. Inputs: input_ids, attention_mask and
token_type_ids, each (rows, tokens); outputs: judged (rows, 2) and places (rows, tokens, 2), as
reading_network.py has them. --bits 8 quantises weights to int8 a channel, activations on the fly;
--bits 4 quantises the layers' weights in blocks (MatMulNBits), the small heads left alone;
--bits 32 leaves all. With 4 or 8 bits, embeddings become int8 with a scale a token. The vocabulary
is cut to what English stories use (vocabulary.py).
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from candidates import case_of
from judges import Exported, Trained, padded, sequence_of
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from question_sets import read_lines
from reading_network import (
    DESCRIPTION,
    TOKENIZER,
    ReadingNetwork,
    base_marks,
    load_network,
    plain_tokenizer,
)
from tokenizers import Tokenizer
from torch import nn
from vocabulary import cut, tokens_held

from ballet_qa.cross_encoder import Context

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
HEADS = ("span", "judge")
AGREEMENT_ROWS = 100
TIMED_TOKENS = 150


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--bits", type=int, choices=(4, 8, 32), default=8)
    parser.add_argument(
        "--block", type=int, default=32, help="weights that share a scale, --bits 4"
    )
    parser.add_argument("--least", type=int, default=3, help="times a token must be held; 0: all")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    network = load_network(options.network, attention="eager").eval()
    tokenizer = plain_tokenizer(options.network / TOKENIZER)
    if options.least:
        packed = options.work / "packed" / f"{network.description.base}.safetensors"
        kept = tokens_held(packed, tokenizer, options.least)
        tokenizer = cut(network, tokenizer, kept)
        print(f"vocabulary: {len(kept):,} tokens")
    export(network, tokenizer, options.bits, options.block, options.out / "reader.onnx")
    tokenizer.save(str(options.out / TOKENIZER), pretty=False)
    (options.out / DESCRIPTION).write_text((options.network / DESCRIPTION).read_text("utf-8"))
    for name in ("reader.onnx", TOKENIZER):
        file = options.out / name
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        print(f"{digest}  {name} {file.stat().st_size:,}")
    compare(options.work, options.network, options.out)


def export(
    network: ReadingNetwork, tokenizer: Tokenizer, bits: int, block: int, target: Path
) -> None:
    """Write the network as ONNX with so many bits; its embeddings are replaced."""
    marks = base_marks(network.description.base, tokenizer)
    example = _example(tokenizer, marks)
    if bits != 32:
        embeddings = network.body.embeddings
        for name in ("word_embeddings", "position_embeddings"):
            setattr(embeddings, name, ByteEmbedding(getattr(embeddings, name)))
    axes = {name: {0: "rows", 1: "tokens"} for name in (*INPUTS, "places")}
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole.onnx")
        with torch.no_grad():
            torch.onnx.export(
                _ThreeInputs(network),
                tuple(torch.from_numpy(example[name]) for name in INPUTS),
                str(whole if bits != 32 else target),
                input_names=list(INPUTS),
                output_names=["judged", "places"],
                dynamic_axes=axes | {"judged": {0: "rows"}},
                opset_version=17,
                dynamo=False,
            )
        if bits == 8:
            quantize_dynamic(
                whole,
                target,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["MatMul", "Gemm"],
            )
        if bits == 4:
            model = onnx.load(whole)
            heads = [n.name for n in model.graph.node if any(f"/{h}/" in n.name for h in HEADS)]
            quantizer = MatMulNBitsQuantizer(
                model,
                block_size=block,
                is_symmetric=True,
                accuracy_level=4,
                nodes_to_exclude=heads,
            )
            quantizer.process()
            onnx.save(quantizer.model.model, target)


class ByteEmbedding(nn.Module):
    """An embedding whose rows are int8, each with a scale of its own."""

    def __init__(self, whole: nn.Embedding) -> None:
        super().__init__()
        scale = whole.weight.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
        self.register_buffer("rows", torch.round(whole.weight / scale).to(torch.int8))
        self.register_buffer("scale", scale.detach().clone())

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.rows[ids].to(self.scale.dtype) * self.scale[ids]


class _ThreeInputs(nn.Module):
    """A network that keeps all three inputs in its graph, whether its body uses them or not."""

    def __init__(self, network: ReadingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        judged, places = self.network(input_ids, attention_mask, token_type_ids)
        return judged + 0 * token_type_ids[:, :1].to(judged.dtype), places


def _example(tokenizer: Tokenizer, marks: tuple[int, int, int]) -> dict[str, NDArray[np.int64]]:
    contexts = [Context("", "", "A swan swam there."), Context("Pond", "", "A pig came.")]
    rows = [sequence_of(tokenizer, marks, "Who swam?", context) for context in contexts]
    return padded(rows, marks[2])


def compare(work: Path, network: Path, exported: Path) -> None:
    """How near an exported reader is to the network, and how long it takes, on one thread."""
    files = sorted((work / "candidates").glob("val-*.jsonl"))
    if not files:
        print("no candidates to compare on; training/measure_reader.py makes them")
        return
    cases = [case_of(fields) for file in files for fields in read_lines(file)]
    order = np.random.default_rng(0).permutation(len(cases))
    cases = [cases[n] for n in order[: AGREEMENT_ROWS // 10].tolist()]
    small = Exported(exported)
    said = [v for row in small.judge(cases) for v in row]
    known = [v for row in Trained(network).judge(cases) for v in row]
    for name in ("relevance", "answerable", "somewhere"):
        pair = [[getattr(v, name) for v in column] for column in (known, said)]
        print(f"{name}: correlation {np.corrcoef(pair)[0, 1]:.4f}")
    same = [a.words == b.words for a, b in zip(known, said, strict=True)]
    print(f"the same words in {np.mean(same):.3f} of {len(same)} passages")
    print(f"{1000 * timed(small):.1f} ms for {TIMED_TOKENS} tokens, one thread")


def timed(reader: Exported) -> float:
    """Seconds for one row of TIMED_TOKENS, the middle of thirty."""
    ids = np.random.default_rng(0).integers(200, 5000, (1, TIMED_TOKENS))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids}
    taken = []
    for _ in range(30):
        begun = time.perf_counter()
        reader.session.run(["judged", "places"], feed)
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))


if __name__ == "__main__":
    main()
