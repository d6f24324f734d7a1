"""What stories, names and options hold is shown; a terminal never obeys it."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ballet_qa import cli
from ballet_qa.build import BuildReport, build_index
from ballet_qa.terminal import LineFormatter, json_text, neutralised, one_line, say
from ballet_qa.types import Encoder
from conftest import ROOT

BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
MARKS = "\u061c\u200e\u200f\ufeff\ufff9\ufffa\ufffb"  # neither controls nor of a class in BIDI


def is_obeyed(char: str) -> bool:
    """Whether a terminal may obey it, by Unicode's own tables."""
    return (
        unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(char) in BIDI
        or char in MARKS
        or 0xE0000 <= ord(char) <= 0xE007F
    )


OBEYED = frozenset(filter(is_obeyed, map(chr, range(sys.maxunicode + 1))))
# The clipboard, a colour by ESC and by C1, reversed text, a line taken back, a forged line.
HOSTILE = "\x1b]52;c;RVZJTA==\x07\x1b[31m\x9b31m\u202e\x08\u2028\nFORGED"
HOSTILE_NAME = HOSTILE + "\r\x85FORGED"
READABLE = "Amélie’s “naïve” co\u00adop – 漢字, می‌خواهم, क्‍ष, 👩‍👩‍👧 ❤️, e\u0301"


def check_harmless(shown: str) -> None:
    """No character is obeyed but the line feed, and no value begins a line."""
    assert OBEYED & set(shown) <= {"\n"}
    assert not re.search(r"^\W*FORGED", shown, re.M)


# Text


def test_every_character_that_is_obeyed_becomes_a_visible_escape() -> None:
    for char in OBEYED - {"\n", "\t"}:
        shown = neutralised(char)
        assert shown.isascii()
        assert shown.isprintable()
        assert ast.literal_eval(f'"{shown}"') == char
    assert neutralised("\t\n") == " \n"


@given(st.text(st.characters()))
def test_no_text_is_obeyed_and_all_else_is_unchanged(text: str) -> None:
    shown = neutralised(text)
    assert OBEYED & set(shown) <= {"\n"}
    assert neutralised(shown) == shown
    if not OBEYED & set(text):
        assert shown == text


@given(st.text(st.characters()))
def test_a_value_is_one_line(text: str) -> None:
    assert one_line(text).splitlines() in ([], [one_line(text)])
    assert not OBEYED & set(one_line(text))
    assert "  " not in one_line(text)


def test_readable_text_is_unchanged() -> None:
    assert one_line(READABLE) == READABLE
    assert json.dumps(READABLE, ensure_ascii=False) == json_text(READABLE)


TEXTS = st.text(st.characters()) | st.text(st.sampled_from(sorted(OBEYED)))
FORMS = st.recursive(
    TEXTS | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=8,
)


@given(FORMS, st.sampled_from([None, 2]))
def test_json_is_not_obeyed_and_reads_back(form: Any, indent: int | None) -> None:
    shown = json_text(form, indent)
    # JSON has no form for two lone surrogates that make a pair: they are the whole character.
    assume(not re.search("[\ud800-\udbff][\udc00-\udfff]", repr_of(form)))
    assert json.loads(shown) == form
    assert OBEYED & set(shown) <= {"\n"}


def repr_of(form: Any) -> str:
    """All the text of a form."""
    if isinstance(form, dict):
        return "|".join(map(repr_of, [*form.keys(), *form.values()]))
    return "|".join(map(repr_of, form)) if isinstance(form, list) else str(form)


def test_say_keeps_a_line_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("one\ntwo", HOSTILE)
    say("three", error=True)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == "one\\ntwo"
    assert len(shown.out.splitlines()) == 2
    check_harmless(shown.out)
    assert shown.err == "three\n"


def test_only_one_module_prints() -> None:
    printing = []
    for path in sorted((ROOT / "src" / "ballet_qa").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in PRINTERS:
                printing.append(path.name)
    assert printing == ["terminal.py"]


PRINTERS = {"print", "sys.stdout.write", "sys.stderr.write", "typer.echo", "typer.secho"}


# stderr: what neither the command line nor this package writes


def test_a_log_record_is_one_line_and_its_traceback_is_harmless() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        raised = sys.exc_info()
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "of %s", (HOSTILE,), raised)
    shown = LineFormatter().format(record)
    assert shown.splitlines()[0] == f"of {one_line(HOSTILE)}"
    assert "Traceback" in shown.splitlines()[1]
    assert OBEYED & set(shown) <= {"\n"}


@pytest.mark.parametrize(
    "code",
    [
        "logging.getLogger('ballet_qa.library').warning('of %s', bad)",
        "logging.getLogger('uvicorn.error').error('of %s', bad)",
        "warnings.warn(bad)",
        "raise ValueError(bad)",
        "thread = threading.Thread(target=int, args=(bad + bad,)); thread.start(); thread.join()",
        "traceback.print_stack(file=None); sys.stderr.writelines([bad, bad])",
    ],
)
def test_what_others_write_to_stderr_is_harmless(code: str) -> None:
    script = (
        "import logging, sys, threading, traceback, warnings\n"
        "from ballet_qa.terminal import protect_stderr\n"
        f"protect_stderr()\nbad = {HOSTILE!r}\n{code}\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    shown = done.stderr.decode()
    assert "\\x1b]52;" in shown
    assert OBEYED & set(shown) <= {"\n"}


# Every command, over a library in which everything is hostile


@dataclass(frozen=True)
class Shelf:
    """A folder of hostile stories, the index of it, and what the build reported."""

    stories: Path
    index: Path
    report: BuildReport


STORY = (
    "The Lighthouse \x1b[2J\x9b31m\u202e Keeper\n\n"
    f"Anna Petrova owned the old lighthouse {HOSTILE} on the northern cliff.\n\n"
    "She had come there as a girl, with her father and two brown dogs, and she never left it. "
    "In winter the sea came up to the door, and she read by the lamp until the morning. "
    "In summer she grew beans and potatoes behind the wall, where the wind did not reach. "
    "Each evening she climbed all the steps and lit the light, and ships went by in the dark.\n"
)
TITLED = (
    '---\ntitle: "The \\e]0;x\\a \\r\\n FORGED \\u202e\\u2028 Baker"\n---\n\nBoris ate bread.\n'
)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Shelf:
    folder = tmp_path_factory.mktemp("hostile")
    stories = folder / f"shelf{HOSTILE_NAME}"
    stories.mkdir()
    (stories / f"a{HOSTILE_NAME}.txt").write_text(STORY, "utf-8")
    (stories / f"b{HOSTILE_NAME}.md").write_text(TITLED, "utf-8")
    (stories / f"c{HOSTILE_NAME}.txt").write_text("Boris ate bread.\n", "utf-8")
    (stories / f"d{HOSTILE_NAME}.txt").write_bytes(b"\x00")
    (stories / f"e{HOSTILE_NAME}.txt").write_bytes("Élise à déjà mangé, voilà.\n".encode("cp1252"))
    (stories / f"f.{HOSTILE_NAME}").write_bytes(b"")
    (stories / "g\udce9\udc9b31m.txt").write_text("A swan slept.\n", "utf-8")
    report = build_index(stories, folder / "index", encoder=encoder)
    return Shelf(stories, folder / "index", report)


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    code: int | str | None
    out: str
    error: str


Command = Callable[..., Done]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process, check that what it prints is harmless, and give that back."""
    # pytest's own stderr is read instead; the tests with a process of their own have it protected.
    monkeypatch.setattr(cli, "protect_stderr", lambda: None)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["ballet-qa", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        check_harmless(shown.out)
        check_harmless(shown.err)
        return Done(left.value.code, shown.out, shown.err)

    return run


def process(*arguments: str) -> Done:
    """Run a command as a process of its own, and check that what it prints is harmless."""
    done = subprocess.run(
        [sys.executable, "-m", "ballet_qa", *arguments],
        capture_output=True,
        env=os.environ | {"COLUMNS": "100"},
        timeout=120,
        check=False,
    )
    shown = Done(done.returncode, done.stdout.decode(), done.stderr.decode())
    check_harmless(shown.out)
    check_harmless(shown.error)
    return shown


def story_ids(shelf: Shelf) -> list[str]:
    return [path.stem for path in sorted(shelf.stories.iterdir()) if path.stem[0] in "abc"]


def test_ask_shows_a_quote_on_one_line(shelf: Shelf) -> None:
    done = process("ask", "Who owned the lighthouse?", "--index", str(shelf.index))
    assert (done.code, done.error) == (0, "")
    quote, source = done.out.splitlines()
    assert "owned the old lighthouse \\x1b]52;c;RVZJTA==\\x07\\x1b[31m\\x9b31m\\u202e" in quote
    assert source.startswith("  — The Lighthouse \\x1b[2J\\x9b31m\\u202e Keeper, paragraph 2  [a")


def test_ask_json_has_the_words_of_the_story(shelf: Shelf, command: Command) -> None:
    where = ["--index", str(shelf.index), "--json"]
    form = json.loads(command("ask", "Who owned the lighthouse?", *where).out)
    (finding,) = form["findings"]
    assert HOSTILE in finding["quote"]
    assert STORY[finding["start"] : finding["end"]] == finding["quote"]
    assert finding["story"]["id"] == f"a{HOSTILE_NAME}"
    asked = json.loads(command("ask", f"Who owned {HOSTILE} the lighthouse?", *where).out)
    assert HOSTILE in asked["question"]


def test_no_answer_names_what_is_missing_on_one_line(shelf: Shelf, command: Command) -> None:
    asked = f"Where was Natasha\u202ePetrova\x1b[31m \x9b31m {HOSTILE} Godunova born?"
    done = command("ask", asked, "--index", str(shelf.index))
    assert done.code == 0
    assert re.fullmatch(
        r"(?:Not|Perhaps not) in these stories.*\n\nNearest passages:\n"
        r"(?: \d\. .*\n    .*\n)+",
        done.out,
    )


def test_search_shows_two_lines_a_hit(shelf: Shelf, command: Command) -> None:
    where = ["--index", str(shelf.index)]
    done = command("search", "Boris ate bread", *where)
    assert re.fullmatch(r"(?: \d\. .*\n    .*\n){5}", done.out)
    assert "(also in " in done.out
    form = json.loads(command("search", "bread", "--json", *where, "--rerank").out)
    hits = [hit for hit in form["hits"] if hit["story"]["id"] == f"b{HOSTILE_NAME}"]
    assert hits[0]["story"]["title"] == "The \x1b]0;x\x07 FORGED \u202e Baker"
    assert hits[0]["also_in"] == [f"c{HOSTILE_NAME}"]


def test_a_batch_has_a_line_an_answer(shelf: Shelf, command: Command, tmp_path: Path) -> None:
    path = tmp_path / f"q{HOSTILE_NAME}.jsonl"
    lines = [{"id": HOSTILE + str(number), "question": f"bread {HOSTILE}"} for number in (1, 2)]
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    done = command("search", "--batch", str(path), "--index", str(shelf.index))
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == [x["id"] for x in lines]
    path.write_text("nonsense", "utf-8")
    assert "line 1 is not JSON" in command("ask", "--batch", str(path)).error
    path.write_text(json.dumps({"question": "Who?", "stories": [HOSTILE]}), "utf-8")
    done = command("ask", "--batch", str(path), "--index", str(shelf.index))
    assert "line 1: no story" in done.error
    assert len(done.error.splitlines()) == 1


def test_info_has_a_line_a_story(shelf: Shelf, command: Command) -> None:
    where = ["--index", str(shelf.index), "--stories"]
    done = command("info", *where)
    assert len(done.out.splitlines()) == 7 + shelf.report.stories == 12
    form = json.loads(command("info", *where, "--json").out)
    assert [entry["id"] for entry in form["catalogue"]][:3] == story_ids(shelf)
    assert form["catalogue"][0]["source"] == str(shelf.stories / f"a{HOSTILE_NAME}.txt")


def test_build_reports_each_file_on_one_line(shelf: Shelf, tmp_path: Path) -> None:
    done = process("build", "--stories", str(shelf.stories), "--index", str(tmp_path / "index"))
    assert (done.code, done.error) == (1, "")
    *kinds, counts = [re.split("[:,]", line)[0] for line in done.out.splitlines()]
    assert kinds == ["plan", "encoding guessed", "ignored", "refused"]
    assert counts == "5 stories"


def test_a_dry_run_lists_each_change_on_one_line(
    shelf: Shelf, command: Command, tmp_path: Path
) -> None:
    where = ["--stories", str(shelf.stories), "--index", str(tmp_path / "index"), "--dry-run"]
    kinds = [line.split(":")[0] for line in command("build", *where).out.splitlines()]
    assert kinds.count("add") == 5
    assert len(kinds) == 10


def test_nothing_to_build_is_one_line(tmp_path: Path, command: Command) -> None:
    (tmp_path / f"x{HOSTILE_NAME}.txt").write_bytes(b"\x00")
    where = ["--stories", str(tmp_path), "--index", str(tmp_path / "index")]
    done = command("build", *where)
    assert "every file was refused" in done.error
    assert len(done.error.splitlines()) == 1


def test_doctor_has_a_line_a_check(shelf: Shelf, command: Command) -> None:
    done = command("doctor", "--index", str(shelf.index))
    assert [line.split()[0] for line in done.out.splitlines()] == ["ok"] * 6


def test_evaluate_has_the_lines_of_its_tables(
    shelf: Shelf, command: Command, tmp_path: Path
) -> None:
    evidence = [{"story": f"a{HOSTILE_NAME}", "start": 30, "end": 60}]
    asked = {"id": 1, "question": f"Who owned {HOSTILE} it?", "kinds": [HOSTILE]}
    lines = []
    for name, kinds in ((f"q{HOSTILE_NAME}.jsonl", [HOSTILE]), ("q.jsonl", ["kind"])):
        question = asked | {"kinds": kinds, "answers": ["Anna"], "evidence": evidence}
        (tmp_path / name).write_text(json.dumps(question), "utf-8")
        where = ["--questions", str(tmp_path / name), "--index", str(shelf.index)]
        lines.append(command("evaluate", *where).out.splitlines())
    assert len(lines[0]) == len(lines[1])
    where[1] = str(tmp_path / f"q{HOSTILE_NAME}.jsonl")
    (form,) = json.loads(command("evaluate", "--json", *where).out).items()
    assert form[0] == where[1]


BAD = f"x{HOSTILE_NAME}"
NO_UNICODE = "x\udcff\udc9b31m"


@pytest.mark.parametrize("bad", [BAD, NO_UNICODE], ids=["hostile", "no Unicode"])
@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (3, ["ask", "Who?", "--index", "BAD"]),
        (3, ["search", "Who?", "--index", "BAD"]),
        (3, ["info", "--index", "BAD"]),
        (3, ["info", "--index", "s3://BAD"]),
        (3, ["doctor", "--index", "BAD"]),
        (3, ["ask", "Who?", "--story", "BAD", "--index", "INDEX"]),
        (3, ["ask", "Who?", "--reader", "BAD", "--index", "INDEX"]),
        (3, ["ask", "--batch", "BAD"]),
        (3, ["evaluate", "--questions", "BAD"]),
        (3, ["build", "--stories", "BAD", "--index", "BAD"]),
        (2, ["build", "--vectors", "BAD"]),
        (2, ["build", "--shards", "BAD"]),
        (2, ["ask", "Who?", "--top-k", "BAD"]),
        (2, ["ask", "Who?", "BAD"]),
        (2, ["ask", "--BAD"]),
        (2, ["BAD"]),
        (3, ["serve", "--host", "BAD"]),
    ],
)
def test_an_error_is_one_line(
    shelf: Shelf, command: Command, code: int, arguments: list[str], bad: str
) -> None:
    filled = [one.replace("BAD", bad).replace("INDEX", str(shelf.index)) for one in arguments]
    done = command(*filled)
    assert (done.code, done.out) == (code, "")
    (line,) = done.error.splitlines()
    assert line.startswith("ballet-qa: ")


def test_an_error_of_a_process_is_one_line(shelf: Shelf) -> None:
    for arguments in (["ask", "Who?", "--index", BAD], [BAD]):
        (line,) = process(*arguments).error.splitlines()
        assert "\\x1b]52;c;RVZJTA==\\x07" in line


def test_an_encoder_that_is_not_there_is_one_line(shelf: Shelf, tmp_path: Path) -> None:
    where = ["--stories", str(shelf.stories), "--index", str(tmp_path / "index")]
    done = process("build", *where, "--encoder", BAD)
    assert done.code == 3
    assert "ballet-qa: no encoder 'x\\x1b]52;" in done.error.splitlines()[-1]


def test_a_question_that_is_no_unicode_is_refused(shelf: Shelf, command: Command) -> None:
    for name in ("ask", "search"):
        done = command(name, f"Who {NO_UNICODE}?", "--index", str(shelf.index))
        assert (done.code, done.out) == (2, "")
        assert done.error.startswith("ballet-qa: the question ")
        assert len(done.error.splitlines()) == 1
