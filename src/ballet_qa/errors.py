"""Everything this package raises on purpose.

BalletQAError                 one line: the value at fault and the remedy
├── QuestionError             a blank or over-long question, a bad top_k
├── UnknownStoryError         a story id that the index does not hold
├── StoriesError              a folder of stories that is missing or has nothing to read
│   └── UploadError           what a visitor wants to add is no file of theirs, or nothing
├── LoadError                 one file that cannot be read (a build names it and goes on)
├── EncoderError              weights that are missing, damaged or of another model
├── ReaderError               the reader's weights are missing or damaged
├── IndexMissingError         no index where one was expected
├── IndexMismatchError        an index that is damaged, of another format or another encoder
│   └── IndexGoneError        a generation that was removed while it was about to be opened
├── SilentError               a shard, encoder or reader of a cluster that does not answer
├── StorageError              an index that cannot be written: disk full, no right to
├── IndexBusyError            another process is building this index
├── QuestionFileError         a line of a question file that cannot be read
└── ServeError                the page cannot be served (a port in use)
"""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


class BalletQAError(Exception):
    """The root of this package's errors.

    A ``public`` message names no path, no process and no address of the server's: visitors of a
    page may read it (`visitor_message`).
    """

    public = False
    for_visitors = "the library cannot be read now; the server's log has the reason"


class QuestionError(BalletQAError):
    """The question or one of its limits is out of range."""

    public = True


class UnknownStoryError(BalletQAError):
    """No story of that id."""

    public = True


class StoriesError(BalletQAError):
    """There is nothing to build from."""

    for_visitors = "there is nothing to build from; the server's log has the reason"


class UploadError(StoriesError):
    """What a visitor wants to add cannot be taken."""

    public = True


class LoadError(BalletQAError):
    """One file cannot be read as a story."""


class EncoderError(BalletQAError):
    """The encoder cannot be loaded."""


class ReaderError(BalletQAError):
    """The reader cannot be loaded."""


class IndexMissingError(BalletQAError):
    """There is no index there."""


class IndexMismatchError(BalletQAError):
    """The index cannot be trusted or does not fit."""


class IndexGoneError(IndexMismatchError):
    """The generation is not there any more."""


class SilentError(BalletQAError):
    """A part of a cluster does not answer."""

    public = True


class StorageError(BalletQAError):
    """The index cannot be written."""

    for_visitors = "the library cannot be changed now; the server's log has the reason"


class IndexBusyError(BalletQAError):
    """Somebody else is building this index."""

    for_visitors = "the library is being built already; try again in a minute"


class QuestionFileError(BalletQAError):
    """A question file is malformed."""


class ServeError(BalletQAError):
    """The page cannot be served."""


def visitor_message(error: BalletQAError) -> str:
    """What a visitor of the page or the routes reads of an error.

    One that may name paths or processes of the server's is logged, and general words stand for it.
    """
    if error.public:
        return str(error)
    _log.warning("%s: %s", type(error).__name__, error)
    return error.for_visitors
