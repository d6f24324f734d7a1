"""Take a trained network apart into small files, and put it together again.

    python training/weight_parts.py split --network T/runs/deep/final --out T/parts --mib 60
    python training/weight_parts.py join --out T/runs/deep/final --parts T/parts

For machines that take or give only small files at a time. Weights become bfloat16; what the base
has unchanged (its embeddings are never trained) can be left out with --without-embeddings and taken
from --embeddings-of when they are put together.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from reading_network import DESCRIPTION, NETWORK, TOKENIZER
from safetensors.torch import load_file, save_file

EMBEDDINGS = "body.embeddings."
SMALL_FILES = (DESCRIPTION, TOKENIZER, "config.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("split")
    one.add_argument("--network", type=Path, required=True)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--mib", type=float, default=60.0)
    one.add_argument("--without-embeddings", action="store_true")
    other = commands.add_parser("join")
    other.add_argument("--parts", type=Path, required=True)
    other.add_argument("--embeddings-of", type=Path, help="a network's folder")
    other.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "split":
        split(options.network, options.out, options.mib, embeddings=not options.without_embeddings)
    else:
        join(options.parts, options.out, options.embeddings_of)


def split(network: Path, out: Path, mib: float, *, embeddings: bool = True) -> list[Path]:
    """Write ``part-1.safetensors`` and so on, each of at most ``mib`` MiB, and the small files."""
    out.mkdir(parents=True, exist_ok=True)
    parts: list[dict[str, torch.Tensor]] = [{}]
    size, most = 0, mib * 2**20
    for name, tensor in load_file(network / NETWORK).items():
        if not embeddings and name.startswith(EMBEDDINGS):
            continue
        for key, piece in _pieces(name, tensor.to(torch.bfloat16), most / 2):
            if parts[-1] and size + piece.nbytes > most:
                parts.append({})
                size = 0
            parts[-1][key] = piece.contiguous()
            size += piece.nbytes
    files = [out / f"part-{number}.safetensors" for number in range(1, len(parts) + 1)]
    for file, part in zip(files, parts, strict=True):
        save_file(part, file)
    for name in SMALL_FILES:
        shutil.copyfile(network / name, out / name)
    return files


def _pieces(name: str, tensor: torch.Tensor, most: float) -> list[tuple[str, torch.Tensor]]:
    """A tensor, or its rows in several pieces where it is too large for one file."""
    count = int(-(-tensor.nbytes // most))
    if count == 1:
        return [(name, tensor)]
    return [(f"{name}@{n}", piece) for n, piece in enumerate(tensor.chunk(count))]


def join(parts: Path, out: Path, embeddings_of: Path | None = None) -> None:
    """Write the network's folder from its parts, in float32."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(
        parts.glob("part-*.safetensors"), key=lambda f: int(f.stem.removeprefix("part-"))
    )
    pieces: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for file in files:
        for key, piece in load_file(file).items():
            name, _, number = key.partition("@")
            pieces.setdefault(name, []).append((int(number or 0), piece.float()))
    state = {
        name: torch.cat([piece for _, piece in sorted(found, key=lambda pair: pair[0])])
        for name, found in pieces.items()
    }
    if embeddings_of is not None:
        known = load_file(embeddings_of / NETWORK)
        state |= {name: known[name] for name in known if name.startswith(EMBEDDINGS)}
    save_file(state, out / NETWORK)
    for name in SMALL_FILES:
        shutil.copyfile(parts / name, out / name)


if __name__ == "__main__":
    main()
