"""The folder of files that visitors uploaded and have not added yet: what is in it, and cleared.

It belongs to this process alone and goes with it. What lies elsewhere is no upload, wherever a path
or a link leads.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from ballet_qa.settings import SETTINGS

_NO_NAME = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|]+")
_LONGEST_NAME = 200  # bytes, of the 255 that file systems take


@cache
def upload_folder() -> Path:
    """The folder, made when it is first asked for, readable by this user only."""
    folder = Path(tempfile.mkdtemp(prefix="ballet_qa-uploads-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def harmless_name(name: str) -> str:
    """A file name without separators, controls and what other systems forbid; may be empty."""
    return _NO_NAME.sub(" ", name).strip(" .")


def keep_upload(folder: Path, name: str, content: BinaryIO) -> Path:
    """Keep an uploaded file in a folder of its own, under its last name made harmless."""
    stem, _, suffix = harmless_name(name.replace("\\", "/").rpartition("/")[2]).rpartition(".")
    short = stem.encode()[:_LONGEST_NAME].decode("utf-8", "ignore") or "story"
    kept = f"{short}.{suffix[:10]}" if suffix else "story"
    own = Path(tempfile.mkdtemp(dir=folder))
    path = own / kept
    with path.open("xb") as file:
        shutil.copyfileobj(content, file)
    return path


def uploaded(path: str | Path, uploads: Path) -> Path | None:
    """The path, links resolved, if it is a regular file inside ``uploads``; else None."""
    try:
        resolved = Path(path).resolve(strict=True)
        inside = resolved.is_relative_to(uploads.resolve(strict=True))
        return resolved if inside and resolved.is_file() else None
    except (OSError, ValueError, RuntimeError):  # no file, a NUL, a circle of links
        return None


def remove_old_uploads(folder: Path) -> tuple[int, int]:
    """Remove uploads that nobody added in time; the number and the bytes of those that remain."""
    oldest = time.time() - SETTINGS.pending_seconds
    files = size = 0
    paths = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    for path in paths:
        try:
            status = path.lstat()
        except OSError:  # another request removed it
            continue
        if status.st_mtime < oldest:
            remove_upload(path, folder)
        else:
            files += 1
            size += status.st_size
    return files, size


def remove_upload(path: Path, folder: Path) -> None:
    """Remove an uploaded file with the folder that it was kept in. One that is gone is fine."""
    path.unlink(missing_ok=True)
    if path.parent != folder:
        with suppress(OSError):  # not empty, or gone
            path.parent.rmdir()
