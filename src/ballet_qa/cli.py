"""The command line: parse, call, print, and map errors to exit codes.

0 done; 1 done, but some files were refused; 2 wrong usage; 3 nothing done.
Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from ballet_qa.errors import BalletQAError, QuestionError, QuestionFileError, ServeError
from ballet_qa.settings import SETTINGS
from ballet_qa.terminal import json_text, one_line, protect_stderr, say

if TYPE_CHECKING:
    from ballet_qa.build import BuildPlan, BuildReport, Progress
    from ballet_qa.doctor import Check
    from ballet_qa.types import Encoder, VectorKind

_WATCH_MS = 1000

# Typer carries its own copy of click in some versions and uses the installed one in others.
_UsageError: Any = next(k for k in typer.BadParameter.__mro__ if k.__name__ == "ClickException")

app = typer.Typer(
    help="Ask a library of stories: the passage that answers, word for word, and its story.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich alone takes longer than all else --help needs
)

IndexDir = Annotated[
    str,
    typer.Option(
        "--index",
        metavar="DIR",
        help="The folder that holds the index; for one in shards, a URL as fsspec knows them, too.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
TopK = Annotated[
    int, typer.Option("--top-k", metavar="N", help="How many passages to list with the answer.")
]
StoryIds = Annotated[
    list[str] | None,
    typer.Option("--story", metavar="ID", help="Look in this story only; may be repeated."),
]
Reader = Annotated[
    Path | None,
    typer.Option(
        "--reader",
        metavar="DIR",
        envvar="BALLET_QA_READER",
        help="Read with the weights in this folder instead of the package's own.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Do it on the Ray cluster there (host:port; auto; or local, to begin one here).",
    ),
]
Batch = Annotated[
    str | None,
    typer.Option(
        "--batch",
        metavar="FILE.jsonl",
        help="Take questions from a file, one JSON object a line: "
        '{"id": …, "question": …, "stories": [ids] or left out}. - reads standard input.',
    ),
]


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    protect_stderr()
    try:
        code = app(standalone_mode=False)
    except QuestionError as error:
        _fail(error, 2)
    except BalletQAError as error:
        _fail(error, 3)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(2)
        _fail(error.format_message() + "; --help explains", 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; nothing was changed", 3)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left; say nothing more
        sys.exit(3)
    sys.exit(code if isinstance(code, int) else 0)


@app.command()
def build(
    stories: Annotated[
        list[Path] | None,
        typer.Option(
            "--stories",
            metavar="DIR",
            help=f"Stories: a folder or a file; may be repeated. [default: {SETTINGS.stories}]",
        ),
    ] = None,
    index: IndexDir = SETTINGS.index,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Take nothing over from the index there is.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and stop.")
    ] = False,
    encoder: Annotated[
        str,
        typer.Option(
            help="The sentence-transformer to embed with: the default, a folder, or a hub model "
            "(fetched over the network if it is not in the local cache)."
        ),
    ] = SETTINGS.encoder,
    vectors: Annotated[
        Literal["exact", "clustered"] | None,  # VectorKind is in types, which imports numpy
        typer.Option(
            help="How vectors are searched, instead of what their number suggests (with --rebuild)."
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, and build again whenever a file changes.")
    ] = False,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Put the stories in N shards. [default: as it is in now]"
        ),
    ] = None,
    ray: Ray = None,
) -> None:
    """Bring the index in step with your stories.

    Unchanged stories are kept, new and changed ones are read and embedded, removed ones leave.
    Files that cannot be read are refused, each named with its reason.
    """
    from ballet_qa.encoder import load_encoder

    if watch and dry_run:
        raise typer.BadParameter("--watch builds; leave --dry-run out")
    roots = stories or [Path(SETTINGS.stories)]
    shards = shards or _shard_count(index)
    if ray is not None or shards:
        if watch or dry_run or rebuild or vectors:
            raise typer.BadParameter(
                "of a library in shards there is no --watch, --dry-run, --rebuild or --vectors"
            )
        if _build_shards(roots, index, shards or 1, encoder, ray):
            raise typer.Exit(1)
        return
    chosen = None if dry_run else load_encoder(encoder, online=encoder != SETTINGS.encoder)
    refused = _build_once(roots, index, chosen, rebuild=rebuild, dry_run=dry_run, vectors=vectors)
    if watch:
        _watch(roots, index, chosen)
    if refused:
        raise typer.Exit(1)


def _shard_count(index: str) -> int:
    """How many shards the library there is in; none if it is whole."""
    from ballet_qa.home import Home

    home = Home.at(index)
    return len(home.live()) or int(bool(home.url))


def _build_shards(
    roots: list[Path], index: str, shards: int, encoder: str, ray: str | None
) -> bool:
    """Build a library in shards and print what came of it; whether files were refused."""
    if ray is not None:
        report = _cluster("build").build_on_cluster(roots, index, shards, ray, encoder=encoder)
    else:
        from ballet_qa.encoder import load_encoder
        from ballet_qa.parts import build_library

        chosen = load_encoder(encoder, online=encoder != SETTINGS.encoder)
        report = build_library(roots, index, shards, encoder=chosen)
    _print_report(report, dry_run=False)
    return bool(report.refused)


def _cluster(work: str) -> Any:
    """The module that does this on a cluster."""
    try:
        return importlib.import_module(f"ballet_qa.cluster_{work}")
    except ModuleNotFoundError as error:
        if error.name not in ("ray", "pyarrow"):
            raise
        raise ServeError("Ray is not installed; pip install 'ballet-qa[ray]'") from error


def _build_once(
    roots: list[Path],
    index: str,
    encoder: Encoder | None,
    *,
    rebuild: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    vectors: VectorKind | None = None,
) -> bool:
    """Build and print what came of it, when ``quiet`` only a change; whether files were refused."""
    from ballet_qa.build import build_index

    def show_plan(plan: BuildPlan) -> None:
        if plan.changes or not quiet:
            _print_plan(plan)

    bar = _progress_bar("files")
    with bar as tick:

        def show(now: Progress) -> None:
            rate = now.passages_done / bar.elapsed if bar.elapsed else 0.0
            tick(now.files_done, now.files, f"{rate:,.0f} passages/s")

        report = build_index(
            roots,
            index,
            encoder=encoder,
            rebuild=rebuild,
            dry_run=dry_run,
            vectors=vectors,
            progress=show,
            planned=show_plan,
        )
    if not quiet or report.changes:
        _print_report(report, dry_run=dry_run)
    return bool(report.refused)


def _watch(roots: list[Path], index: str, encoder: Encoder | None) -> None:
    """Build again after every change below the roots, until interrupted."""
    import watchfiles

    home = str(Path(index).resolve())

    def is_not_ours(_: object, path: str) -> bool:
        return not str(Path(path).resolve()).startswith(home)

    # The first time out tells that changes are seen from now on; what came before is looked for.
    changes = watchfiles.watch(
        *roots,
        watch_filter=is_not_ours,
        raise_interrupt=False,
        yield_on_timeout=True,
        rust_timeout=_WATCH_MS,
    )
    # Ctrl-C is how it ends, during a build, too: the index is then what it was before that.
    with suppress(KeyboardInterrupt):
        for turn, changed in enumerate(changes):
            if turn == 0:
                say("watching; Ctrl-C ends it", flush=True)
            if changed or turn == 0:
                try:
                    _build_once(roots, index, encoder, quiet=turn == 0)
                except BalletQAError as error:  # an empty folder may be a full one in a moment
                    _say_error(error)
                sys.stdout.flush()


@app.command()
def ask(
    question: Annotated[str | None, typer.Argument(help="The question, in plain words.")] = None,
    index: IndexDir = SETTINGS.index,
    top_k: TopK = SETTINGS.top_k,
    story: StoryIds = None,
    as_json: Json = False,
    batch: Batch = None,
    reader: Reader = None,
) -> None:
    """Ask a question: the words that answer, quoted, with their story, or why there are none.

    Example: `ballet-qa ask "Who owns the café?"`
    """
    _one_of(question, batch)
    from ballet_qa import render
    from ballet_qa.answering import Answerer

    if question is not None:
        from ballet_qa.retriever import check_query

        check_query(question, top_k)
        answer = Answerer.load(index, reader=reader).answer(question, top_k, stories=story)
        _say_text(_dumps(render.answer_json(answer)) if as_json else render.answer_text(answer))
        return
    lines = list(_batch_lines(str(batch)))
    answerer = Answerer.load(index, reader=reader)

    def answered(line: dict[str, Any]) -> dict[str, Any]:
        asked = answerer.answer(line["question"], top_k, stories=line.get("stories", story))
        return render.answer_json(asked)

    _print_batch(str(batch), lines, answered)


@app.command()
def search(
    query: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    index: IndexDir = SETTINGS.index,
    top_k: TopK = SETTINGS.top_k,
    story: StoryIds = None,
    as_json: Json = False,
    batch: Batch = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Read the first passages, and put the best first.")
    ] = False,
    reader: Reader = None,
) -> None:
    """List the passages nearest to a question, best first, without judging them.

    Example: `ballet-qa search "snow in the forest" --top-k 3`
    """
    _one_of(query, batch)
    from ballet_qa import render
    from ballet_qa.answering import Answerer
    from ballet_qa.retriever import Retriever, check_query

    if query is not None:
        check_query(query, top_k)
    lines = [] if batch is None else list(_batch_lines(batch))
    find = Answerer.load(index, reader=reader).rerank if rerank else Retriever.load(index).search
    if query is not None:
        hits = find(query, top_k, stories=story)
        _say_text(
            _dumps(render.search_json(query, hits))
            if as_json
            else "\n".join(map(render.hit_text, hits))
        )
        return

    def found(line: dict[str, Any]) -> dict[str, Any]:
        hits = find(line["question"], top_k, stories=line.get("stories", story))
        return render.search_json(line["question"], hits)

    _print_batch(str(batch), lines, found)


@app.command()
def info(
    index: IndexDir = SETTINGS.index,
    stories: Annotated[bool, typer.Option("--stories", help="List the stories too.")] = False,
    as_json: Json = False,
) -> None:
    """Say what the index holds and how it was made."""
    from ballet_qa import render
    from ballet_qa.answering import READER_NAME
    from ballet_qa.shards import open_index

    opened = open_index(index)
    manifest = opened.manifest
    facts: dict[str, Any] = {
        "stories": manifest.stories,
        "passages": manifest.passages,
        "sentences": manifest.sentences,
        "encoder": manifest.encoder,
        "reader": READER_NAME,
        "format_version": manifest.format_version,
        "built": manifest.built,
    }
    catalogue = opened.texts.catalogue() if stories else []
    if as_json:
        listed = {"catalogue": [render.story_json(entry) for entry in catalogue]}
        _say_text(_dumps(facts | (listed if stories else {})))
        return
    for name, value in facts.items():
        say(f"{name.replace('_', ' '):<15} {one_line(value)}")
    for entry in catalogue:
        story_id, title, source = map(one_line, (entry.id, entry.title, entry.source))
        say(f"  {story_id}  {title}  ({entry.length:,} characters)  {source}")


@app.command()
def doctor(
    index: IndexDir = SETTINGS.index,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Go back to the last whole generation, and bring it in step with its stories.",
        ),
    ] = False,
) -> None:
    """Check that the index is sound: files, offsets, vectors; say what to do when it is not."""
    from ballet_qa.doctor import examine
    from ballet_qa.doctor import repair as mend
    from ballet_qa.home import Home

    home = Home.at(index)
    if home.has_library():
        if repair:
            raise typer.BadParameter("a library in shards is mended by building it again")
        shards = [home.at_hand(entry) for entry in home.library().shards]
        if not _print_checks(check for shard in shards for check in examine(shard)):
            raise typer.Exit(3)
        return
    if _print_checks(examine(index)):
        return
    if not repair:
        say("unsound; `ballet-qa doctor --repair` rebuilds what can be")
        raise typer.Exit(3)
    done = mend(index)
    if done.went_back_to:
        say(f"went back to generation {one_line(done.went_back_to)}")
    if done.built is not None:
        _print_report(done.built, dry_run=False)
    if not _print_checks(examine(index)):
        raise typer.Exit(3)


def _print_checks(checks: Iterable[Check]) -> bool:
    """Print each check as it is done; whether all is well."""
    sound = True
    for check in checks:
        word = "ok" if check.problem is None else "wrong"
        say(f"{word:<6} {one_line(check.name)}", flush=True)
        if check.problem is not None:
            sound = False
            say(f"       {one_line(check.problem)}")
    return sound


@app.command()
def serve(
    index: IndexDir = SETTINGS.index,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = SETTINGS.host,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The port to listen on.")
    ] = SETTINGS.port,
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="USER:PASSWORD|FILE",
            envvar="BALLET_QA_AUTH",
            help="Let in only who knows the password, or is in the file (htpasswd -B).",
        ),
    ] = None,
    allow_add: Annotated[
        bool, typer.Option("--allow-add", help="Let whoever sees the page add stories.")
    ] = False,
    root_path: Annotated[
        str,
        typer.Option(
            metavar="/PATH", envvar="ROOT_PATH", help="Where a proxy shows the page, if not at /."
        ),
    ] = "",
    mcp: Annotated[
        bool, typer.Option("--mcp", help="Serve agents, too, at /mcp (needs ballet-qa[mcp]).")
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Answer under this host name, too (besides localhost and --host); "
            "may be repeated.",
        ),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Believe X-Forwarded-* of the proxy at this address or network; may be repeated. "
            "[default: with --root-path, this machine]",
        ),
    ] = None,
    reader: Reader = None,
    ray: Ray = None,
    replicas: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="With --ray: how many there are of each part but the page."
        ),
    ] = 1,
) -> None:
    """Serve the reading room: open http://127.0.0.1:7860 in a browser and ask."""
    from ballet_qa.server import Serving, run

    names, proxies = tuple(allowed_host or ()), tuple(proxy or ())
    serving = Serving(host, port, auth, root_path, allow_add, mcp, names, proxies)
    if ray is None:
        run(index, serving, reader)
    else:
        _cluster("serve").run_on_cluster(index, ray, serving, replicas, reader)


@app.command("mcp")
def serve_agents(index: IndexDir = SETTINGS.index, reader: Reader = None) -> None:
    """Serve one agent over standard input and output, by the Model Context Protocol."""
    from ballet_qa.library import Library
    from ballet_qa.mcp_server import run_stdio

    run_stdio(Library(index, reader))


@app.command()
def evaluate(
    questions: Annotated[
        list[Path],
        typer.Option("--questions", metavar="FILE.jsonl", help="Questions with their evidence."),
    ],
    index: IndexDir = SETTINGS.index,
    as_json: Json = False,
    reader: Reader = None,
) -> None:
    """Measure how often the right passage is found, and how often an absent answer is refused.

    A question file has one JSON object a line: `{"id", "question", "answers": […], "evidence":
    [{"story", "start", "end"}], "answerable": true}`. docs/evaluation.md says how to write one.
    With --json every question's hits and answer come along, so that all can be computed anew.
    """
    from ballet_qa.questions import load_questions

    asked = [(path, load_questions(path)) for path in questions]  # a bad file fails at once

    from ballet_qa.answering import Answerer
    from ballet_qa.evaluation import case_form, report, report_text, run

    answerer = Answerer.load(index, reader=reader)
    forms = {}
    for path, held in asked:
        with _progress_bar("questions") as tick:
            done = run(answerer, held, tick)
        made = report(done)
        if as_json:
            cases = {"library": done.library, "inside_the_right_story": done.in_story}
            forms[str(path)] = made | {k: [case_form(c) for c in v] for k, v in cases.items()}
        else:
            _say_text(report_text(path.name, made) + "\n")
    if as_json:
        _say_text(_dumps(forms))


def _fail(error: object, code: int) -> NoReturn:
    _say_error(error)
    sys.exit(code)


def _say_error(error: object) -> None:
    say(f"ballet-qa: {one_line(error)}", error=True)


def _one_of(question: str | None, batch: str | None) -> None:
    if (question is None) == (batch is None):
        raise typer.BadParameter("give a question, or --batch FILE.jsonl, and not both")


def _batch_lines(batch: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The questions of a batch with their line numbers, each checked before any is answered."""
    try:
        text = sys.stdin.read() if batch == "-" else Path(batch).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise QuestionFileError(
            f"{batch} cannot be read: {error}; give UTF-8 JSON lines"
        ) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise QuestionFileError(f"{batch}, line {number} is not JSON: {error}") from error
        stories = fields.get("stories") if isinstance(fields, dict) else None
        if (
            not isinstance(fields, dict)
            or not isinstance(fields.get("question"), str)
            or not (stories is None or _is_list_of_text(stories))
        ):
            raise QuestionFileError(
                f'{batch}, line {number} is not {{"id", "question", "stories": [ids] or absent}}'
            )
        if stories is None:
            fields.pop("stories", None)
        yield number, fields


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


class _progress_bar:
    """A bar with rate and time left on a terminal's stderr; nothing when that is not a terminal.

    Entering gives a function of how many are done, how many there are, and a rate to show.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> Callable[..., None]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(self._what),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            # The bar moves the cursor: it is written beside `protect_stderr`, all else is not.
            console=Console(file=sys.__stderr__, stderr=True),
            redirect_stderr=False,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=None, note="")
        return self._tick

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self._bar.tasks[0].elapsed or 0.0

    def _tick(self, done: int, total: int, note: str = "") -> None:
        self._bar.update(self._task, completed=done, total=total, note=note)

    def __exit__(self, *error: object) -> None:
        self._bar.stop()


def _print_plan(plan: BuildPlan) -> None:
    say(
        f"plan: {len(plan.new)} new files, {len(plan.changed)} changed, {len(plan.gone)} gone, "
        f"{len(plan.unchanged)} unchanged",
        flush=True,
    )


def _print_changes(report: BuildReport) -> None:
    for word, ids in (
        ("add", report.added),
        ("change", report.changed),
        ("remove", report.removed),
    ):
        for story_id in ids:
            say(f"{word}: {one_line(story_id)}")
    for old, new in report.renamed:
        say(f"rename: {one_line(old)} -> {one_line(new)}")


def _print_report(report: BuildReport, *, dry_run: bool) -> None:
    if dry_run:
        _print_changes(report)
    if report.left is not None:
        process = one_line(report.left)
        say(f"the build of process {process} did not end; its remains are cleared away")
    for guess in report.guessed:
        say(f"encoding guessed: {one_line(guess.path)}: {one_line(guess.encoding)}")
    for noted in report.noted:
        say(f"note: {one_line(noted.path)}: {one_line(noted.note)}")
    if report.ignored:
        kinds = ", ".join(f"{count} {one_line(kind)}" for kind, count in report.ignored.items())
        say(f"ignored, of other kinds: {kinds}")
    for refused in report.refused:
        say(f"refused: {one_line(refused.path)}: {one_line(refused.reason)}")
    counts = (
        f"{report.stories} stories: {len(report.added)} added, {len(report.changed)} changed, "
        f"{len(report.renamed)} renamed, {len(report.removed)} removed, "
        f"{len(report.unchanged)} unchanged, "
        f"{len(report.refused)} refused"
    )
    if dry_run:
        say(f"{counts}; nothing written")
    else:
        say(
            f"{counts}; {report.passages} passages ({report.embedded} embedded), "
            f"{report.sentences} sentences"
        )


def _print_batch(
    batch: str,
    lines: Iterable[tuple[int, dict[str, Any]]],
    done: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Print what is done of each line, in their order, several being worked on at a time."""
    from concurrent.futures import ThreadPoolExecutor

    def form(numbered: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        number, line = numbered
        try:
            return {"id": line.get("id")} | done(line)
        except BalletQAError as error:
            raise type(error)(f"{batch}, line {number}: {error}") from error

    with ThreadPoolExecutor(SETTINGS.at_once) as pool:
        try:
            for made in pool.map(form, lines):
                say(json_text(made), flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _say_text(text: str) -> None:
    """Print a text of several lines, whose values are one line each already."""
    say(*text.split("\n"))


def _dumps(form: dict[str, Any]) -> str:
    return json_text(form, indent=2)


if __name__ == "__main__":
    main()
