"""The network that reads a question with a passage: a transformer body and three heads.

Deep (all-mpnet-base-v2) and small (all-MiniLM-L6-v2) readers are this one class. For each row it
gives `judged` (relevance among the question's passages, whether the passage answers) and `places`
(for each token, whether an answer starts or ends there). The place of the first token means
"nowhere": it is right where the passage does not answer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoModel

from ballet_qa.encoder import stock_folder

NETWORK = "network.safetensors"
DESCRIPTION = "network.json"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Base:
    """Published weights to start from. ``marks`` are its first token, separator and padding."""

    folder: str
    sha256: str
    marks: tuple[str, str, str]
    kinds: int  # token types the body tells apart


BASES = {
    "mpnet": Base(
        "base/mpnet/all-mpnet-base-v2",
        "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        ("<s>", "</s>", "<pad>"),
        1,
    ),
    "minilm": Base("", "", ("[CLS]", "[SEP]", "[PAD]"), 2),  # checked by stock_folder
}


@dataclass(frozen=True, slots=True)
class Description:
    """What a saved network is: its base, and how many of the base's layers it has."""

    base: str
    layers: int


def base_folder(base: str, work: Path) -> Path:
    """Where a base's published files are, its weights checked by sha256."""
    if base == "minilm":
        return stock_folder()
    folder = work / BASES[base].folder
    weights = folder / "model.safetensors"
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != BASES[base].sha256:
        raise SystemExit(f"{weights} is not the published one; docs/training.md says where it is")
    return folder


def base_tokenizer(base: str, work: Path) -> Tokenizer:
    """A base's tokenizer; it neither pads nor cuts."""
    return plain_tokenizer(base_folder(base, work) / TOKENIZER)


def plain_tokenizer(file: Path) -> Tokenizer:
    """A tokenizer that neither pads nor cuts."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def base_marks(base: str, tokenizer: Tokenizer) -> tuple[int, int, int]:
    """The ids of a base's first token, separator and padding."""
    ids = [tokenizer.token_to_id(mark) for mark in BASES[base].marks]
    assert None not in ids, f"{base} lacks one of {BASES[base].marks}"
    return ids[0], ids[1], ids[2]


class ReadingNetwork(nn.Module):
    """A body and three heads; see the head of this file."""

    def __init__(self, body: nn.Module, description: Description) -> None:
        super().__init__()
        self.description = description
        self.body = body
        size: int = body.config.hidden_size
        self.pool = nn.Linear(2 * size, size)
        self.judge = nn.Linear(size, 2)  # relevance, answerable
        self.span = nn.Linear(size, 2)  # start, end
        for head in (self.pool, self.judge, self.span):
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`judged` (rows, 2) and `places` (rows, tokens, 2), logits, from (rows, tokens) each."""
        kinds = {"token_type_ids": token_type_ids} if self._has_kinds else {}
        hidden = self.body(input_ids, attention_mask=attention_mask, **kinds).last_hidden_state
        real = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * real).sum(1) / real.sum(1)
        judged = self.judge(torch.tanh(self.pool(torch.cat([hidden[:, 0], mean], 1))))
        return judged, self.span(hidden)

    @property
    def _has_kinds(self) -> bool:
        return BASES[self.description.base].kinds > 1

    def freeze(self, layers: int) -> None:
        """Keep the embeddings and the lowest layers as they are."""
        for parameter in self.body.embeddings.parameters():
            parameter.requires_grad = False
        positions = getattr(self.body.encoder, "relative_attention_bias", None)
        if positions is not None:  # shared by all layers: trained, it would reach the lowest
            positions.weight.requires_grad = False
        for layer in self.body.encoder.layer[:layers]:
            for parameter in layer.parameters():
                parameter.requires_grad = False


def new_network(base: str, work: Path, layers: int | None = None) -> ReadingNetwork:
    """A network with a base's body, of its first ``layers`` layers, and heads that know nothing."""
    folder = base_folder(base, work)
    config = _without_dropout(AutoConfig.from_pretrained(folder))
    body = AutoModel.from_pretrained(folder, config=config, add_pooling_layer=False)
    count = layers or config.num_hidden_layers
    body.encoder.layer = body.encoder.layer[:count]
    body.config.num_hidden_layers = count
    return ReadingNetwork(body, Description(base, count))


def save_network(network: ReadingNetwork, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a network's weights, description and tokenizer; the body's configuration with them."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / NETWORK)
    (folder / DESCRIPTION).write_text(json.dumps(asdict(network.description)) + "\n", "utf-8")
    network.body.config.save_pretrained(folder)
    tokenizer.save(str(folder / TOKENIZER), pretty=False)


def load_network(folder: Path, attention: str | None = None) -> ReadingNetwork:
    """A network that `save_network` wrote; ``attention`` names the body's implementation of it."""
    description = Description(**json.loads((folder / DESCRIPTION).read_text("utf-8")))
    config = _without_dropout(AutoConfig.from_pretrained(folder))
    chosen = {} if attention is None else {"attn_implementation": attention}
    body = AutoModel.from_config(config, **chosen)
    if hasattr(body, "pooler"):
        body.pooler = None
    network = ReadingNetwork(body, description)
    network.load_state_dict(load_file(folder / NETWORK))
    return network


def _without_dropout(config: AutoConfig) -> AutoConfig:
    config.hidden_dropout_prob = 0.0
    config.attention_probs_dropout_prob = 0.0
    return config
