"""A library kept at a URL: put there, brought here, whole or not at all; two machines share one."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from ballet_qa.build import build_index
from ballet_qa.errors import (
    IndexBusyError,
    IndexMismatchError,
    IndexMissingError,
    StorageError,
)
from ballet_qa.home import LIBRARY, Home, LibraryManifest
from ballet_qa.library import Library
from ballet_qa.parts import build_library
from ballet_qa.retriever import Retriever
from conftest import SEEDS, WordEncoder

SwitchTo = Callable[[str], None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SwitchTo:
    """Be on this machine from now on: each has a cache of its own."""

    def switch(name: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    switch("one")
    return switch


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place on disk, and one that has no folders and no file of this machine."""
    return f"{request.param}://{tmp_path / 'bucket' / 'library'}"


def hits(place: str, words: WordEncoder) -> list[tuple[str, float]]:
    found = Retriever.load(place, words).search("swan lake", 9)
    return [(hit.passage.id, hit.score) for hit in found]


def there(url: str) -> set[str]:
    """Every file below a URL."""
    files, root = fsspec.core.url_to_fs(url)
    return {str(path).removeprefix(root) for path in files.find(root)}


def test_what_one_machine_built_another_asks(
    shelf: Path, tmp_path: Path, url: str, machine: SwitchTo, words: WordEncoder
) -> None:
    build_library(shelf, tmp_path / "here", 3, encoder=words)
    report = build_library(shelf, url, 3, encoder=words)
    assert (report.stories, report.embedded) == (2, 5)
    machine("two")
    assert hits(url, words) == hits(str(tmp_path / "here"), words)


def test_another_machine_goes_on_where_one_left_off(
    shelf: Path, url: str, machine: SwitchTo, words: WordEncoder
) -> None:
    build_library(shelf, url, 3, encoder=words)
    before = Home.at(url).live()
    library = Library(url, encoder=words)
    old = library.answerer()
    machine("two")
    assert build_library(shelf, url, 3, encoder=words).embedded == 0
    assert Home.at(url).live() == before
    (shelf / "lake.txt").write_text("A swan on the lake.\n", "utf-8")
    report = build_library(shelf, url, 3, encoder=words)
    assert (report.added, report.embedded) == (("lake",), 1)
    after = Home.at(url).live()
    assert sum(after[name] != before[name] for name in after) == 1
    machine("one")
    assert hits(url, words)[0][0].startswith("lake#")
    # Who asks since before asks on, and gets the new generation once it has been looked for.
    assert library.answerer().retriever.search("swan lake")[0].passage.story_id == "lake"
    assert old.retriever.search("swan lake")[0].passage.story_id == "pond"


def test_only_the_live_generations_and_those_before_stay(
    shelf: Path, url: str, machine: SwitchTo, words: WordEncoder
) -> None:
    build_library(shelf, url, 1, encoder=words)
    for number in range(4):
        machine(f"machine {number}")
        (shelf / f"{number}.txt").write_text(f"Swan {number}.\n", "utf-8")
        build_library(shelf, url, 1, encoder=words)
    generations = {path.split("/")[4] for path in there(url) if path.startswith("/shards/")}
    assert len(generations) == 2
    assert Home.at(url).live()["shard-0-of-1"].generation in generations
    machine("last")
    build_library(shelf, url, 2, encoder=words)
    build_library(shelf, url, 2, encoder=words)
    assert {path.split("/")[2] for path in there(url) if path.startswith("/shards/")} == {
        *Home.at(url).live()
    }


def test_what_was_brought_and_then_damaged_is_brought_again(
    shelf: Path, url: str, machine: SwitchTo, words: WordEncoder
) -> None:
    build_library(shelf, url, 1, encoder=words)
    machine("two")
    expected = hits(url, words)
    home = Home.at(url)
    (entry,) = home.live().values()
    file = home.bring(entry) / "passages.0.rows"
    file.write_bytes(b"?" * file.stat().st_size)
    os.utime(file, ns=(1, 1))
    assert hits(url, words) == expected


def test_what_is_damaged_there_is_refused(
    shelf: Path, url: str, machine: SwitchTo, words: WordEncoder
) -> None:
    build_library(shelf, url, 1, encoder=words)
    (entry,) = Home.at(url).live().values()
    files, root = fsspec.core.url_to_fs(url)
    folder = f"{root}/shards/{entry.name}/generations/{entry.generation}"
    files.pipe_file(f"{folder}/passages.0.rows", b"?")
    machine("two")
    with pytest.raises(IndexMismatchError, match="is damaged"):
        hits(url, words)
    files.pipe_file(f"{folder}/manifest.json", b"{}")
    machine("three")
    with pytest.raises(IndexMismatchError, match="manifest of shard-0-of-1"):
        hits(url, words)


@pytest.mark.parametrize("leads", ["../../secret", "/etc/passwd", "a/../../b", "..\\b"])
def test_a_manifest_cannot_name_a_file_elsewhere(
    leads: str, shelf: Path, tmp_path: Path, machine: SwitchTo, words: WordEncoder
) -> None:
    url = f"file://{tmp_path}/bucket"
    build_library(shelf, url, 1, encoder=words)
    library = tmp_path / "bucket" / LIBRARY
    told = json.loads(library.read_text("utf-8"))
    (entry,) = told["shards"]
    manifest = tmp_path / "bucket/shards" / entry["name"] / "generations" / entry["generation"]
    manifest /= "manifest.json"
    fields = json.loads(manifest.read_text("utf-8"))
    fields["files"][leads] = "0" * 64
    manifest.write_text(json.dumps(fields), "utf-8")
    digest = subprocess.run(["sha256sum", str(manifest)], capture_output=True, check=True)
    entry["sha256"] = digest.stdout.decode().split()[0]
    library.write_text(json.dumps(told), "utf-8")
    machine("two")
    with pytest.raises(IndexMismatchError, match="leads elsewhere"):
        hits(url, words)
    entry["generation"] = leads
    library.write_text(json.dumps(told), "utf-8")
    with pytest.raises(IndexMismatchError, match="damaged"):
        hits(url, words)


def test_sent_to_another_machine_it_has_a_folder_of_that_one(
    tmp_path: Path, machine: SwitchTo
) -> None:
    far, here = Home.at("memory://bucket"), Home.at(tmp_path / "index")
    sent = [pickle.dumps(home) for home in (far, here)]
    machine("two")
    assert pickle.loads(sent[0]) == Home.at("memory://bucket") != far
    assert pickle.loads(sent[1]) == here


def test_of_two_builds_at_once_the_later_is_told(
    shelf: Path, url: str, machine: SwitchTo, words: WordEncoder
) -> None:
    build_library(shelf, url, 1, encoder=words)
    home = Home.at(url)
    library, before = home.library(), home.live()
    (shelf / "lake.txt").write_text("A swan on the lake.\n", "utf-8")
    build_library(shelf, url, 1, encoder=words)
    live = home.live()
    with pytest.raises(IndexBusyError, match="by somebody else meanwhile"):
        home.publish(LibraryManifest(1, "", library.roots, library.shards), before)
    assert home.live() == live


def test_whoever_publishes_need_not_have_built(
    shelf: Path, url: str, machine: SwitchTo, words: WordEncoder
) -> None:
    build_library(shelf, url, 1, encoder=words)
    machine("two")
    home = Home.at(url)
    home.publish(replace(home.library(), built="later"), home.live())
    assert home.library().built == "later"


def test_a_build_that_fails_leaves_what_is_there(
    shelf: Path, url: str, machine: SwitchTo, words: WordEncoder
) -> None:
    build_library(shelf, url, 2, encoder=words)
    live, expected = Home.at(url).live(), hits(url, words)

    class Broken(WordEncoder):
        def encode_passages(self, texts: list[str]) -> object:
            raise RuntimeError("no")

    (shelf / "lake.txt").write_text("A swan on the lake.\n", "utf-8")
    for _ in range(3):
        with pytest.raises(RuntimeError):
            build_library(shelf, url, 2, encoder=Broken())
        assert (Home.at(url).live(), hits(url, words)) == (live, expected)


def test_where_there_is_none_or_another_kind(
    shelf: Path, tmp_path: Path, machine: SwitchTo, words: WordEncoder
) -> None:
    with pytest.raises(IndexMissingError, match="--shards N --index file://"):
        Retriever.load(f"file://{tmp_path}/none", words)
    build_index(shelf, tmp_path / "whole", encoder=words)
    with pytest.raises(StorageError, match="whole; name another"):
        build_library(shelf, f"file://{tmp_path}/whole", 2, encoder=words)
    with pytest.raises(StorageError, match=r"nosuch://bucket cannot be reached"):
        build_library(shelf, "nosuch://bucket", 2, encoder=words)
    with socket.socket() as probe:  # nobody listens there
        probe.bind(("127.0.0.1", 0))
        url = f"ftp://127.0.0.1:{probe.getsockname()[1]}/library"
        with pytest.raises(StorageError, match="refused"):
            Retriever.load(url, words)


def test_the_command_line_takes_a_url(tmp_path: Path, machine: SwitchTo) -> None:
    place = ["--index", f"file://{tmp_path}/bucket"]

    def run(*told: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ballet_qa", *told, *place]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "4 stories: 4 added" in run("build", "--stories", str(SEEDS)).stdout
    machine("two")
    assert "Amélie Kuznetsova" in run("ask", "Who owns the café?").stdout
    assert "stories         4" in run("info").stdout
    assert run("doctor").returncode == 0
    assert "0 added" in run("build", "--stories", str(SEEDS)).stdout
    assert "no --watch" in run("build", "--stories", str(SEEDS), "--rebuild").stderr
