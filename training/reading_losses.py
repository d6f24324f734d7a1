"""What the reader is trained to lower, and how its progress on stories kept aside is measured."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from packed_batches import Batch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

FAR_AWAY = -1e4  # the logit of what is not allowed; bfloat16 and float16 hold it
WEIGHTS = {"rank": 1.0, "answerable": 1.0, "span": 1.0}
UNANSWERABLE_SHARE = 0.6  # weight of a row that does not answer: there are more of them
DISTILLED = {"rank": 1.0, "answerable": 0.2, "span": 1.0}
TEMPERATURE = 1.5


Rows = TypeVar("Rows", Batch, "Outputs")


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a network says of a batch: logits (rows,), (rows,) and (rows, tokens, 2)."""

    relevance: torch.Tensor
    answerable: torch.Tensor
    places: torch.Tensor


def losses(batch: Batch, said: Outputs) -> dict[str, torch.Tensor]:
    """The three losses, each a mean over the rows it is defined for."""
    weight = torch.where(batch.answerable > 0, 1.0, UNANSWERABLE_SHARE)
    return {
        "rank": rank_loss(said.relevance, batch.lists, batch.ranked),
        "answerable": binary_cross_entropy_with_logits(
            said.answerable, batch.answerable, weight=weight
        ),
        "span": span_loss(said.places, batch.allowed, batch.spans, weight),
    }


def rank_loss(relevance: torch.Tensor, lists: torch.Tensor, ranked: torch.Tensor) -> torch.Tensor:
    """Minus the log of the right passage's share in the softmax over its list."""
    same = lists.unsqueeze(0) == lists.unsqueeze(1)
    table = relevance.unsqueeze(0).expand_as(same).masked_fill(~same, FAR_AWAY)
    logs = relevance - torch.logsumexp(table, dim=1)
    return -(logs * ranked).sum() / ranked.sum().clamp(min=1)


def span_loss(
    places: torch.Tensor, allowed: torch.Tensor, spans: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Minus the log of the share of the right starts and ends; any of several spans is right."""
    logs = log_places(places, allowed)
    known = spans[:, 0, 0] >= 0
    right = torch.zeros_like(logs, dtype=torch.bool)
    rows = torch.arange(len(spans), device=spans.device)
    for number in range(spans.shape[1]):
        there = spans[:, number, 0] >= 0
        for side in (0, 1):
            right[rows[there], spans[there, number, side], side] = True
    mass = torch.logsumexp(logs.masked_fill(~right, FAR_AWAY), dim=1).mean(1)
    scale = weight * known
    return -(mass * scale).sum() / scale.sum().clamp(min=1)


def log_places(places: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of starts and ends over the allowed tokens."""
    return torch.log_softmax(places.masked_fill(~allowed.unsqueeze(-1), FAR_AWAY), dim=1)


def distillation(batch: Batch, said: Outputs, teacher: Outputs) -> dict[str, torch.Tensor]:
    """How far a network is from its teacher: ranking, answerability and places."""
    same = batch.lists.unsqueeze(0) == batch.lists.unsqueeze(1)

    def shares(scores: torch.Tensor) -> torch.Tensor:
        table = scores.unsqueeze(0).expand_as(same).masked_fill(~same, FAR_AWAY)
        return torch.log_softmax(table / TEMPERATURE, dim=1)

    def apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (other.exp() * (other - one)).sum(1).mean()

    own, known = (log_places(s.places / TEMPERATURE, batch.allowed) for s in (said, teacher))
    return {
        "rank": apart(shares(said.relevance), shares(teacher.relevance)),
        "answerable": (said.answerable - teacher.answerable).pow(2).mean(),
        "span": apart(own, known),
    }


def part_of(whole: Rows, rows: slice) -> Rows:
    """Some of the rows of a batch or of what was said of it."""
    return type(whole)(*(getattr(whole, field.name)[rows] for field in fields(whole)))


@dataclass(slots=True)
class Progress:
    """Counts over batches of stories kept aside."""

    first: list[bool]
    exact: list[bool]
    answerable: list[tuple[float, float]]
    near: list[tuple[float, float]]

    def add(self, batch: Batch, said: Outputs) -> None:
        """Count a batch of one list, or of a pair: a question and its near negative."""
        verdicts = said.answerable.float().cpu().numpy()
        truth = batch.answerable.cpu().numpy()
        if len(set(batch.lists.tolist())) == 2:
            self.near += list(zip(truth.tolist(), verdicts.tolist(), strict=True))
            return
        best = int(said.relevance.argmax())
        self.answerable.append((float(truth.max()), float(verdicts[best])))
        if bool(batch.ranked[0]):
            self.first.append(best == 0)
            places = log_places(said.places, batch.allowed)[0].argmax(0).tolist()
            spans = [span for span in batch.spans[0].tolist() if span[0] >= 0]
            if spans:
                self.exact.append(places in spans)

    def figures(self) -> dict[str, float]:
        """Right passage first, exact spans, and how well the answerable head separates."""
        return {
            "right_first": float(np.mean(self.first)),
            "exact_span": float(np.mean(self.exact)),
            "answerable_auc": _auc(self.answerable),
            "near_auc": _auc(self.near),
        }


def _auc(pairs: list[tuple[float, float]]) -> float:
    truth, score = np.array(pairs).T
    return float(roc_auc_score(truth, score)) if 0 < truth.mean() < 1 else float("nan")


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over some steps."""
    names: NDArray[np.str_] = np.array(list(rows[0]))
    return {str(name): float(np.mean([row[str(name)] for row in rows])) for name in names}
