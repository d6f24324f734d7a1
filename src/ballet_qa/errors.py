"""Everything this package raises on purpose.

BalletQAError                 one line: the value at fault and the remedy
├── QuestionError             a blank or over-long question, a bad top_k
├── UnknownStoryError         a story id that the index does not hold
├── StoriesError              a folder of stories that is missing or has nothing to read
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


class BalletQAError(Exception):
    """The root of this package's errors."""


class QuestionError(BalletQAError):
    """The question or one of its limits is out of range."""


class UnknownStoryError(BalletQAError):
    """No story of that id."""


class StoriesError(BalletQAError):
    """There is nothing to build from."""


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


class StorageError(BalletQAError):
    """The index cannot be written."""


class IndexBusyError(BalletQAError):
    """Somebody else is building this index."""


class QuestionFileError(BalletQAError):
    """A question file is malformed."""


class ServeError(BalletQAError):
    """The page cannot be served."""
