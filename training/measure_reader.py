"""Measure readers on the validation sets: ranking, words, and telling what is not answered.

    python training/measure_reader.py --work ../reader-training --reader shipped \
        --reader ../reader-training/runs/deep-1/final

The product's search finds ten passages for each question; each reader reads these. What joins a
reader's numbers with the search's score, and the threshold of refusing, is fitted on the training
stories kept for calibration, the same way for each reader. Verdicts are kept on disk, so a second
call prints at once; --fresh reads again. --ask measures today's whole program beside the readers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from candidates import Case, dev_cases, val_cases
from judges import SHIPPED, Verdict, load_judge
from numpy.typing import NDArray
from question_sets import TRAIN_SETS, VAL_SETS, read_lines, story_questions
from scipy.optimize import minimize
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from ballet_qa.answering import Answerer
from ballet_qa.metrics import token_f1
from ballet_qa.questions import Evidence, is_right

Floats = NDArray[np.float64]
ORDER_FEATURES = ("relevance", "answerable", "somewhere", "score")
LENIENT = 0.2
WORDING_SETS = {"modern", "natural", "classic", "paraphrase"}


def main() -> None:
    options = arguments()
    draw = (options.data, options.work, options.seed, options.answerable, options.unanswerable)
    dev, val = dev_cases(*draw), val_cases(*draw)
    val = {name: cases for name, cases in val.items() if name in options.sets}
    print_wording(options.data, val)
    for name in options.reader:
        read = {
            part: {s: verdicts(options, name, part, s, cases) for s, cases in sets.items()}
            for part, sets in (("dev", dev), ("val", val))
        }
        every_dev = [c for cases in dev.values() for c in cases]
        fitted = fit(every_dev, [v for rows in read["dev"].values() for v in rows])
        weights = [f"{n} {w:.2f}" for n, w in zip(ORDER_FEATURES, fitted.order, strict=True)]
        print(f"\n## {name}\norder: {', '.join(weights)}")
        print_table(fitted, val, read["val"])
        print_kinds(fitted, val, read["val"])
    if options.ask:
        print_ask(options, val)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--reader", action="append", default=[], help='"shipped", or a folder')
    names = [one.name for one in VAL_SETS]
    parser.add_argument("--sets", nargs="+", choices=names, default=names)
    parser.add_argument("--answerable", type=int, default=150, help="questions of each set")
    parser.add_argument("--unanswerable", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="read again what was read before")
    parser.add_argument("--ask", action="store_true", help="measure today's whole program too")
    return parser.parse_args()


def verdicts(
    options: argparse.Namespace, reader: str, part: str, source: str, cases: Sequence[Case]
) -> list[list[Verdict]]:
    """A reader's verdicts on each candidate of each case; those made before are on disk."""
    place = reader if reader == SHIPPED else str(Path(reader).resolve())
    key = hashlib.sha256(place.encode()).hexdigest()[:12]
    file = options.work / "verdicts" / f"{part}-{source}-{key}.jsonl"
    known = {}
    if file.exists() and not options.fresh:
        known = {fields["id"]: fields for fields in read_lines(file)}
    missing = [case for case in cases if case.id not in known]
    if missing:
        print(f"{reader} reads {part} {source}: {len(missing)} questions", flush=True)
        for case, row in zip(missing, load_judge(reader).judge(missing), strict=True):
            known[case.id] = {"id": case.id, "verdicts": [asdict(verdict) for verdict in row]}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in known.values()), "utf-8")
    return [[Verdict(**fields) for fields in known[case.id]["verdicts"]] for case in cases]


@dataclass(frozen=True)
class Fitted:
    """Weights of ORDER_FEATURES for the order, a model of answerability, and its thresholds.

    At ``threshold`` both errors together are rarest on the stories kept for calibration, at
    ``lenient`` LENIENT of their answerable questions are refused.
    """

    order: Floats
    scale: Floats
    model: LogisticRegression
    threshold: float
    lenient: float

    def scores(self, case: Case, said: Sequence[Verdict]) -> Floats:
        """What orders the candidates that were found."""
        return features(case, said) / self.scale @ self.order

    def likely(self, case: Case, said: Sequence[Verdict]) -> float:
        """How likely the question is answered, by its first candidate and by all."""
        return float(self.model.predict_proba([signs(case, said, self.scores(case, said))])[0, 1])


def features(case: Case, said: Sequence[Verdict]) -> Floats:
    """ORDER_FEATURES of the candidates that were found, shape (found, features)."""
    pairs = zip(case.candidates, said, strict=True)
    return np.array(
        [
            [v.relevance, v.answerable, np.clip(v.somewhere, -15, 15), c.score]
            for c, v in pairs
            if c.rank
        ]
    )


def signs(case: Case, said: Sequence[Verdict], scores: Floats) -> Floats:
    """What tells whether a question is answered at all: of its first candidate, and the most."""
    rows = features(case, said)
    first = rows[int(scores.argmax())]
    return np.array([*first[:3], *rows.max(axis=0)[:3], np.sort(rows[:, 1])[-2:].mean()])


def fit(cases: Sequence[Case], said: Sequence[list[Verdict]]) -> Fitted:
    """Fit all on the stories kept for calibration."""
    tables = [features(case, row) for case, row in zip(cases, said, strict=True)]
    scale = np.concatenate(tables).std(axis=0)
    order = fit_order(cases, [table / scale for table in tables])
    rows, truth = [], []
    for case, row, table in zip(cases, said, tables, strict=True):
        rows.append(signs(case, row, table / scale @ order))
        truth.append(case.answerable)
    model = LogisticRegression(C=0.1, max_iter=5000).fit(rows, truth)
    likely = model.predict_proba(rows)[:, 1]
    answerable = np.array(truth)
    lenient = float(np.quantile(likely[answerable], LENIENT))
    return Fitted(order, scale, model, two_sided(likely, answerable), lenient)


def fit_order(cases: Sequence[Case], tables: Sequence[Floats]) -> Floats:
    """Weights whose softmax over each question's candidates puts most on the right ones."""
    lists = [
        (table, np.array([c.right for c in case.found]))
        for case, table in zip(cases, tables, strict=True)
        if 0 < sum(c.right for c in case.found) < len(case.found)
    ]

    def loss(weights: Floats) -> float:
        total = 0.01 * float(weights @ weights) * len(lists)
        for table, right in lists:
            logs = table @ weights
            total -= float(np.logaddexp.reduce(logs[right]) - np.logaddexp.reduce(logs))
        return total

    start = np.full(len(ORDER_FEATURES), 0.3)
    return np.asarray(minimize(loss, start, method="L-BFGS-B").x)


def two_sided(likely: Floats, answerable: NDArray[np.bool_]) -> float:
    """The threshold at which both kinds of error together are rarest, as shares."""
    tried = np.unique(likely)
    errors = [
        (likely[answerable] < least).mean() + (likely[~answerable] >= least).mean()
        for least in tried
    ]
    return float(tried[int(np.argmin(errors))])


def print_table(
    fitted: Fitted, val: dict[str, list[Case]], read: dict[str, list[list[Verdict]]]
) -> None:
    """One line a set."""
    columns = "n+ n- | search R@1 R@10 | reader R@1 | both R@1 | F1 right passage, first answer"
    last = "AUC answerable, somewhere, fitted | refused answerable, un-: two-sided · lenient"
    print(f"| set | {columns} | {last} |")
    print("|---" * 8 + "|")
    for name, cases in val.items():
        said = read[name]
        pairs = list(zip(cases, said, strict=True))
        answered = [(case, row) for case, row in pairs if case.answerable]
        asked = [case for case, _ in answered]
        truth = np.array([case.answerable for case in cases])
        likely = np.array([fitted.likely(*pair) for pair in pairs])
        refused = [likely < least for least in (fitted.threshold, fitted.lenient)]
        aucs = [
            auc(truth, score)
            for score in (
                [features(*pair)[:, 1].max() for pair in pairs],
                [features(*pair)[:, 2].max() for pair in pairs],
                likely,
            )
        ]
        figures = [
            f"{len(answered)} {len(pairs) - len(answered)}",
            both(map(search_first, asked), map(any_right, asked)),
            mean(right_first(c, features(c, v)[:, 0]) for c, v in answered),
            mean(right_first(c, fitted.scores(c, v)) for c, v in answered),
            both((given_f1(*p) for p in answered), (first_f1(fitted, *p) for p in answered)),
            " ".join(aucs),
            " · ".join(both(r[truth], r[~truth]) for r in refused),
        ]
        print("|", " | ".join([name, *figures]), "|")


def print_kinds(
    fitted: Fitted, val: dict[str, list[Case]], read: dict[str, list[list[Verdict]]]
) -> None:
    """The same by kind, over all sets."""
    by_kind: dict[str, list[tuple[Case, list[Verdict]]]] = {}
    for name, cases in val.items():
        for pair in zip(cases, read[name], strict=True):
            by_kind.setdefault(pair[0].kind.replace("howmany", "how-many"), []).append(pair)
    print("| kind | n | both R@1 | F1 right passage, first answer | refused |")
    print("|---" * 5 + "|")
    for kind, pairs in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        refused = mean(fitted.likely(*pair) < fitted.threshold for pair in pairs)
        answered = [pair for pair in pairs if pair[0].answerable]
        line = ["", "", ""]
        if answered:
            first = mean(right_first(c, fitted.scores(c, v)) for c, v in answered)
            line = [first, mean(given_f1(*p) for p in answered)]
            line.append(mean(first_f1(fitted, *p) for p in answered))
        print(f"| {kind} | {len(pairs)} | {line[0]} | {line[1]} {line[2]} | {refused} |")


def right_first(case: Case, scores: Floats) -> bool:
    return bool(case.found[int(scores.argmax())].right)


def search_first(case: Case) -> bool:
    return case.found[0].right


def any_right(case: Case) -> bool:
    return any(candidate.right for candidate in case.found)


def given_f1(case: Case, said: Sequence[Verdict]) -> float:
    """F1 of the words in the right passage; of several the one the reader holds likeliest."""
    right = [v for c, v in zip(case.candidates, said, strict=True) if c.right]
    if not right:
        return 0.0
    return token_f1(max(right, key=lambda v: v.relevance).words, case.answers)


def first_f1(fitted: Fitted, case: Case, said: Sequence[Verdict]) -> float:
    """F1 of the words of the first candidate, never refusing."""
    found = [v for c, v in zip(case.candidates, said, strict=True) if c.rank]
    return token_f1(found[int(fitted.scores(case, said).argmax())].words, case.answers)


def print_wording(data: Path, val: dict[str, list[Case]]) -> None:
    """How well a classifier tells unanswerable questions that sees nothing but their wording."""
    sets = [one for one in TRAIN_SETS if one.name in WORDING_SETS]
    train = [question for one in sets for question in story_questions(data, one)]
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        LogisticRegression(C=1.0, max_iter=2000, class_weight="balanced"),
    ).fit([q.question for q in train], [q.answerable for q in train])
    figures = [
        f"{name} {auc(np.array([c.answerable for c in cases]), probabilities(model, cases))}"
        for name, cases in val.items()
    ]
    print("AUC of the wording alone:", " · ".join(figures))


def probabilities(model: object, cases: Sequence[Case]) -> Floats:
    return np.asarray(model.predict_proba([c.question for c in cases])[:, 1])  # type: ignore[attr-defined]


def print_ask(options: argparse.Namespace, val: dict[str, list[Case]]) -> None:
    """Today's whole program on the same questions."""
    print("\n## ask\n| set | R@1 | F1 of answers given, refusals 0 | refused answerable, un- |")
    print("|---|---|---|---|")
    for one in (one for one in VAL_SETS if one.name in val):
        wanted = {case.id for case in val[one.name]}
        questions = [q for q in story_questions(options.data, one) if q.id in wanted]
        answerer = Answerer.load(options.work / "indexes" / one.library)
        first, f1, refused = [], [], {True: [], False: []}
        for question in questions:
            answer = answerer.answer(question.question, 10)
            refused[question.answerable].append(answer.status == "not_found")
            if question.answerable:
                evidence: tuple[Evidence, ...] = question.evidence
                first.append(bool(answer.hits) and is_right(answer.hits[0].passage, evidence))
                words = answer.findings[0].answer if answer.findings else ""
                f1.append(token_f1(words, question.answers))
        sides = f"{mean(refused[True])} {mean(refused[False])}"
        print(f"| {one.name} | {mean(first)} | {mean(f1)} | {sides} |", flush=True)


def mean(values: object) -> str:
    """The mean as it is printed."""
    return f"{float(np.mean(list(values))):.3f}"  # type: ignore[call-overload]


def both(one: object, other: object) -> str:
    """Two means beside each other."""
    return f"{mean(one)} {mean(other)}"


def auc(truth: NDArray[np.bool_], scores: Sequence[float] | Floats) -> str:
    return f"{roc_auc_score(truth, scores):.3f}"


if __name__ == "__main__":
    main()
