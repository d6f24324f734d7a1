"""Open the reading room over ``index/``, built from ``seeds/`` when it is missing."""

from __future__ import annotations

import sys
from pathlib import Path

from ballet_qa.build import build_index
from ballet_qa.errors import BalletQAError
from ballet_qa.server import run
from ballet_qa.settings import SETTINGS
from ballet_qa.terminal import one_line, protect_stderr, say


def main() -> None:
    """Build if need be, then serve on 127.0.0.1:7860."""
    protect_stderr()
    try:
        if not Path(SETTINGS.index, "live").exists():
            say(f"Building the index of {SETTINGS.stories}/ …", flush=True)
            build_index(SETTINGS.stories, SETTINGS.index)
        run(SETTINGS.index)
    except BalletQAError as error:
        sys.exit(f"app.py: {one_line(error)}")


if __name__ == "__main__":
    main()
