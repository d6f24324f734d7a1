"""Cut a reader's vocabulary to what English stories use.

Kept are the tokens of the training texts, and every single letter, alone and inside a word: a word
whose own token is gone is split into smaller pieces, and none becomes unknown that was not.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from reading_network import ReadingNetwork
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import nn

LAST_LETTER = 0x250  # letters beyond those of Latin script are kept where the texts have them


def tokens_held(packed: Path, tokenizer: Tokenizer, least: int = 1) -> list[int]:
    """The ids to keep, in order: of single letters, of marks, and of what the texts hold often.

    Questions and distinct passages of the packed examples are the texts.
    """
    with safe_open(packed, "np") as opened:
        ids = [opened.get_tensor(name) for name in ("question_ids", "passage_ids")]
    held = set(np.flatnonzero(np.bincount(np.concatenate(ids)) >= least).tolist())
    described = json.loads(tokenizer.to_str())
    marks = {added["content"] for added in described["added_tokens"]}
    marks.add(described["model"]["unk_token"])
    for token, number in tokenizer.get_vocab().items():
        letters = token.removeprefix("##")
        if token in marks or (len(letters) == 1 and ord(letters) < LAST_LETTER):
            held.add(number)
    return sorted(held)


def cut(network: ReadingNetwork, tokenizer: Tokenizer, kept: list[int]) -> Tokenizer:
    """Cut a network's embeddings to these ids; the tokenizer that numbers them from 0."""
    table = network.body.embeddings.word_embeddings
    numbers = {old: new for new, old in enumerate(kept)}
    padding = table.padding_idx
    # MPNet counts positions from the id of its padding, so that has to stay where it is.
    assert padding is None or numbers[padding] == padding, "the padding moved"
    fewer = nn.Embedding(len(kept), table.embedding_dim, padding_idx=padding)
    fewer.weight.data = table.weight.data[kept].clone()
    network.body.embeddings.word_embeddings = fewer
    described = json.loads(tokenizer.to_str())
    described["model"]["vocab"] = {
        token: numbers[old] for token, old in described["model"]["vocab"].items() if old in numbers
    }
    for added in described["added_tokens"]:
        added["id"] = numbers[added["id"]]
    described["post_processor"] = None  # it has the old ids; rows are put together by us
    return Tokenizer.from_str(json.dumps(described))
