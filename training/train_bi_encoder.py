"""Train the encoder of the search: question and passage to vectors that are near to each other.

    python training/train_bi_encoder.py --work ../reader-training --base minilm --run encoder \
        --minutes 60 --teacher ../reader-training/runs/deep/final

Learns from the lists of all story sets: the right passage is to be nearest to its question, among
the wrong ones of its list and all passages of the step (softmax over cosines), and so is the
sentence that answers. With --teacher, the deep reader's order of each list is learnt too (the
difference of two passages' scores, as in margin MSE), with --vectors-of another encoder's cosines
within a step. Runs, stops and goes on as train_network.py does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from packed_batches import Packed, Row, Step, Stream, rows_of_list
from reading_network import BASES, ReadingNetwork, base_folder
from torch.nn.functional import log_softmax, mse_loss, normalize
from train_network import Training, add_arguments, begin, packed_of, read_step
from transformers import AutoModel

COSINE_SCALE = 20.0
MOST_TOKENS = 160  # longer passages are learnt by their beginning
LISTS = 12  # of a step
ROWS = 4  # a list's
DEV_LISTS = 60
MARGIN_SCALE = 0.05  # a reader's difference of 4 is one of .2 between cosines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--vectors-of", choices=sorted(BASES), help="a base whose cosines to learn")
    begin(BiEncoderTraining, parser)


class BiEncoderTraining(Training):
    """The training of an encoder. Its network is a reader's body; the heads are not used."""

    weights = {"passage": 1.0, "sentence": 0.5}  # noqa: RUF012
    distilled = {"margin": 0.05, "cosine": 10.0}  # noqa: RUF012

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.ends = sentence_ends(self.packed, self.tokenizer)
        self.other: torch.nn.Module | None = None
        if options.vectors_of:
            folder = base_folder(options.vectors_of, options.work)
            self.other = AutoModel.from_pretrained(folder, add_pooling_layer=False)
            self.other.to(self.device).eval()
            self.other_packed = packed_of(options.work, options.vectors_of)

    def make_network(self) -> ReadingNetwork:
        network = super().make_network()
        for head in (network.pool, network.judge, network.span):
            head.requires_grad_(False)
        return network

    def make_steps(self) -> Iterator[Step]:
        """Endless steps of lists whose right passage is known."""
        rng = np.random.default_rng(self.options.seed)
        lists = Stream(self.packed, self.mix.list_shares, rng)
        while True:
            step: Step = []
            while not step or step[-1].of_list + 1 < LISTS * self.options.scale:
                (example,) = lists.draw(1)
                if self.packed.is_ranked(example):
                    number = step[-1].of_list + 1 if step else 0
                    rows = rows_of_list(self.packed, example, ROWS, rng)
                    step += [Row(example, row, number) for row in rows]
            yield step

    def losses(self, step: Step) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        firsts = firsts_of(step)
        asked, found = self._both(self.network.body, self.packed, step)
        sentences = [self._sentence(step[n].row) for n in firsts]
        answering = self._vectors(self.network.body, self.packed, sentences)
        right = torch.tensor(firsts, device=self.device)
        cosines = asked @ found.T
        scores = (COSINE_SCALE * cosines).masked_fill(self._repeated(step, firsts), -1e4)
        own = {
            "passage": _softmax_loss(scores, right),
            "sentence": _softmax_loss(
                COSINE_SCALE * asked @ answering.T, torch.arange(len(firsts), device=self.device)
            ),
        }
        return own, self._taught(step, cosines)

    def _repeated(self, step: Step, firsts: list[int]) -> torch.Tensor:
        """Where a passage is right for a question but stands in another's list."""
        numbers = self.packed.arrays["row_passage"][[row.row for row in step]]
        same = numbers[firsts][:, np.newaxis] == numbers[np.newaxis, :]
        same[np.arange(len(firsts)), firsts] = False
        return torch.from_numpy(same).to(self.device)

    def _taught(self, step: Step, cosines: torch.Tensor) -> dict[str, torch.Tensor]:
        """How far from the deep reader's order of each list, and from another encoder's cosines."""
        taught = {}
        if self.teacher is not None:
            with torch.no_grad():
                _, said = read_step(
                    self.teacher, self.teacher_packed, step, self.chunk_tokens, self.device
                )
            lists = torch.tensor([row.of_list for row in step], device=self.device)
            own = COSINE_SCALE * cosines[lists, torch.arange(len(step), device=self.device)]
            first = torch.tensor(firsts_of(step), device=self.device)[lists]
            wanted = MARGIN_SCALE * COSINE_SCALE * (said.relevance[first] - said.relevance)
            taught["margin"] = mse_loss(own[first] - own, wanted)
        if self.other is not None:
            with torch.no_grad():
                asked, found = self._both(self.other, self.other_packed, step)
            taught["cosine"] = mse_loss(cosines, asked @ found.T)
        return taught

    def _both(
        self, body: torch.nn.Module, packed: Packed, step: Step
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors of a step's questions, and of its passages."""
        asked = [packed.question(step[n].example).tolist() for n in firsts_of(step)]
        found = [text_of(packed, row.row) for row in step]
        return self._vectors(body, packed, asked), self._vectors(body, packed, found)

    def _sentence(self, row: int) -> list[int]:
        """The tokens of the sentence that holds a row's answer; its passage where none is known."""
        tokens = text_of(self.packed, row)
        start, end = self.packed.arrays["row_spans"][row, 0].tolist()
        if start < 0 or end >= len(tokens):
            return tokens
        ends = [n for n, token in enumerate(tokens) if token in self.ends]
        first = max((n + 1 for n in ends if n < start), default=0)
        last = min((n + 1 for n in ends if n >= end), default=len(tokens))
        return tokens[first:last]

    def _vectors(
        self, body: torch.nn.Module, packed: Packed, rows: list[list[int]]
    ) -> torch.Tensor:
        """Unit vectors of texts, shape (texts, dimension): the mean over their tokens."""
        return vectors(body, packed, rows, self.chunk_tokens, self.device)

    @torch.no_grad()
    def dev_figures(self) -> dict[str, float]:
        """How often the right passage of a list is nearest, on stories kept aside."""
        self.network.eval()
        rng = np.random.default_rng(0)
        first = []
        for source in self.mix.list_shares:
            every = self.packed.examples(source, dev=True)
            for example in rng.permutation(every)[:DEV_LISTS].tolist():
                if self.packed.is_ranked(example):
                    rows = self.packed.rows_of(example)
                    texts = [text_of(self.packed, row) for row in rows]
                    texts.append(self.packed.question(example).tolist())
                    found = self._vectors(self.network.body, self.packed, texts)
                    first.append(int((found[:-1] @ found[-1]).argmax()) == 0)
        self.network.train()
        return {"right_first": float(np.mean(first))}


def vectors(
    body: torch.nn.Module,
    packed: Packed,
    rows: list[list[int]],
    most: int,
    device: torch.device,
) -> torch.Tensor:
    """Unit vectors of token rows, read in chunks of like length."""
    texts = [[packed.first, *row[: MOST_TOKENS - 2], packed.separator] for row in rows]
    order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
    made: list[torch.Tensor] = []
    left = list(order)
    while left:
        count = max(1, sum(len(texts[n]) * (at + 1) <= most for at, n in enumerate(left)))
        chunk, left = left[:count], left[count:]
        width = len(texts[chunk[-1]])
        ids = torch.full((len(chunk), width), packed.padding)
        for at, n in enumerate(chunk):
            ids[at, : len(texts[n])] = torch.tensor(texts[n])
        ids = ids.to(device)
        mask = torch.tensor([[n < len(texts[c]) for n in range(width)] for c in chunk]).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            hidden = body(ids, attention_mask=mask.long()).last_hidden_state.float()
        real = mask.unsqueeze(-1).float()
        made.append(normalize((hidden * real).sum(1) / real.sum(1), dim=1))
    back = torch.tensor(order, device=device).argsort()
    return torch.cat(made)[back]


def text_of(packed: Packed, row: int) -> list[int]:
    """The tokens of a passage's own text."""
    begins = int(packed.arrays["passage_text"][packed.arrays["row_passage"][row]])
    return packed.passage(row)[begins:-1].tolist()


def firsts_of(step: Step) -> list[int]:
    """Where each list of a step begins: its right passage."""
    return [n for n, row in enumerate(step) if not n or step[n - 1].of_list != row.of_list]


def sentence_ends(packed: Packed, tokenizer: object) -> frozenset[int]:
    """The ids of tokens that end a sentence."""
    ids = [tokenizer.token_to_id(mark) for mark in ".!?"]  # type: ignore[attr-defined]
    assert None not in ids, f"{packed.base} has no full stop"
    return frozenset(ids)


def _softmax_loss(scores: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(len(scores), device=scores.device)
    return -log_softmax(scores, dim=1)[rows, right].mean()


if __name__ == "__main__":
    main()
