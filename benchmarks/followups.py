"""What completing a question from the conversation is worth, beside people's own rewriting.

    make bench-followups        about five minutes on two cores

CANARD (Elgohary et al., 2019) has conversations, and each question as people wrote it out. Every
conversation's answers become a story of their own, its title and heading the first lines; each
question is searched for as asked, as completed by `ballet_qa.followups`, with the title put before
it, and as people wrote it. Right is the story of its conversation. The rules were written while
looking at the conversations of even number; those of odd number were not looked at. Prints the
table of docs/followups.md, and writes benchmarks/results/followups.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from circumstances import circumstances
from quality import ROOT, progress
from reading import interval

from ballet_qa.build import build_index
from ballet_qa.encoder import load_encoder
from ballet_qa.followups import Turn, completed
from ballet_qa.metrics import mean
from ballet_qa.retriever import Retriever

NO_ANSWER = "I don't know."
DEPTHS = (1, 5)


@dataclass(frozen=True, slots=True)
class Case:
    """A question in its conversation: as asked, as completed (None: left alone), as rewritten."""

    conversation: str
    title: str
    asked: str
    completed: str | None
    rewritten: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = ROOT.parent / "shared" / "data" / "canard" / "dev-half.jsonl"
    parser.add_argument("--data", type=Path, default=data)
    options = parser.parse_args()
    conversations = load(options.data)
    encoder = load_encoder()
    with tempfile.TemporaryDirectory() as folder:
        stories = Path(folder, "stories")
        stories.mkdir()
        for name, turns in conversations.items():
            (stories / f"{name}.txt").write_text(story_of(turns), "utf-8")
        build_index(stories, Path(folder, "index"), encoder=encoder)
        retriever = Retriever.load(Path(folder, "index"), encoder)
        results = circumstances() | {"parts": {}}
        for part, number in (("looked at", 0), ("not looked at", 1)):
            names = sorted(conversations)[number::2]
            cases = [case for name in names for case in cases_of(name, conversations[name])]
            results["parts"][part] = measure(retriever, cases)
    print(table(results))
    path = Path(__file__).parent / "results" / "followups.json"
    path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def load(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The questions of every conversation, in order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in path.read_text("utf-8").splitlines():
        fields = json.loads(line)
        found.setdefault(fields["id"].partition("#")[0], []).append(fields)
    return {name: sorted(told, key=lambda f: len(f["history"])) for name, told in found.items()}


def story_of(turns: Sequence[dict[str, Any]]) -> str:
    """A conversation's title, heading and answers, a paragraph each."""
    history = turns[-1]["history"]
    answers = [" ".join(a.split()) for a in history[3::2] if a != NO_ANSWER]
    ended = [answer if answer[-1] in ".!?" else f"{answer}." for answer in answers]
    return "\n\n".join([*history[:2], *ended])


def cases_of(name: str, turns: Sequence[dict[str, Any]]) -> list[Case]:
    """Each question, completed from those before it as they were completed."""
    cases: list[Case] = []
    searched: dict[int, str] = {}
    for fields in turns:
        history, question = fields["history"], fields["question"]
        title = history[0]
        before = [Turn(f"What about {title}?", topic=title)]
        for place in range(2, len(history), 2):
            answer = "" if history[place + 1] == NO_ANSWER else history[place + 1]
            before.append(Turn(searched.get(place, history[place]), answer, topic=title))
        made = completed(question, before)
        searched[len(history)] = made or question
        cases.append(Case(name, title, question, made, fields["rewrite"]))
    return cases


def measure(retriever: Retriever, cases: Sequence[Case]) -> dict[str, Any]:
    """R@k of the right story for every form of the questions, over all and over the completed."""
    tick = progress("follow-ups")
    made: dict[str, list[list[bool]]] = {}
    for number, case in enumerate(cases, start=1):
        for form, query in {
            "as asked": case.asked,
            "as completed": case.completed or case.asked,
            "the title before it": f"{case.title} {case.asked}",
            "as people rewrote it": case.rewritten,
        }.items():
            hits = retriever.search(query, max(DEPTHS))
            made.setdefault(form, []).append(
                [hit.passage.story_id == case.conversation for hit in hits]
            )
        tick(number, len(cases))
    rows = {}
    for group, kept in (
        ("all", [True for _ in cases]),
        ("completed", [case.completed is not None for case in cases]),
    ):
        rows[group] = {
            "questions": sum(kept),
            "forms": {
                form: {
                    f"R@{depth}": asdict(
                        mean([float(any(r[:depth])) for r, k in zip(right, kept, strict=True) if k])
                    )
                    for depth in DEPTHS
                }
                for form, right in made.items()
            },
        }
    return rows


def table(results: dict[str, Any]) -> str:
    lines = ["| conversations | questions | form | R@1 | R@5 |", "|---|---|---|---|---|"]
    for part, rows in results["parts"].items():
        for group, held in rows.items():
            for form, measured in held["forms"].items():
                cells = " | ".join(map(interval, measured.values()))
                lines.append(f"| {part} | {group}: {held['questions']} | {form} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
