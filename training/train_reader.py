"""Train the story reader: one MiniLM cross-encoder with three heads, by transformers' Trainer.

    python training/train_reader.py --examples /tmp/reader --out /tmp/reader/model

A sequence is the question and the passage with a line of context (title, sentence before). Heads:
relevance (listwise softmax over a question's passages), start and end of the answer (softmax over
the passage's tokens), answerable (logistic, each passage for itself). Dropout is 0: the lists are
seen once, and it trains three times faster. In three lists of ten, words that passage and question
share are masked, because people ask from memory, in other words. Interrupted, the same command goes
on from the last checkpoint. Runs on a GPU where there is one; on two cores it takes over an hour.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertModel,
    BertPreTrainedModel,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import get_last_checkpoint

from ballet_qa.cross_encoder import Context, TokenRow, padded, token_row
from ballet_qa.encoder import STOCK, stock_folder
from ballet_qa.words import terms

CHUNK = 10
LISTED = 4
MASKED_LISTS = 0.3
MASKED_WORDS = 0.6
WEIGHTS = {"rank": 1.0, "answerable": 0.5, "span": 0.5}
WRONG_SHARE = 0.4  # of a right passage's weight in the answerable head: there are four times more


class StoryReader(BertPreTrainedModel):
    """A BERT encoder with the three heads; see the head of this file."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.pool = nn.Linear(2 * config.hidden_size, config.hidden_size)
        self.judge = nn.Linear(config.hidden_size, 2)  # relevance, answerable
        self.span = nn.Linear(config.hidden_size, 2)  # start, end
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
        passage_mask: torch.Tensor | None = None,
        lists: torch.Tensor | None = None,
        ranked: torch.Tensor | None = None,
        right: torch.Tensor | None = None,
        spans: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        judged, places = self._in_chunks(input_ids, attention_mask, token_type_ids)
        out = {"relevance": judged[:, 0], "answerable": judged[:, 1], "places": places}
        if right is None or lists is None or ranked is None or spans is None:
            return out
        assert passage_mask is not None
        losses = {
            "rank": listwise(judged[:, 0], lists, ranked, right),
            "answerable": nn.functional.binary_cross_entropy_with_logits(
                judged[:, 1], right, weight=torch.where(right > 0, 1.0, WRONG_SHARE)
            ),
            "span": span_loss(places, passage_mask, spans),
        }
        total = torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
        return {"loss": total} | out

    def heads(
        self, ids: torch.Tensor, attention: torch.Tensor, kinds: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(relevance, answerable) of each row, and (start, end) of each of its tokens."""
        hidden = self.bert(ids, attention, kinds).last_hidden_state
        real = attention.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * real).sum(1) / real.sum(1)
        judged = self.judge(torch.tanh(self.pool(torch.cat([hidden[:, 0], mean], 1))))
        return judged, self.span(hidden)

    def _in_chunks(
        self, ids: torch.Tensor, attention: torch.Tensor, kinds: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The heads of sequences of like length together: half of a mixed batch is padding."""
        lengths = attention.sum(1)
        order = lengths.argsort()
        judged, places = [], []
        for rows in order.split(CHUNK):
            width = int(lengths[rows].max())
            mask = attention[rows, :width]
            verdict, span = self.heads(ids[rows, :width], mask, kinds[rows, :width])
            judged.append(verdict)
            places.append(nn.functional.pad(span, (0, 0, 0, ids.shape[1] - width)))
        back = order.argsort()
        return torch.cat(judged)[back], torch.cat(places)[back]


def listwise(
    scores: torch.Tensor, lists: torch.Tensor, ranked: torch.Tensor, right: torch.Tensor
) -> torch.Tensor:
    """Minus the log of the softmax share of the right passage, mean over the ranked lists."""
    same = lists.unsqueeze(0) == lists.unsqueeze(1)
    logs = scores - torch.logsumexp(
        scores.unsqueeze(0).expand_as(same).masked_fill(~same, -1e9), dim=1
    )
    chosen = (right > 0) & (ranked > 0)
    return -(logs * chosen).sum() / chosen.sum().clamp(min=1)


def span_loss(
    places: torch.Tensor, passage_mask: torch.Tensor, spans: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of start and end over the passage's tokens, where they are known."""
    known = spans[:, 0] >= 0
    logs = torch.log_softmax(places.masked_fill(~passage_mask.unsqueeze(-1), -1e9), dim=1)
    gold = logs.gather(1, spans.clamp(min=0).unsqueeze(1)).squeeze(1).sum(1)
    return -(gold * known).sum() / (2 * known.sum().clamp(min=1))


@dataclass
class Collator:
    """Lists to one padded batch of rows, a ranked list cut to its right passage and LISTED - 1."""

    words: Tokenizer
    training: bool

    def __call__(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        shown: list[tuple[int, dict[str, Any]]] = []
        for number, example in enumerate(batch):
            passages = example["passages"]
            if self.training and len(passages) > LISTED:
                passages = [passages[0], *random.sample(passages[1:], LISTED - 1)]
            shown += [(number, passage) for passage in passages]
        rows = []
        for number, passage in shown:
            context = Context(passage["title"], passage["before"], passage["text"])
            rows.append(token_row(self.words, batch[number]["question"], context))
        inputs = {name: torch.from_numpy(array) for name, array in padded(rows).items()}
        passage_mask = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
        spans = torch.full((len(rows), 2), -1)
        for at, (row, (_, passage)) in enumerate(zip(rows, shown, strict=True)):
            passage_mask[at, row.begins : row.begins + len(row.spans)] = True
            if passage["answer"] is not None:
                spans[at] = torch.tensor(tokens_of(row, *passage["answer"]))
        if self.training:
            hidden = [
                example["source"] == "fairytaleqa" and random.random() < MASKED_LISTS
                for example in batch
            ]
            for at, (row, (number, passage)) in enumerate(zip(rows, shown, strict=True)):
                if hidden[number]:
                    known = range(int(spans[at, 0]), int(spans[at, 1]) + 1)
                    asked = set(terms(batch[number]["question"]))
                    self._mask(inputs["input_ids"][at], row, passage["text"], asked, known)
        return inputs | {
            "passage_mask": passage_mask,
            "lists": torch.tensor([number for number, _ in shown]),
            "ranked": torch.tensor([float(batch[number]["rank"]) for number, _ in shown]),
            "right": torch.tensor([float(passage["right"]) for _, passage in shown]),
            "spans": spans,
        }

    def _mask(
        self, ids: torch.Tensor, row: TokenRow, text: str, asked: set[str], answer: range
    ) -> None:
        """Hide words of a passage that the question has too, never those of the answer."""
        masked = self.words.token_to_id("[MASK]")
        chosen: dict[tuple[int, int], bool] = {}  # a word's tokens are hidden together
        for token, span in enumerate(row.spans.tolist(), start=row.begins):
            word = word_around(text, *span)
            if word not in chosen:
                stems = terms(text[slice(*word)])
                shared = bool(stems) and stems[0] in asked
                chosen[word] = shared and random.random() < MASKED_WORDS
            if chosen[word] and token not in answer:
                ids[token] = masked


def tokens_of(row: TokenRow, start: int, end: int) -> tuple[int, int]:
    """The first and the last token of an answer, (-1, -1) when the passage was cut before it."""
    inside = np.flatnonzero((row.spans[:, 1] > start) & (row.spans[:, 0] < end))
    if len(inside) == 0 or row.spans[inside[-1], 1] < end:
        return -1, -1
    return row.begins + int(inside[0]), row.begins + int(inside[-1])


def word_around(text: str, start: int, end: int) -> tuple[int, int]:
    while start > 0 and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum():
        end += 1
    return start, end


class ListTrainer(Trainer):
    """Evaluates by lists, which do not have one size, and draws lists of like length together."""

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        examples = self.train_dataset if train_dataset is None else train_dataset
        return LengthGroupedSampler(
            self.args.train_batch_size,
            lengths=[example["length"] for example in examples],
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        collator = Collator(self.data_collator.words, training=False)
        return DataLoader(
            eval_dataset or self.eval_dataset, self.args.eval_batch_size, collate_fn=collator
        )

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        model = self.model.eval()
        first, total, start_right, spans_total, likely = 0, 0, 0, 0, []
        with torch.no_grad():
            for batch in self.get_eval_dataloader():
                batch = {name: value.to(self.args.device) for name, value in batch.items()}
                out = model(
                    **{n: batch[n] for n in ("input_ids", "attention_mask", "token_type_ids")}
                )
                for number in batch["lists"].unique():
                    rows = batch["lists"] == number
                    if batch["ranked"][rows][0] > 0:
                        first += int(batch["right"][rows][out["relevance"][rows].argmax()])
                        total += 1
                likely += list(
                    zip(out["answerable"].tolist(), batch["right"].tolist(), strict=True)
                )
                places = out["places"].masked_fill(~batch["passage_mask"].unsqueeze(-1), -1e9)
                known = batch["spans"][:, 0] >= 0
                start_right += int((places[:, :, 0].argmax(1) == batch["spans"][:, 0])[known].sum())
                spans_total += int(known.sum())
        accuracy = np.mean([(score > 0) == (right > 0) for score, right in likely])
        metrics = {
            "eval_right_first": first / max(total, 1),
            "eval_start_right": start_right / max(spans_total, 1),
            "eval_answerable_accuracy": float(accuracy),
        }
        self.log(metrics)
        model.train()
        return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", default=STOCK, help="weights to start from")
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--lists", type=int, default=8, help="lists a step")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    set_seed(options.seed)
    folder = stock_folder() if options.start == STOCK else Path(options.start)
    tokenizer = load_tokenizer(folder)
    model = StoryReader.from_pretrained(
        folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    examples = read(options.examples / "train.jsonl")
    dev = read(options.examples / "dev.jsonl")
    random.Random(options.seed).shuffle(dev)
    trainer = ListTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(options.out),
            num_train_epochs=1,
            per_device_train_batch_size=options.lists,
            per_device_eval_batch_size=8,
            learning_rate=options.rate,
            warmup_steps=60,
            weight_decay=0.01,
            lr_scheduler_type="linear",
            logging_steps=20,
            eval_strategy="steps",
            eval_steps=200,
            save_steps=100,
            save_total_limit=1,
            remove_unused_columns=False,
            dataloader_num_workers=0,
            report_to=[],
            seed=options.seed,
            optim="adamw_torch_fused",
            disable_tqdm=True,
        ),
        train_dataset=examples,
        eval_dataset=dev[:120],
        data_collator=Collator(tokenizer, training=True),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(options.out)))
    trainer.evaluate()
    trainer.save_model(str(options.out / "final"))
    tokenizer.save(str(options.out / "final" / "tokenizer.json"))


def load_tokenizer(folder: Path) -> Tokenizer:
    """A model's tokenizer; it neither pads nor cuts, the rows are made by us."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def read(path: Path) -> list[dict[str, Any]]:
    examples = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for example in examples:
        words = sum(len(p["text"]) + len(p["before"]) for p in example["passages"])
        example["length"] = words // len(example["passages"])
    return examples


if __name__ == "__main__":
    main()
