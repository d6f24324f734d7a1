"""Every default of the program, in one frozen record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Numbers that shape the program. Those that shape an index are written in its manifest."""

    # where things are, and where the page is served
    stories: str = "seeds"
    index: str = "index"
    host: str = "127.0.0.1"
    port: int = 7860

    # what may be asked
    top_k: int = 5
    max_top_k: int = 200  # each search puts forward as many, so that there always are top_k
    max_question_chars: int = 2000
    max_request_bytes: int = 64_000
    at_once: int = 4  # questions answered at the same time
    max_waiting: int = 64  # questions that wait; beyond them 503
    max_conversations: int = 300  # kept by the page's server, the latest; each takes memory
    session_seconds: int = 12 * 3600  # how long the page's server keeps a conversation

    # passwords: attempts that fail, then 429
    address_failures: int = 10  # a minute, from one IPv4 address or one /64 of IPv6
    total_failures: int = 100  # a minute; then an address has its reserve alone
    reserve_failures: int = 3  # in 15 minutes, from one address, when the total is spent
    most_failures: int = 1000  # a minute, from all addresses, reserves among them
    password_workers: int = 2  # attempts checked at the same time
    attempts_waiting: int = 8  # of one address; beyond them 429
    addresses_waiting: int = 256  # of those that failed as often lately; beyond them 429
    remembered_addresses: int = 20_000  # over 15 minutes of most_failures
    remembered_credentials: int = 10_000  # the latest; a credential of one address
    max_htpasswd_bytes: int = 256 * 1024  # some 3000 users

    # connections; the time is for the whole of the headers, and for a body that is no upload
    max_connections: int = 800
    max_streams: int = 400  # of results and heartbeats: two for each open page
    max_unread: int = 2000  # results of events that nobody collected, of all visitors
    max_unread_of_session: int = 100
    max_headers: int = 64
    max_header_bytes: int = 16 * 1024
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    write_seconds: float = 60.0  # for a visitor who does not read what is sent

    # uploads, where stories may be added from the page
    max_upload_bytes: int = 64 * 1024 * 1024  # one file
    max_upload_request_bytes: int = 1024**3  # the files of one request
    max_upload_files: int = 2000  # of one request, and added at once
    max_uploads_at_once: int = 4
    upload_seconds: float = 900.0  # for one request
    max_pending_bytes: int = 2 * 1024**3  # uploaded and not yet added, of all visitors
    max_pending_files: int = 10_000
    pending_seconds: float = 3600.0  # an upload that nobody adds is removed after that
    max_event_bytes: int = 4 * 1024 * 1024  # an event of the page that lists uploaded files

    # reading files
    max_file_bytes: int = 256 * 1024 * 1024
    max_load_seconds: float = 120.0  # one file's; then it is refused
    max_load_bytes: int = 4 * 1024**3  # memory for reading one file
    max_archive_members: int = 20_000
    longest_paragraph_chars: int = 10_000_000

    # splitting; a change here makes every index older than it
    longest_passage_words: int = 220
    wrapped_line_chars: int = 100
    lone_passage_words: int = 25

    # searching
    words_candidates: int = 200
    vector_candidates: int = 200

    # reading: so many passages in all, and no more once one is that likely to answer
    read_in_turns: tuple[tuple[int, float], ...] = (
        (2, 0.65),
        (4, 0.6),
        (6, 0.6),
        (10, 0.6),
        (16, 0.0),
    )

    # answering: likelihoods between 0 and 1 (docs/answers.md shows what each costs and gains)
    answer_from: float = 0.25
    weak_evidence: float = 0.1
    second_story_share: float = 0.4
    second_nameless_share: float = 0.9

    # the encoder
    encoder: str = "story-encoder-1"
    batch_size: int = 64

    # a library on a cluster: how long a question waits for a shard, and for encoder and reader
    shard_seconds: float = 5.0
    model_seconds: float = 30.0

    # generations of an index kept on disk
    kept_generations: int = 2

    @property
    def most_read(self) -> int:
        """How many passages are read at most."""
        return self.read_in_turns[-1][0]


SETTINGS = Settings()
