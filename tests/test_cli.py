"""The command line as a shell sees it: a real process, its output, its exit code."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema

from conftest import KUZNETSOVA, ROOT, SEEDS
from test_architecture import readme_commands

PLACE = {
    "type": "object",
    "required": ["id", "number", "start", "end"],
    "properties": {
        "id": {"type": "string"},
        "number": {"type": "integer", "minimum": 1},
        "start": {"type": "integer", "minimum": 0},
        "end": {"type": "integer", "minimum": 1},
    },
}
STORY = {
    "type": "object",
    "required": ["id", "title"],
    "additionalProperties": False,
    "properties": {"id": {"type": "string"}, "title": {"type": "string"}},
}
HIT = {
    "type": "object",
    "required": ["rank", "score", "scored_by", "story", "passage"],
    "additionalProperties": False,
    "properties": {
        "rank": {"type": "integer", "minimum": 1},
        "score": {"type": "number"},
        "scored_by": {"enum": ["search", "reader"]},
        "story": STORY,
        "passage": PLACE | {"required": [*PLACE["required"], "text"]},
        "also_in": {"type": "array", "items": {"type": "string"}},
    },
}
FINDING = {
    "type": "object",
    "required": ["answer", "confidence", "quote", "story", "passage", "start", "end"],
    "additionalProperties": False,
    "properties": {
        "answer": {"type": "string"},
        "confidence": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "quote": {"type": "string", "minLength": 1},
        "story": STORY,
        "passage": PLACE,
        "start": {"type": "integer"},
        "end": {"type": "integer"},
        "about": {"type": "string", "minLength": 1},
    },
}
ANSWER = {
    "type": "object",
    "required": ["question", "status", "reason", "findings", "hits"],
    "properties": {
        "question": {"type": "string"},
        "status": {"enum": ["answered", "ambiguous", "not_found"]},
        "reason": {"enum": [None, "unknown_name", "no_evidence", "weak_evidence"]},
        "findings": {"type": "array", "items": FINDING},
        "hits": {"type": "array", "items": HIT, "minItems": 1},
    },
}


def run(
    *arguments: str, stdin: str | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ballet_qa", *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"},
        timeout=120,
        check=False,
    )


def fails(expected: int, *arguments: str, stdin: str | None = None) -> str:
    """The one line on stderr of a command that must fail with this code."""
    done = run(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (expected, ""), done
    (line,) = done.stderr.splitlines()
    assert line.startswith("ballet-qa: ")
    return line


def check_offsets(form: dict[str, Any]) -> None:
    """Every quote and passage stands in the seed it names, at its offsets."""
    for finding in form["findings"]:
        text = (SEEDS / f"{finding['story']['id']}.txt").read_text("utf-8")
        assert text[finding["start"] : finding["end"]] == finding["quote"]
        assert finding["answer"] in finding["quote"]
    for hit in form["hits"]:
        text = (SEEDS / f"{hit['story']['id']}.txt").read_text("utf-8")
        passage = hit["passage"]
        assert text[passage["start"] : passage["end"]] == passage["text"]


def test_ask_json_is_the_promised_form(seeds_index: Path) -> None:
    done = run("ask", "Who owns the café?", "--json", "--index", str(seeds_index), "--top-k", "3")
    assert (done.returncode, done.stderr) == (0, "")
    form = json.loads(done.stdout)
    jsonschema.validate(form, ANSWER)
    check_offsets(form)
    assert (form["status"], form["reason"]) == ("answered", None)
    assert form["findings"][0]["story"] == {"id": KUZNETSOVA, "title": "Amélie Kuznetsova"}
    assert "Colette" in form["findings"][0]["quote"]
    assert [hit["rank"] for hit in form["hits"]] == [1, 2, 3]


def test_ask_in_words(seeds_index: Path) -> None:
    done = run("ask", "Who owns the café?", "--index", str(seeds_index))
    assert done.returncode == 0
    assert "Colette" in done.stdout
    assert "— Amélie Kuznetsova, paragraph 5" in done.stdout


def test_no_answer_is_no_failure(seeds_index: Path) -> None:
    done = run("ask", "Where was Natasha Petrova born?", "--index", str(seeds_index))
    assert done.returncode == 0
    assert done.stdout.startswith("Not in these stories: “Natasha Petrova” is nowhere in them.")
    assert "Nearest passages:" in done.stdout


def test_batch_keeps_order_and_ids_and_answers_as_one_by_one(seeds_index: Path) -> None:
    lines = [
        {"id": "b", "question": "Who owns the café?"},
        {"id": 7, "question": "How old is she?", "stories": [KUZNETSOVA]},
        {"id": "a", "question": "Where was Natasha Petrova born?", "stories": None},
    ]
    text = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    done = run("ask", "--batch", "-", "--index", str(seeds_index), stdin=text)
    assert (done.returncode, done.stderr) == (0, "")
    forms = [json.loads(line) for line in done.stdout.splitlines()]
    assert [form.pop("id") for form in forms] == ["b", 7, "a"]
    for form in forms:
        jsonschema.validate(form, ANSWER)
        check_offsets(form)
    assert {hit["story"]["id"] for hit in forms[1]["hits"]} == {KUZNETSOVA}
    alone = run("ask", "Who owns the café?", "--json", "--index", str(seeds_index))
    assert json.loads(alone.stdout) == forms[0]


def test_search_json_and_filter(seeds_index: Path, tmp_path: Path) -> None:
    done = run("search", "snow", "--json", "--index", str(seeds_index), "--story", KUZNETSOVA)
    form = json.loads(done.stdout)
    assert form["query"] == "snow"
    assert len(form["hits"]) == 5
    for hit in form["hits"]:
        jsonschema.validate(hit, HIT)
        assert hit["story"]["id"] == KUZNETSOVA
    (tmp_path / "q.jsonl").write_text('{"id": 1, "question": "snow"}\n', "utf-8")
    batch = run("search", "--batch", str(tmp_path / "q.jsonl"), "--index", str(seeds_index))
    assert [json.loads(line)["id"] for line in batch.stdout.splitlines()] == [1]


def test_info(seeds_index: Path) -> None:
    form = json.loads(run("info", "--json", "--index", str(seeds_index)).stdout)
    assert list(form) == [
        "stories",
        "passages",
        "sentences",
        "encoder",
        "reader",
        "format_version",
        "built",
    ]
    assert (form["stories"], form["passages"]) == (4, 32)
    assert "Valentina Kalmurzaeva" in run("info", "--stories", "--index", str(seeds_index)).stdout


def test_build_names_what_it_refused_and_exits_1(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "good.txt").write_text("A swan.", "utf-8")
    (shelf / "bad.txt").write_bytes(b"\x00")
    where = ["--stories", str(shelf), "--index", str(tmp_path / "index")]
    dry = run("build", *where, "--dry-run")
    assert dry.stdout.splitlines()[:2] == [
        "plan: 2 new files, 0 changed, 0 gone, 0 unchanged",
        "add: good",
    ]
    assert not (tmp_path / "index").exists()
    done = run("build", *where)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "plan: 2 new files, 0 changed, 0 gone, 0 unchanged",
        f"refused: {shelf / 'bad.txt'}: binary, not text; convert it to text first",
        "1 stories: 1 added, 0 changed, 0 renamed, 0 removed, 0 unchanged, 1 refused; "
        "1 passages (1 embedded), 1 sentences",
    ]
    (shelf / "bad.txt").unlink()
    assert run("build", *where).returncode == 0


def test_doctor_says_what_is_wrong_and_repairs_it(tmp_path: Path, seeds_index: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(seeds_index, index)
    where = ["--index", str(index)]
    sound = run("doctor", *where)
    assert (sound.returncode, sound.stderr) == (0, "")
    assert all(line.startswith("ok ") for line in sound.stdout.splitlines())
    (broken,) = index.glob("generations/*/sentences.0.rows")
    broken.write_bytes(b"?")
    found = run("doctor", *where)
    assert found.returncode == 3
    assert f"{broken} is damaged; run: ballet-qa build --rebuild" in found.stdout
    assert "ballet-qa doctor --repair" in found.stdout
    repaired = run("doctor", "--repair", *where)
    assert repaired.returncode == 0
    assert "32 passages (32 embedded)" in repaired.stdout
    assert run("doctor", *where).stdout == sound.stdout
    assert "no index in" in fails(3, "doctor", "--index", str(tmp_path / "nowhere"))


def test_what_cannot_be_done_is_one_line_and_exit_3(tmp_path: Path, seeds_index: Path) -> None:
    nowhere, index = str(tmp_path / "nowhere"), ["--index", str(seeds_index)]
    assert "no index in" in fails(3, "ask", "Who?", "--index", nowhere)
    assert "no folder of stories at" in fails(3, "build", "--stories", nowhere, "--index", nowhere)
    assert "no story 'x' in this index" in fails(3, "ask", "Who?", "--story", "x", *index)
    assert "line 1 is not JSON" in fails(3, "ask", "--batch", "-", *index, stdin="nonsense")
    assert "line 1 is not" in fails(3, "ask", "--batch", "-", *index, stdin='{"id": 1}')
    assert "cannot be read" in fails(3, "ask", "--batch", nowhere, *index)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "choose another --port" in fails(3, "serve", "--port", port, *index)


def test_wrong_usage_is_one_line_and_exit_2(seeds_index: Path) -> None:
    index = ["--index", str(seeds_index)]
    assert "the question is blank" in fails(2, "ask", "  ", *index)
    assert "10,000 characters; at most 2,000" in fails(2, "ask", "x" * 10_000, *index)
    assert "top_k is 0; give a number from 1" in fails(2, "ask", "Who?", "--top-k", "0", *index)
    assert "top_k is 1000000;" in fails(2, "search", "Who?", "--top-k", "1000000", *index)
    assert "give a question, or --batch" in fails(2, "ask", *index)
    assert "Invalid value for '--top-k'" in fails(2, "ask", "Who?", "--top-k", "many")
    assert "No such option: --nonsense" in fails(2, "ask", "--nonsense")
    assert "No such command 'dance'" in fails(2, "dance")


def test_every_command_explains_itself() -> None:
    for command in ("build", "search", "ask", "serve", "mcp", "info", "evaluate", "doctor"):
        done = run(command, "--help")
        assert done.returncode == 0
        assert "Usage:" in done.stdout
        assert "--index" in done.stdout


def test_evaluate_prints_its_tables_and_names_a_story_it_lacks(
    seeds_index: Path, tmp_path: Path
) -> None:
    text = (SEEDS / f"{KUZNETSOVA}.txt").read_text("utf-8")
    start = text.index("For the first time in her life")
    evidence = [{"story": KUZNETSOVA, "start": start, "end": start + 400}]
    questions = [
        {"id": 1, "question": "Who owns the café?", "answers": ["Colette"], "evidence": evidence},
        {"id": 2, "question": "Where was Natasha Petrova born?", "answerable": False},
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(map(json.dumps, questions)), "utf-8")
    done = run("evaluate", "--questions", str(path), "--index", str(seeds_index))
    assert "q.jsonl: 2 questions, 1 answerable, 1 not" in done.stdout
    assert "inside the right story             1  1.000 1.00–1.00" in done.stdout
    path.write_text(
        '{"id": 1, "question": "Who?", "evidence": [{"story": "x", "start": 0, "end": 9}]}'
    )
    assert "'x'" in fails(3, "evaluate", "--questions", str(path), "--index", str(seeds_index))


def test_the_readmes_commands_run(seeds_index: Path, tmp_path: Path) -> None:
    (tmp_path / "seeds").symlink_to(SEEDS)
    (tmp_path / "index").symlink_to(seeds_index)
    (tmp_path / "questions.jsonl").write_text('{"id": 1, "question": "Who owns the café?"}\n')
    for line in readme_commands():
        words = shlex.split(line)[1:]
        if words[0] == "serve" or "--watch" in words or any("../shared" in w for w in words):
            words = [words[0], "--help"]  # serve runs on; shared data is tested where it is
        done = run(*words, cwd=tmp_path)
        assert done.returncode == 0, (line, done.stderr)
