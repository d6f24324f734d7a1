"""Fine-tune the encoder as a retriever for stories, by sentence-transformers' trainer and loss.

    python training/train_encoder.py --examples /tmp/reader --out /tmp/encoder

Reads the lists that reader_examples.py made. A question is to be nearest to its passage, among the
other passages of its batch and one that the search ranked high for it
(MultipleNegativesRankingLoss, Henderson et al., 2017), and to the sentence that holds its answer.
Against forgetting, SQuAD's and NQ's questions are learnt along, and word embeddings stay as they
were. Interrupted, the same command goes on from the last checkpoint. Half an hour on two cores.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from datasets import Dataset
from reader_examples import read_lines
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import (
    BatchSamplers,
    MultiDatasetBatchSamplers,
    SentenceTransformerTrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from ballet_qa.encoder import stock_folder
from ballet_qa.passages import sentence_spans

STORIES = ("fairytaleqa", "paraphrase")
OTHERS = ("squad", "nq")
LEARNT_TOKENS = 160  # longer passages are learnt by their beginning, in half the time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=3e-5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = SentenceTransformer(str(stock_folder()))
    whole, model.max_seq_length = model.max_seq_length, LEARNT_TOKENS
    for parameter in model[0].auto_model.embeddings.parameters():
        parameter.requires_grad = False
    # Dropout would triple the time, and each question is seen once.
    for module in model.modules():
        if hasattr(module, "p") and type(module).__name__ == "Dropout":
            module.p = 0.0
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(options.out),
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch,
            learning_rate=options.rate,
            warmup_steps=40,
            lr_scheduler_type="linear",
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            multi_dataset_batch_sampler=MultiDatasetBatchSamplers.PROPORTIONAL,
            logging_steps=20,
            save_steps=100,
            save_total_limit=1,
            eval_strategy="no",
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            report_to=[],
            seed=options.seed,
            disable_tqdm=True,
        ),
        train_dataset=parts(read_lines(options.examples / "train.jsonl"), options.seed),
        loss=MultipleNegativesRankingLoss(model),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(options.out)))
    model.max_seq_length = whole
    model.save_pretrained(str(options.out / "final"))


def parts(lists: list[dict[str, Any]], seed: int) -> dict[str, Dataset]:
    """The three kinds of pairs; a batch is of one kind."""
    rng = random.Random(seed)
    passages, sentences, others = [], [], []
    for example in lists:
        right = [p for p in example["passages"] if p["right"]]
        wrong = [p for p in example["passages"] if not p["right"]]
        if not right:
            continue
        asked, text = example["question"], right[0]["text"]
        if example["source"] in OTHERS:
            others.append({"anchor": asked, "positive": text})
        elif example["source"] in STORIES and wrong:
            negative = rng.choice(wrong)["text"]
            passages.append({"anchor": asked, "positive": text, "negative": negative})
            if right[0]["answer"] is not None:
                sentence = around(text, *right[0]["answer"])
                sentences.append({"anchor": asked, "positive": sentence})
    made = {"passages": passages, "sentences": sentences, "others": others}
    for name, rows in made.items():
        print(f"{name:<9} {len(rows)} pairs", flush=True)
    return {name: Dataset.from_list(rows) for name, rows in made.items()}


def around(text: str, start: int, end: int) -> str:
    """The sentences that hold an answer."""
    held = [span for span in sentence_spans(text) if span.start < end and span.end > start]
    return text[held[0].start : held[-1].end]


if __name__ == "__main__":
    main()
