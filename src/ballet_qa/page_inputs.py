"""What the page's events may carry: raw values, looked at before Gradio reads any of them.

Gradio takes every value that looks like one of its file records, in whatever input, for a file to
read. Only an upload input takes such records here, and only of files in the upload folder.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ballet_qa.settings import SETTINGS
from ballet_qa.uploads import uploaded
from ballet_qa.words import is_unicode

_TEXT = {"textbox", "button", "html"}
_CHOICES = {"dropdown"}
_UPLOADS = {"file", "uploadbutton"}
_SESSION = {"state"}  # kept by the server; browsers send nothing
_NUMBERS = {"number"}
_PLAIN = {"json", "api"}  # of a published endpoint: words, numbers, and lists of these
# Beyond the limit of a question, so that a longer question gets the message that says so.
_LONGEST_TEXT = 2 * SETTINGS.max_question_chars
KINDS = _TEXT | _CHOICES | _UPLOADS | _SESSION | _NUMBERS | _PLAIN


def is_acceptable(kind: str, value: Any, uploads: Path) -> bool:
    """Whether an input of this ``kind`` (Gradio's block name, lower case) may have this value.

    ``uploads`` is the folder of uploaded files. Nothing is read but the file system's entries of
    paths inside it. A kind that is not in KINDS takes nothing.
    """
    if value is None:
        return kind in KINDS
    if kind in _TEXT:
        return isinstance(value, str)
    if kind in _NUMBERS:
        return isinstance(value, int | float)
    if kind in _CHOICES:
        return isinstance(value, str) or _is_list_of_text(value)
    if kind in _PLAIN:
        return _is_flat(value)
    if kind in _UPLOADS:
        return _are_uploads(value, uploads)
    return False


@dataclass(frozen=True, slots=True)
class Events:
    """The page's events: the number of inputs by event number, and what is published by name.

    Of a published endpoint, every parameter and whether a call must have it.
    """

    inputs: dict[int, int]
    published: dict[str, dict[str, bool]]

    def accept_joined(self, fields: dict[str, Any], uploads: Path | None) -> bool:
        """Whether an event of the page has its number of plain values.

        A record in ``data`` must be of a file in the folder ``uploads`` (None: there are none);
        ``event_data``, what was clicked, is a record of plain values.
        """
        number, data = fields.get("fn_index"), fields.get("data")
        if type(number) is not int or not isinstance(data, list):
            return False
        clicked = fields.get("event_data")
        others = [fields[name] for name in fields if name not in ("data", "event_data")]
        return (
            len(data) == self.inputs.get(number)
            and all(_is_flat(value) or _are_uploads(value, uploads) for value in data)
            and all(map(_is_flat, clicked.values() if isinstance(clicked, dict) else [clicked]))
            and all(map(is_plain, others))
        )

    def accept_call(self, name: str, fields: dict[str, Any]) -> bool:
        """Whether a published endpoint has its number of plain values, and nothing else."""
        data = fields.get("data")
        return (
            fields.keys() <= {"data", "session_hash"}
            and isinstance(data, list)
            and len(data) == len(self.published[name])
            and all(map(_is_flat, data))
            and is_plain(fields.get("session_hash"))
        )

    def accept_named_call(self, name: str, fields: dict[str, Any]) -> bool:
        """As `accept_call`, of parameters by name."""
        parameters = self.published[name]
        required = {parameter for parameter, is_required in parameters.items() if is_required}
        return required <= fields.keys() <= parameters.keys() and all(
            map(_is_flat, fields.values())
        )


def fields_of(body: bytes) -> dict[str, Any] | None:
    """The JSON object of a request, None when it is none."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and all(map(is_plain, fields)) else None


def _is_flat(value: Any) -> bool:
    return is_plain(value) or (isinstance(value, list) and all(map(is_plain, value)))


def _are_uploads(value: Any, uploads: Path | None) -> bool:
    records = value if isinstance(value, list) else [value]
    if uploads is None or len(records) > SETTINGS.max_upload_files:
        return False
    paths = {str(record.get("path")) if isinstance(record, dict) else "" for record in records}
    return len(paths) == len(records) and all(_is_upload(record, uploads) for record in records)


def _is_upload(record: Any, uploads: Path) -> bool:
    return (
        isinstance(record, dict)
        and record.get("meta") == {"_type": "gradio.FileData"}
        and isinstance(record.get("path"), str)
        and not record.get("is_stream")
        and uploaded(record["path"], uploads) is not None
    )


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def is_plain(value: Any) -> bool:
    """Whether this is null, a truth value, a finite number, or valid text that is not too long."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT and is_unicode(value)
    return value is None or isinstance(value, int)
