"""Zip containers opened with care: bounded in members and size, no way out, never unpacked to disk.

EPUB, DOCX and ODT are zip files. A bomb, a name that climbs out, an encrypted or damaged member
each become a LoadError that says so.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from urllib.parse import unquote

from ballet_qa.errors import LoadError
from ballet_qa.settings import SETTINGS

_ENCRYPTED = 0x1
# What zipfile raises on damaged bytes, an unknown method of compression (NotImplementedError) too.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    OSError,
    EOFError,
    ValueError,
)


class Archive:
    """The members of one zip file, read one at a time."""

    def __init__(self, data: bytes) -> None:
        """Raises LoadError when ``data`` is no zip file, or one that is not to be opened."""
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except _DAMAGED as error:
            raise LoadError(f"damaged: not a whole zip file ({error})") from error
        members = [info for info in self._zip.infolist() if not info.is_dir()]
        if len(members) > SETTINGS.max_archive_members:
            raise LoadError(
                f"{len(members):,} files in it, over the limit of {SETTINGS.max_archive_members:,}"
            )
        total = sum(info.file_size for info in members)
        if total > SETTINGS.max_file_bytes:
            limit = SETTINGS.max_file_bytes // 2**20
            raise LoadError(f"unpacks to {total // 2**20:,} MB, over the limit of {limit} MB")
        for info in members:
            if not is_inside(info.filename):
                raise LoadError(f"holds a file that leads out of it: {info.filename!r}")
        self._members = {info.filename: info for info in members}

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def read(self, name: str) -> bytes:
        """A member's bytes. Raises LoadError when it is missing, encrypted or damaged."""
        info = self._members.get(name)
        if info is None:
            raise LoadError(f"{name} is missing in it")
        if info.flag_bits & _ENCRYPTED:
            raise LoadError("encrypted; remove the password first")
        try:
            with self._zip.open(info) as member:
                # The directory may lie about a size: read no more than it says, and one byte.
                data = member.read(info.file_size + 1)
        except _DAMAGED as error:
            raise LoadError(f"damaged: {name} in it cannot be read ({error})") from error
        if len(data) > info.file_size:
            raise LoadError(f"damaged: {name} in it is larger than it says")
        return data


def is_inside(name: str) -> bool:
    """Whether a member's name stays below the root of its archive."""
    plain = name.replace("\\", "/")
    return not plain.startswith("/") and ".." not in plain.split("/") and ":" not in plain[:2]


def resolved(base: str, reference: str) -> tuple[str, str]:
    """A reference in member ``base`` as (member, fragment).

    The archive's root is the root of all: what would lead above it stays there, as in an address.
    """
    path, _, fragment = reference.partition("#")
    joined = posixpath.join("/", posixpath.dirname(base), unquote(path))
    target = posixpath.normpath(joined).lstrip("/")
    return (base if not path else target), unquote(fragment)
