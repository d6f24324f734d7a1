from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ballet_qa.corpus import Refused, find_story_files
from ballet_qa.errors import LoadError, StoriesError
from ballet_qa.extraction import read_regular
from ballet_qa.loaders import load_markdown, load_plain

TALE = "Amélie dansait à l’Opéra. Elle était seule — très seule."


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le-bom", "utf-16-be-bom"]
)
def test_encodings_that_say_what_they_are_are_read_without_a_guess(encoding: str) -> None:
    marks = {"utf-16-le-bom": b"\xff\xfe", "utf-16-be-bom": b"\xfe\xff"}
    data = marks.get(encoding, b"") + TALE.encode(encoding.removesuffix("-bom"))
    loaded = load_plain(data)
    assert (loaded.text, loaded.guess) == (TALE, None)


def test_an_old_encoding_is_detected_and_the_guess_reported() -> None:
    text = (TALE.replace("’", "'").replace("—", "-") + " ") * 20
    loaded = load_plain(text.encode("cp1252"))
    assert loaded.text == text
    assert loaded.guess is not None


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_plain_text_is_not_touched(text: str) -> None:
    if text.strip() and not text.startswith("\ufeff"):
        assert load_plain(text.encode()).text == text


def test_only_line_ends_are_made_one() -> None:
    assert load_plain(b"One.\r\nTwo.\rThree.\n").text == "One.\nTwo.\nThree.\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \n\t\n", "empty"),
        (b"PK\x03\x04\x00\x00\x00" * 20, "binary"),
        (b"A tale\x00 with a NUL", "binary"),
        (b"\xff\xfe\x41", "marked as utf-16-le, but is not"),
        (bytes(range(1, 32)) * 10, "binary"),
    ],
)
def test_what_is_not_text_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(LoadError, match=reason):
        load_plain(data)


def test_markdown_loses_its_marks_and_keeps_its_paragraphs() -> None:
    loaded = load_markdown(
        b"---\ntitle: The *Swan*\nyear: 1877\n---\n# Part one\n\nShe **danced** on\n[the "
        b"lake](http://x.y).\n\n- first\n- second\n\n```\ncode\n```\n"
    )
    assert loaded.title == "The *Swan*"
    assert loaded.text == "Part one\n\nShe danced on\nthe lake.\n\nfirst\n\nsecond\n\ncode"


def test_a_markdown_heading_is_the_title_when_the_front_matter_has_none() -> None:
    assert load_markdown(b"---\nyear: 1877\n---\n# Swan `Lake`\n\nText.").title == "Swan Lake"
    assert load_markdown(b"---\nnot: [yaml\n---\n\nText.").text == "not: [yaml\n\nText."


def test_folders_are_walked_and_ids_are_places(tmp_path: Path) -> None:
    for name in ("b.txt", "sub/a.md", "sub/deep/c.TXT", "sub/x.jpg", "sub/y", ".hidden/d.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("Text.", "utf-8")
    found = find_story_files([tmp_path])
    assert [file.id for file in found.files] == ["b", "sub/a", "sub/deep/c"]
    assert found.ignored == {".jpg": 1, "no suffix": 1}


def test_a_link_may_not_lead_out_of_its_root(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/tale.txt").write_text("A secret.", "utf-8")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("Text.", "utf-8")
    (root / "loop").symlink_to(root)
    (root / "inner.txt").symlink_to("a.txt")
    (root / "out.txt").symlink_to(tmp_path / "secret/tale.txt")
    (root / "outer").symlink_to(tmp_path / "secret")
    (root / "dead.txt").symlink_to("nothing")
    found = find_story_files([root])
    assert [file.id for file in found.files] == ["a", "inner"]
    assert sorted(found.refused, key=lambda refused: refused.path) == [
        Refused(str(root / "dead.txt"), "a link that leads nowhere"),
        Refused(str(root / "out.txt"), f"a link that leads out of {root}"),
        Refused(str(root / "outer"), f"a link that leads out of {root}"),
    ]


def test_two_roots_with_the_same_name_in_them_are_two_stories(tmp_path: Path) -> None:
    for name in ("one/tale.txt", "two/tale.txt", "two/tale.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("Text.", "utf-8")
    files = find_story_files([tmp_path / "one", tmp_path / "two", tmp_path / "one"]).files
    assert [file.id for file in files] == ["tale", "tale.md", "tale.txt"]
    assert len({file.shelf_id for file in files}) == 3
    assert {str(file.path.relative_to(tmp_path)) for file in files} == {
        "one/tale.txt",
        "two/tale.md",
        "two/tale.txt",
    }


def test_a_missing_or_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoriesError, match=r"no folder of stories at .*nowhere"):
        find_story_files([tmp_path / "nowhere"])
    with pytest.raises(StoriesError, match=r"no stories in .*put \.docx, \.epub, .* files"):
        find_story_files([tmp_path])


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(LoadError, match="not a regular file"):
        read_regular(tmp_path / "pipe.txt")
    with pytest.raises(LoadError, match="cannot be read"):
        read_regular(tmp_path / "gone.txt")
